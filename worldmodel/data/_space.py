"""Room on the disk, asked for before a library needs it that cannot stand being refused."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

__all__ = ["ensure_room"]


def ensure_room(path: Path, size: int) -> None:
    """Make sure that a file could grow to `size` bytes; create it if it is not there.

    On Linux the room is taken and given back: a full disk, a quota or a limit on file sizes shows
    itself here. On other systems the free space is compared, which sees a full disk alone.

    Raises: OSError naming `path`, if there is no room; what the file holds stays as it is.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = os.fstat(descriptor).st_size
        if sys.platform == "linux":
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.ftruncate(descriptor, held)
        elif shutil.disk_usage(path.parent).free < size - held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        reason = f"cannot write {path}: {error.strerror}, it needs {size:,} bytes"
        raise OSError(error.errno, reason) from error
    finally:
        os.close(descriptor)
