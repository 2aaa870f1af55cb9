"""README.md and the guides run as they stand, and name nothing that does not exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from planners import MPC, Bounds
from worldmodel import Batch
from worldmodel.data import ActionScale

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: str, *languages: str) -> list[tuple[int, str]]:
    """Line number and text of each fenced block of a page in one of the languages."""
    fence = re.compile(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(page.count("\n", 0, m.start(1)), m[1]) for m in fence.finditer(page)]


def commands() -> list[list[str]]:
    """Every shell command in the README, split at `&&`, prompts and comments removed."""
    shell = [text for _, text in blocks(README.read_text(), "console", "bash", "sh", "shell")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.removeprefix("$ ").split("&&")]
    split = [shlex.split(part, comments=True) for part in parts]
    return [words for words in split if words]


class Episode:
    """One step of an episode: it shows its last frames and takes actions for the next block."""

    def __init__(self) -> None:
        self.taken: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.rand(1, 1, 3, 224, 224)

    def step(self, actions: Tensor) -> None:
        self.taken.append(actions)


def run_blocks(path: Path) -> dict[str, object]:
    """Run a page's Python from top to bottom, given the data that its reader would have."""
    frames = torch.randint(256, (2, 4, 3, 224, 224), dtype=torch.uint8)
    namespace: dict[str, object] = {
        "loader": [Batch(frames=frames, actions=torch.randn(2, 4, 10))],
        "episode": Episode(),
        "goal": torch.rand(1, 3, 224, 224),
        "scale": ActionScale(torch.tensor([0.5, -0.5]), torch.tensor([0.02, 0.05])),
    }
    for line, text in blocks(path.read_text(encoding="utf-8"), "python"):
        # Line numbers of a traceback are the page's.
        exec(compile("\n" * line + text, str(path), "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_the_python_in_the_readme_runs() -> None:
    """The README's code trains on a batch, plans at the published settings, and acts."""
    namespace = run_blocks(README)
    model, episode = namespace["model"], namespace["episode"]
    assert isinstance(episode, Episode)
    (actions,) = episode.taken
    planner, box = namespace["planner"], namespace["box"]
    assert isinstance(planner, MPC)
    assert isinstance(box, Bounds)
    assert planner.last is not None
    # In the environment's units, step by step, inside its box.
    raw = box.to_environment(planner.last.actions)
    assert torch.equal(actions, raw.view(1, 25, 2))
    assert actions.abs().max() <= 1
    assert not torch.equal(raw, planner.last.actions)
    assert isinstance(model, torch.nn.Module)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_python_in_a_guide_runs(guide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of a guide that is marked as Python runs; what is only shown is marked text."""
    run_blocks(guide)


@pytest.mark.slow
def test_the_loss_on_two_ranks_is_that_of_one_process() -> None:
    """The tutorial's script finds one gradient on two gloo ranks and on one process."""
    script = ROOT / "docs" / "examples" / "loss_on_two_ranks.py"
    told = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "Two ranks have the gradient" in told.stdout


def test_the_readme_names_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every nox session and every worldmodel subcommand in the README is there."""
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.M))
    named = commands()
    assert ["nox", "-s", "tests"] in [words[:3] for words in named]
    for words in named:
        if words[0] == "nox" and "-s" in words:
            until = words.index("--") if "--" in words else len(words)
            assert set(words[words.index("-s") + 1 : until]) <= sessions
        if words[0] == "worldmodel":
            from worldmodel.apps.cli import main

            with pytest.raises(SystemExit) as stop:
                main([*takewhile(lambda w: not w.startswith("-"), words[1:]), "--help"])
            assert stop.value.code == 0
            shown = capsys.readouterr().out
            assert all(w in shown for w in words if w.startswith("--"))


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    """The README's test command is the one CI relies on."""
    assert re.search(r"-s tests\b", (ROOT / ".ci" / "run").read_text())


def test_files_that_the_readme_links_exist() -> None:
    """Every relative link and picture of the README leads to a file of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", README.read_text())
    targets = [target for pair in links for target in pair if target and "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_tables_in_the_readme_are_the_newest() -> None:
    """Each table equals what `python benchmarks/tables.py` would write from the results."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.fill(README.read_text()) == README.read_text()
