"""Files that are complete or absent, even if the writer is killed."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then rename: readers see the old file or the new one.

    Raises: OSError naming `path` if it cannot be written; a link or no file is never replaced.
    """
    write_together({path: content})


def write_together(files: Mapping[Path, bytes]) -> None:
    """`write_atomically` for several files: all are on the disk before the first is renamed.

    If the writer is killed between two renames, the rest stays beside the paths, as `draft_of`.
    """
    path, renamed = Path(), False
    try:
        for path, content in files.items():
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise OSError(errno.EEXIST, "a link or special file is in its place")
            with draft_of(path).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            draft_of(path).replace(path)
            renamed = True
    except OSError as error:
        for other in () if renamed else files:
            draft_of(other).unlink(missing_ok=True)
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error


def draft_of(path: Path) -> Path:
    """The temporary path of a file, before it is renamed."""
    return path.with_name(path.name + ".tmp")
