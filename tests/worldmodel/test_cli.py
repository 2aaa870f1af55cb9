"""The command line: quick help, and a mistake ends in one line and status 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from worldmodel.apps import settings
from worldmodel.apps.cli import COMMANDS, kill_is_interrupt, main
from worldmodel.apps.data import command as data_command

DEMO = [
    "demo", "--steps", "2", "--pairs", "4", "--episodes", "12", "--length", "30", "--held-out",
    "10", "--budget", "10", "--image-size", "16", "--dim", "8", "--batch-size", "16",
    "--num-proj", "8", "--seed", "3", "--device", "cpu",
]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The single error line of a command that must end with status 2."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    (line,) = err.splitlines()
    assert "error: " in line
    return line


def python(*words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, env=os.environ | env, check=False
    )


def test_the_demo_says_what_it_found_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with status 0, the figures and the folder; every phase is named; stderr is empty."""
    out = tmp_path / "run"
    assert main([*DEMO, "--out", str(out)]) == 0
    text, err = capsys.readouterr()
    assert err == ""
    for part in ("of 4 pairs", "random policy", "linear", "MLP", "SIGReg", "took", str(out),
                 "collect: ", "train: ", "probe: ", "plan: ", "pictures: "):  # fmt: skip
        assert part in text
    assert (out / "report.json").is_file()
    line = refused(capsys, *DEMO, "--out", str(out))
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
        (["demo", "--Wacky", "5"], "unrecognized arguments: --Wacky"),
        (["demo", "--step", "3"], "unrecognized arguments: --step"),
    ],
)
def test_a_mistyped_option_is_told_by_its_own_command(
    capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    """The line is the command's, and the nearest option is named where there is one."""
    line = refused(capsys, *words)
    assert line.startswith(f"worldmodel {words[0]}: error: ")
    assert hint in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--steps", "0"], '--steps must be greater than or equal to 1, got "0"'),
        (["--steps", "many"], '--steps must be a valid integer, got "many"'),
        (["--pairs", "-1"], '--pairs must be greater than or equal to 1, got "-1"'),
        (["--seed", "-1"], '--seed must be greater than or equal to 0, got "-1"'),
        (["--seed", "99999999999999999999"], "--seed must be less than 9223372036854775808"),
        (["--frameskip", "9223372036854775807"], "--frameskip must be less than or equal to 214"),
        (["--num-proj", "1000000000000"], "--num-proj must be less than or equal to"),
        (["--weight", "nan"], "--weight must be a finite number"),
        (["--weight", "-0.1"], '--weight must be greater than or equal to 0, got "-0.1"'),
        (["--weight", "big"], '--weight must be a valid number, got "big"'),
        (["--device", "nonsense"], "--device must be a device torch can use, got 'nonsense'"),
        (["--device", "meta"], "--device must be a device torch can use, got 'meta'"),
    ],
)
def test_a_mistaken_option_is_named(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line names the option, the rule and what came; no folder is made."""
    out = tmp_path / "run"
    assert part in refused(capsys, *DEMO, *words, "--out", str(out))
    assert not out.exists()


def test_an_unwritable_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder inside a file cannot be made, and the line says which."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = refused(capsys, "demo", "--out", str(tmp_path / "file" / "run"))
    assert "--out must be in a folder that can be written" in line
    assert str(tmp_path / "file" / "run") in line


def test_no_command_and_unknown_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says that a command is missing, or which is unknown."""
    assert "a command must be given" in refused(capsys)
    assert "there is no command 'dmeo'" in refused(capsys, "dmeo")
    assert "there is no command 'data colect'" in refused(capsys, "data", "colect")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help names all of its settings."""
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in getattr(settings, COMMANDS[name].settings).model_fields:
        if field != "schedule_from":
            assert field.replace("_", "-") in text.lower()


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--stepz", "1"]])
def test_help_and_mistakes_need_no_torch(words: list[str]) -> None:
    """What needs no model loads neither torch nor numpy nor matplotlib: a third of a second."""
    code = (
        "import sys\n"
        "from worldmodel.apps.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8", "replace").splitlines()[-1] == "[]"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--help"],
        ["tune-lambda", "--help"],
        ["train", "--data", "nö.h5", "--out", "r", "weight=λ"],
        ["data", "collect", "--episodes", "1", "--length", "4", "--size", "16", "--out", "σλ.h5"],
    ],
)
def test_a_stream_may_lack_characters(encoding: str, words: list[str], tmp_path: Path) -> None:
    """λ and σ are replaced where a pipe cannot hold them, in argparse's words and in ours."""
    code = f"import os, sys\nos.chdir({str(tmp_path)!r})\nfrom worldmodel.apps.cli import main\n"
    done = python("-c", f"{code}sys.exit(main({words!r}))", PYTHONIOENCODING=encoding)
    assert done.returncode == (2 if "λ" in words[-1] and words[0] == "train" else 0), done.stderr
    assert b"Traceback" not in done.stderr
    done.stdout.decode(encoding)


@pytest.mark.parametrize("what", ["settings", "episodes", "tasks"])
def test_files_are_utf_8_whatever_the_locale(what: str, tmp_path: Path) -> None:
    """Under a locale of ASCII, settings, episode lists and LeRobot's tasks in UTF-8 are read."""
    code = "import sys; from worldmodel.apps.cli import main; sys.exit(main(sys.argv[1:]))"
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    words = ["train", "--data", "no.h5", "--out", str(tmp_path / "run")]
    if what == "settings":
        (tmp_path / "mine.json").write_text('{"world": "Übung"}', encoding="utf-8")
        words, said = [*words, "--config", str(tmp_path / "mine.json")], "no data set at no.h5"
    elif what == "episodes":
        (tmp_path / "run").mkdir()
        (tmp_path / "run/train.json").write_text('{"data": "Übung.h5"}', encoding="utf-8")
        words, said = [*words[:1], "--resume", *words[3:]], "no data set at "
    else:
        info = '{"codebase_version": "v2.1", "chunks_size": 9, "fps": 10, "features": {"cam": '
        info += '{"dtype": "image", "shape": [8, 8, 3]}, "action": {"dtype": "float32", "shape": '
        info += '[2]}}, "data_path": "{episode_chunk}/{episode_index}.parquet"}'
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta/info.json").write_text(info, encoding="utf-8")
        row = '{"episode_index": 0, "tasks": ["Würfel"], "length": 5}'
        (tmp_path / "meta/episodes.jsonl").write_text(row, encoding="utf-8")
        words, said = ["data", "inspect", str(tmp_path)], "episode 0 must lie in"
    done = python("-c", code, *words, **plain)
    assert done.returncode == 2
    assert said.encode() in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError("disk full"), 2, "error: disk full"),
        (MemoryError("too large"), 2, "error: too large"),
        (ImportError("needs h5py"), 2, "error: needs h5py"),
        (KeyError("wat"), 1, "error: KeyError: 'wat' (this is a bug of worldmodel; please report"),
        (RuntimeError("shapes"), 1, "error: RuntimeError: shapes (this is a bug"),
    ],
)
def test_a_bug_of_ours_is_told_from_a_mistake(
    error: Exception, status: int, line: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line either way; a bug says how to report it, and --debug shows the traceback."""

    def fails(_: Any) -> int:
        raise error

    monkeypatch.setattr(data_command, "inspect", fails)
    assert main(["data", "inspect", "x.h5"]) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"worldmodel data inspect: {line}")
    assert main(["data", "inspect", "x.h5", "--debug"]) == status
    assert "Traceback" in capsys.readouterr().err


def test_a_value_error_counts_as_a_mistake_where_we_raise_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same kind out of Python itself, in the middle of our code, is a bug."""

    def bug(_: Any) -> int:
        return int("no number")

    monkeypatch.setattr(data_command, "inspect", bug)
    assert main(["data", "inspect", "x.h5"]) == 1
    assert "this is a bug" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["data", "inspect", "nothing.h5"]) == 2
    assert "there is no data set at nothing.h5" in capsys.readouterr().err


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """`python -m worldmodel` passes status and message on, without a traceback."""
    done = python("-m", "worldmodel", "demo", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.decode().strip() == (
        f"worldmodel demo: error: --out must not exist yet, got {tmp_path}: choose another folder"
    )


def test_an_interrupt_that_falls_into_the_end_of_an_object_still_interrupts() -> None:
    """Python drops what a finaliser raises and tells a traceback of it; a command ends anyway."""

    class Ending:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def works() -> None:
        ending = Ending()
        del ending
        time.sleep(20)

    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), kill_is_interrupt():
        works()
    assert sys.unraisablehook is before
