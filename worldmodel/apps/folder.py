"""Where a command may write: one rule for every output, checked before the work begins.

An output is new, or the same command wrote it and may continue it. A command never replaces a
link, a device or one of its own inputs. Only one process at a time writes to an output.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from worldmodel._files import draft_of, write_atomically

_LOCK = ".lock"


def write_json(content: object, path: Path) -> None:
    """Write JSON, whole or not at all; ValueError for NaN."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def check_new_file(path: Path, inputs: Sequence[Path | str] = (), *, option: str = "--out") -> None:
    """Refuse a path that exists, is an input, or is in no writable folder; `option` named it."""
    if path.resolve() in [Path(other).resolve() for other in inputs]:
        raise ValueError(f"{option} must not be a file that the command reads, got {path}")
    # A broken link counts as existing.
    if path.is_symlink() or path.exists():
        _ensure_free(path.parent / f"{path.name}{_LOCK}", path)
        raise FileExistsError(f"{option} must not exist yet, got {path}: choose another name")
    if not path.parent.exists():
        raise FileNotFoundError(f"{option} must be in a folder that exists, got {path}")
    _check_parent(path, option)


@contextmanager
def whole_file(path: Path, inputs: Sequence[Path | str] = ()) -> Iterator[Path]:
    """Yield a temporary name to write to; a block that succeeds renames it to `path`."""
    check_new_file(path, inputs)
    with locked(path.with_name(path.name + _LOCK), str(path)):
        partial = path.with_name(f"{path.name}.unfinished")
        partial.unlink(missing_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def begin_folder(
    out: Path, mark: str, *, resume: bool, done: Sequence[str] = (), worth: str | None = None
) -> Iterator[None]:
    """Create or resume a command's folder, and lock it while the block runs.

    The file `mark` shows which command wrote it. If all files of `done` exist, the work is over.
    If an error leaves the block and a new folder lacks `worth` (None: any file but the mark), the
    folder is removed, so that the corrected command can use its name.

    Raises: FileExistsError, FileNotFoundError or OSError; the message says what to do.
    """
    ours = (out / mark).is_file()
    over = bool(done) and all((out / name).exists() for name in done)
    new = f"--out must not exist yet, got {out}"
    if resume and not ours:
        raise FileNotFoundError(f"--resume needs a run folder with {mark}, got {out}")
    if resume and over:
        raise FileExistsError(f"--resume needs an unfinished run, got {out} with its {done[0]}")
    # A start that was killed leaves a lock and nothing else.
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    killed = _LOCK in names <= {_LOCK, f"{_LOCK}.holder", f"{_LOCK}.holder.tmp", f"{mark}.tmp"}
    if not resume:
        if out.is_symlink() or (out.exists() and not killed):
            _ensure_free(out / _LOCK, out)
            remedy = "add --resume to continue it, or " if ours and not over else ""
            raise FileExistsError(f"{new}: {remedy}choose another folder")
        _check_parent(out, "--out")
    above = [parent for parent in out.absolute().parents if not parent.exists()]
    try:
        out.mkdir(parents=True, exist_ok=resume or killed)
    except FileExistsError:
        raise FileExistsError(f"{new}: choose another folder") from None
    except OSError as error:
        rule = "--out must be a folder that can be made"
        raise OSError(f"{rule}, got {out}: {error.strerror}") from error
    try:
        with locked(out / _LOCK, str(out)):
            try:
                yield
            except BaseException:
                left = {path.name for path in out.iterdir()} - {_LOCK, f"{_LOCK}.holder", mark}
                if not resume and (worth not in left if worth else not left):
                    shutil.rmtree(out)
                raise
    finally:
        # Empty folders are removed, also if an interrupt came before the block.
        for folder in (out, *above):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file of an output; `what` names the output in an error.

    Raises: BlockingIOError naming the process that holds it; FileExistsError if it is not empty.
    """
    if path.exists() and path.stat().st_size:
        raise FileExistsError(f"{path} must not exist to lock {what}: choose another name")
    lock, holder = FileLock(path), path.with_name(f"{path.name}.holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        told = holder.read_bytes().decode(errors="replace") if holder.is_file() else ""
        who = f"{told or 'another process'}: wait, or choose another name"
        raise BlockingIOError(f"{what} is being written by {who}") from None
    try:
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        for mine in (holder, draft_of(holder), path):
            mine.unlink(missing_ok=True)
        lock.release()


def _ensure_free(lock: Path, output: Path) -> None:
    """Raise BlockingIOError if another process is writing the output."""
    if lock.with_name(f"{lock.name}.holder").is_file():
        with locked(lock, str(output)):
            pass


def _check_parent(path: Path, option: str) -> None:
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        rule = f"{option} must be in a folder that can be written"
        raise OSError(f"{rule}, got {path}: {parent} is not writable")
