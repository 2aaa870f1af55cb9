"""The command line: two words run the demo, and a mistake ends in one line and status 2."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from worldmodel.apps.cli import main
from worldmodel.apps.demo import command
from worldmodel.apps.demo.material import DemoConfig
from worldmodel.apps.train.loop import Training


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with fewer and smaller episodes; what the options set stays theirs."""
    small = partial(
        DemoConfig, episodes=12, length=30, held_out=10, budget=10, image_size=16, dim=8,
        batch_size=16, num_proj=8,
    )  # fmt: skip
    monkeypatch.setattr(command, "DemoConfig", small)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The single error line of a command that must end with status 2."""
    try:
        status = main(list(words))
    except SystemExit as stop:  # argparse's own
        status = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if "error: " in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.usefixtures("tiny")
def test_the_demo_says_what_it_found_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with status 0, the figures and the folder; nothing goes to stderr."""
    out = tmp_path / "run"
    words = ["demo", "--steps", "2", "--pairs", "4", "--seed", "3", "--out", str(out)]
    assert main(words) == 0
    text, err = capsys.readouterr()
    assert err == ""
    for part in ("of 4 pairs", "random policy", "linear", "MLP", "SIGReg", "took", str(out)):
        assert part in text
    assert (out / "report.json").is_file()
    line = refused(capsys, *words)
    assert line == (
        f"worldmodel demo: error: --out must not exist yet, got {out}: choose another folder"
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "--out", "r", "--data", "a.h5", "--stepz", "5"], "did you mean --steps?"),
        (
            ["evaluate", "r", "--manifest", "m", "--out", "o", "--iters", "3"],
            "did you mean --iterations?",
        ),
        (["demo", "--Wacky", "5"], "unrecognized arguments: --Wacky 5"),
    ],
)
def test_a_mistyped_option_is_told_by_its_own_command(
    capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    """The usage is the command's, and the nearest option is named where there is one."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    text = capsys.readouterr().err
    assert stop.value.code == 2
    assert text.startswith(f"usage: worldmodel {words[0]}")
    assert text.rstrip().endswith(hint)


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_demo_prints_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 130 and a command which, typed as printed, finishes the run."""
    out, run = tmp_path / "run", Training.run

    def interrupted(self: Any, on_step: Any) -> None:
        def stop(step: int, losses: Any) -> None:
            on_step(step, losses)
            raise KeyboardInterrupt

        run(self, stop)

    monkeypatch.setattr(Training, "run", interrupted)
    words = ["--steps", "2", "--pairs", "4", "--weight", "0.1", "--out", str(out)]
    assert main(["demo", *words]) == 130
    text = capsys.readouterr().out
    assert "readable" in text
    command = text.split("go on with: ")[1].splitlines()[0]
    assert command.endswith("--resume")
    monkeypatch.setattr(Training, "run", run)
    assert main(command.split()[1:]) == 0
    assert "resumed at step 1 of 2" in capsys.readouterr().out
    assert (out / "report.json").is_file()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--steps", "0"], "--steps: must be at least 1, got 0"),
        (["--steps", "many"], "--steps: must be a whole number, got 'many'"),
        (["--pairs", "-1"], "--pairs: must not be negative, got -1"),
        (["--seed", "-1"], "--seed: must not be negative, got -1"),
        (["--seed", "99999999999999999999"], "--seed: must be below 2^31"),
        (["--weight", "nan"], "--weight: must be finite and not negative, got nan"),
        (["--weight", "inf"], "--weight: must be finite and not negative, got inf"),
        (["--weight", "-0.1"], "--weight: must be finite and not negative, got -0.1"),
        (["--weight", "big"], "--weight: must be a number, got 'big'"),
        (["--device", "nonsense"], "--device: must be a device torch can use, got 'nonsense'"),
        (["--device", "meta"], "--device: must be a device torch can use, got 'meta'"),
        (["--device", "hpu"], "--device: must be a device torch can use, got 'hpu'"),
        (["--stepz", "3"], "unrecognized arguments: --stepz"),
        (["--step", "3"], "unrecognized arguments: --step"),
    ],
)
def test_a_mistaken_option_is_named(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line names the option, the rule and what came; no folder is made."""
    out = tmp_path / "run"
    assert part in refused(capsys, "demo", "--out", str(out), *words)
    assert not out.exists()


def test_an_unwritable_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder inside a file cannot be made, and the line says which."""
    (tmp_path / "file").write_text("")
    line = refused(capsys, "demo", "--out", str(tmp_path / "file" / "run"))
    assert "--out must be a folder that can be made" in line
    assert str(tmp_path / "file" / "run") in line


def test_resuming_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without demo.json is no run."""
    line = refused(capsys, "demo", "--resume", "--out", str(tmp_path))
    assert f"--resume needs a run folder with demo.json, got {tmp_path}" in line


def test_no_command_and_unknown_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says that a command is missing, or which is unknown."""
    assert "command" in refused(capsys)
    assert "dmeo" in refused(capsys, "dmeo")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's help says what happens, gives examples and names every option."""
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("collect", "train", "plan", "report", "examples:", "--out", "--seed", "--steps",
                 "--pairs", "--weight", "--device", "--ablate", "--resume"):  # fmt: skip
        assert part in text


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """`python -m worldmodel` passes status and message on, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "worldmodel", "demo", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"worldmodel demo: error: --out must not exist yet, got {tmp_path}: choose another folder"
    )
