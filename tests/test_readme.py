"""README.md and the guides run as they stand, and name nothing that does not exist."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch

from sigreg import collapse_value, noise_floor, trapezoid_rule
from worldmodel import goals
from worldmodel.worlds import TwoRoom
from worldmodel.worlds.push_t_pusher import CONTACTS

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


def script(path: str) -> Any:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_blocks(path: Path) -> dict[str, object]:
    """Run a page's Python from top to bottom, with nothing that the page does not define."""
    namespace: dict[str, object] = {}
    for line, text in blocks(path.read_text(encoding="utf-8"), "python"):
        # Line numbers of a traceback are the page's.
        exec(compile("\n" * line + text, str(path), "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_the_python_in_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pasted in a clone: the shipped model reaches goals, and a model trains on two batches."""
    monkeypatch.chdir(ROOT)
    namespace = run_blocks(README)
    reached, of = re.findall(r"(\d+)% of (\d+) goals reached", capsys.readouterr().out)[0]
    assert int(reached) >= 80
    assert int(of) == 20
    world, starts, ends = (namespace[name] for name in ("world", "starts", "ends"))
    assert isinstance(world, TwoRoom)
    assert world.success(starts, ends).mean() <= 0.2
    model = namespace["model"]
    assert isinstance(model, torch.nn.Module)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_python_in_a_guide_runs(guide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of a guide that is marked as Python runs; what is only shown is marked text."""
    run_blocks(guide)


def test_tutorials_become_notebooks_with_the_same_code() -> None:
    """Their cells, which `nox -s docs` runs, are the Python blocks of the pages, in order."""
    made = script("docs/notebooks.py")
    assert len(made.PAGES) == 3
    for path in made.PAGES:
        page = path.read_text("utf-8")
        cells = made.notebook(page)["cells"]
        code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        assert code == [text.rstrip("\n") for _, text in blocks(page, "python")] != []
        text = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
        assert text[0].startswith("# Tutorial")
        assert not any("```python" in part for part in text)


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


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", *GUIDES], ids=lambda path: path.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture leads to a file, and its anchor to a heading there."""
    links = re.findall(r"\]\(([^)\s]*)\)|src=\"([^\"]+)\"", prose(page))
    dead = []
    for link in (target for pair in links for target in pair if target and "://" not in target):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_tables_in_the_readme_are_the_newest() -> None:
    """Each table equals what `python benchmarks/tables.py` would write from the results."""
    tables = script("benchmarks/tables.py")
    assert tables.fill(README.read_text()) == README.read_text()


def test_what_the_claims_rest_on_exists() -> None:
    """Every test that docs/results.md names for a claim is a function of that file."""
    named = re.findall(
        r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "results.md").read_text("utf-8")
    )
    assert len(named) >= 10
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_scripts_that_the_docs_run_exist() -> None:
    """Every `python FOLDER/SCRIPT.py` of README, CONTRIBUTING and the guides exists."""
    pages = [README, ROOT / "CONTRIBUTING.md", *GUIDES]
    runs = {
        s for page in pages for s in re.findall(r"python (\w+/\w+\.py)", page.read_text("utf-8"))
    }
    assert "benchmarks/tables.py" in runs
    assert sorted(script for script in runs if not (ROOT / script).exists()) == []


def test_functions_that_the_docs_place_in_a_file_are_there() -> None:
    """Every `file.py:Class.function` of CONTRIBUTING.md is defined in that file."""
    placed = re.findall(r"`(\w[\w/]*\.py):([\w.]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(placed) > 10
    for path, names in placed:
        text = (ROOT / path).read_text("utf-8")
        for name in names.split("."):
            assert re.search(rf"^ *(class|def) {name}\b", text, re.MULTILINE), (path, name)


def stated() -> dict[str, tuple[str, str]]:
    """Sentences of the prose with a number in them, made from the code or file it comes from."""
    limit = re.search(r"^EXTRA_LIMIT_MB = (\d+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert limit is not None
    manifests = [json.loads(p.read_text()) for p in (ROOT / "benchmarks/manifests").glob("*.json")]
    (pairs,) = {len(manifest["seeds"]) for manifest in manifests}
    full = json.loads((ROOT / "benchmarks" / "gpu_worlds.json").read_text())
    period = 2 * math.pi / float(trapezoid_rule().t.diff()[0])
    count = {8: "eight"}[len(manifests)]
    return {
        "size": ("README.md", f"less than {limit[1]} MB to torch"),
        "floor": ("docs/sigreg.md", f"It is {noise_floor():.4f} with the default rule"),
        "collapse": ("docs/sigreg.md", f"total collapse, score {collapse_value(1):.3f} N"),
        "period": ("docs/sigreg.md", f"This is {period:.1f} with the default rule"),
        "contacts": ("docs/environments.md", f"one of {len(CONTACTS)} contacts"),
        "manifests": ("docs/evaluate.md", f"has {count} manifests of {pairs} pairs"),
        "published": ("docs/tutorial-paper.md", f"trains {full['steps']:,} steps of 128 windows"),
        "soon": ("docs/goals.md", f"The factor 1/{1 / goals.SOON:.0f} is `goals.SOON`"),
    }


@pytest.mark.parametrize("name", stated())
def test_a_number_in_the_prose_is_that_of_its_source(name: str) -> None:
    """The page has the sentence that its source makes: change the source, and the page must too."""
    page, sentence = stated()[name]
    assert sentence in " ".join((ROOT / page).read_text("utf-8").split())
