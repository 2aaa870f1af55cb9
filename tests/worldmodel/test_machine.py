"""Where a number comes from: the commit of this package's own tree, or none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from worldmodel.apps import machine
from worldmodel.apps.cli import main


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_foreign_repository_around_the_package_is_not_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment inside a thesis' repository is not of the thesis' commit."""
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*name, "commit", "-q", "--allow-empty", "-m", "thesis"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    for place, expected in ((tmp_path, head), (installed, None)):
        module = place / "worldmodel" / "apps" / "machine.py"
        module.parent.mkdir(parents=True)
        monkeypatch.setattr(machine, "__file__", str(module))
        assert machine.commit() == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_tree_that_differs_from_its_commit_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure of changed code must not pass for one of the commit; notes beside it may differ."""
    module = tmp_path / "worldmodel" / "apps" / "machine.py"
    module.parent.mkdir(parents=True)
    module.write_text("one\n", encoding="utf-8")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "ours"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "__file__", str(module))
    (tmp_path / "notes.txt").write_text("mine\n", encoding="utf-8")
    head = machine.commit()
    assert head is not None
    assert len(head) == 40
    module.write_text("two\n", encoding="utf-8")
    assert machine.commit() == f"{head}-dirty"
    module.write_text("one\n", encoding="utf-8")
    module.with_name("new.py").write_text("", encoding="utf-8")
    assert machine.commit() == f"{head}-dirty"


def test_a_machine_says_which_instructions_torch_uses() -> None:
    """Figures of processors with and without wide instructions must not be mixed unseen."""
    assert torch.backends.cpu.get_cpu_capability() in machine.machine("cpu").split(",")[0]


def test_without_a_repository_or_without_git_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package says its version instead."""
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "worldmodel" / "apps" / "x.py"))
    assert machine.commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() is None
    assert set(machine.versions()) == {"sigreg", "torch", "python"}


def test_info_says_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """`worldmodel info` names the versions, the device and the extras; a bad device is refused."""
    assert main(["info", "--device", "cpu"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["torch"] == torch.__version__
    assert told["machine"].endswith("cpu")
    assert told["extras"] == (", ".join(machine.extras()) or "none")
    assert main(["info", "--device", "abacus"]) == 2


def test_an_extra_counts_when_all_of_its_packages_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """One package that is missing makes an extra missing; a requirement without extra is none."""
    needed = ["torch>=2.6", 'torch>=2 ; extra == "one"', 'torch ; extra == "two"']
    needed += ["no-such-package<3 ; extra == 'two'", "jinja2>=3.1; extra == 'push-t'"]
    monkeypatch.setattr(machine, "requires", lambda _: needed)
    assert machine.extras() == ["one", "push-t"]
