"""One rule for every output: new, or its own to be continued; nothing else is ever replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from worldmodel._files import draft_of
from worldmodel.apps.folder import begin_folder, check_new_file, locked, whole_file, write_json


def begin(out: Path, *, resume: bool = False, fails: bool = False, writes: str = "") -> None:
    """Hold a folder of `mark.json`, write into it, and perhaps fail."""
    with begin_folder(out, "mark.json", resume=resume, done=("done.json", "page"), worth="worth"):
        write_json({}, out / "mark.json")
        if writes:
            (out / writes).write_text("", encoding="utf-8")
        if fails:
            raise ValueError("no")


def test_a_folder_is_new_or_continued(tmp_path: Path) -> None:
    """A second start is refused with what to do; the lock is gone when the block ends."""
    out = tmp_path / "deep" / "run"
    begin(out, writes="worth")
    assert {p.name for p in out.iterdir()} == {"mark.json", "worth"}
    with pytest.raises(FileExistsError, match=r"must not exist yet, got .*add --resume"):
        begin(out)
    begin(out, resume=True, writes="done.json")
    begin(out, resume=True, writes="page")  # the last of two was missing
    with pytest.raises(FileExistsError, match="needs an unfinished run"):
        begin(out, resume=True)
    with pytest.raises(FileNotFoundError, match=r"needs a run folder with mark\.json"):
        begin(tmp_path / "other", resume=True)


def test_a_failed_start_leaves_nothing_and_a_late_failure_leaves_all(tmp_path: Path) -> None:
    """What decides is whether something worth keeping is there; a continued folder always stays."""
    out = tmp_path / "deep" / "run"
    with pytest.raises(ValueError, match="no"):
        begin(out, fails=True, writes="curves.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no"):
        begin(out, fails=True, writes="worth")
    assert (out / "worth").exists()
    with pytest.raises(ValueError, match="no"):
        begin(out, resume=True, fails=True)
    assert (out / "mark.json").exists()


def test_an_interrupt_while_the_lock_is_taken_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the folder nor a folder above it, so that the same command begins again."""

    def interrupted(path: Path, content: bytes) -> None:
        draft_of(path).write_bytes(content)
        raise KeyboardInterrupt

    monkeypatch.setattr("worldmodel.apps.folder.write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_was_killed_is_no_run(tmp_path: Path) -> None:
    """A folder with a lock and nothing else can be begun; with anything else it cannot."""
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    begin(out)
    other = tmp_path / "other"
    other.mkdir()
    (other / ".lock").touch()
    (other / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="must not exist yet"):
        begin(other)


@pytest.mark.parametrize("kind", ["link", "broken link", "file", "folder", "pipe"])
def test_what_lies_there_is_not_touched(tmp_path: Path, kind: str) -> None:
    """Links, devices and other people's files and folders stop a folder and a file alike."""
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.symlink_to(tmp_path / ("no" if kind.startswith("broken") else "."))
    before = out.lstat().st_ino, stat.S_IFMT(out.lstat().st_mode)
    with pytest.raises(FileExistsError, match="must not exist yet"):
        begin(out)
    with pytest.raises(FileExistsError, match="must not exist yet"):
        check_new_file(out)
    assert (out.lstat().st_ino, stat.S_IFMT(out.lstat().st_mode)) == before


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    """The file appears at the end of the block; after an error nothing of it is left."""
    path = tmp_path / "out.h5"
    with whole_file(path) as partial:
        partial.write_text("all", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "all"

    def fails() -> None:
        with whole_file(tmp_path / "other.h5") as partial:
            partial.write_text("half", encoding="utf-8")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert {p.name for p in tmp_path.iterdir()} == {"out.h5"}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The second is told who holds it, and may have it when the first is done."""
    lock = tmp_path / ".lock"
    with locked(lock, "run"):
        second = locked(lock, "run")
        with pytest.raises(
            BlockingIOError, match=rf"run is being written by process {os.getpid()}"
        ):
            second.__enter__()
    with locked(lock, "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_being_written_is_said_to_be(tmp_path: Path) -> None:
    """Who finds it there hears first of the process that holds it, not that it exists."""
    out, file = tmp_path / "run", tmp_path / "walks.h5"
    held = f"is being written by process {os.getpid()} on"
    with begin_folder(out, "mark.json", resume=False):
        write_json({}, out / "mark.json")
        with pytest.raises(BlockingIOError, match=f"run {held}"):
            begin(out)
    with locked(tmp_path / "walks.h5.lock", str(file)):
        file.touch()
        with pytest.raises(BlockingIOError, match=f"walks.h5 {held}"):
            check_new_file(file)
    with pytest.raises(FileExistsError, match=r"must not exist yet, got \.:"):
        check_new_file(Path())
    with pytest.raises(FileExistsError, match="add --resume"):
        begin(out)
    with pytest.raises(FileExistsError, match="choose another name"):
        check_new_file(file)


def test_a_file_that_only_bears_the_name_of_a_lock_stays(tmp_path: Path) -> None:
    """`--out poetry` beside poetry.lock is refused, and the lock file is as it was."""
    mine = tmp_path / "poetry.lock"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"poetry\.lock must not exist to lock"):
        with_content(tmp_path / "poetry")
    assert mine.read_text(encoding="utf-8") == "mine"
    assert list(tmp_path.iterdir()) == [mine]


def with_content(path: Path) -> None:
    """A whole file."""
    with whole_file(path) as partial:
        partial.touch()
