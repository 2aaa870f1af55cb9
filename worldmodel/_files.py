"""Files that are whole or absent, whatever kills the writer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then rename over it.

    A reader sees the old file or the new one, never a part. A failed write leaves the old file.

    Raises: OSError naming `path` if the disk is full, the folder cannot be written, or a link or
        something that is no file lies there, which is never replaced.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EEXIST, f"cannot write {path}: a link or no plain file lies there")
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
