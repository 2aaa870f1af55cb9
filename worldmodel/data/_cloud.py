"""Data behind a URL of fsspec, such as `s3://bucket/walks.h5`: read in blocks that a cache keeps.

The cache is a folder of blocks, `worldmodel` in $XDG_CACHE_HOME or ~/.cache, shared by all
processes. It never holds more than WORLDMODEL_CACHE_GB; the blocks unused for longest leave first.
fsspec's own caches on disk have no bound. Its `BlockCache` has one, in memory, and is in front.
"""

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

from worldmodel._extras import install
from worldmodel._files import write_atomically

_BLOCK = 2**20  # bytes that one request fetches
_FOLDERS = 16  # of the cache, by the first digit of a name: each has a lock and a share
# A fork must not close what its parent opened: it would stop the parent's thread for connections.
_SYSTEMS: list[Any] = []


@dataclass(frozen=True)
class Remote:
    """What the readers ask of a `Path`, of a URL. It holds no connection, so it can be pickled.

    Raises, in every method that reads: ImportError if a package is missing; FileNotFoundError;
        PermissionError; OSError for any other failure. Each message names the URL.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.url.rstrip('/')}/{name}")

    def is_absolute(self) -> bool:
        return True

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def _kind(self) -> str | None:
        with _asking(self.url), suppress(FileNotFoundError):
            system, path = _system(self.url)
            return str(system.info(path)["type"])
        return None

    def glob(self, pattern: str) -> list["Remote"]:
        with _asking(self.url):
            system, path = _system(f"{self}/{pattern}")
            return [Remote(system.unstrip_protocol(name)) for name in system.glob(path)]

    def read_text(self, encoding: str) -> str:
        with self.open("rb") as file:
            return str(file.read().decode(encoding))

    def open(self, mode: str) -> Any:
        """A file object of bytes that can seek."""
        with _asking(self.url):
            from fsspec.caching import BlockCache
            from fsspec.spec import AbstractBufferedFile

            system, path = _system(self.url)
            file = system.open(path, mode, block_size=_BLOCK, cache_type="none")
            if isinstance(file, AbstractBufferedFile):  # not of this machine
                name = f"{self.url} {system.checksum(path)}"  # a replaced object has another
                fetch = partial(_block, file.cache.fetcher, self.url, name, file.size)
                file.cache = BlockCache(_BLOCK, fetch, file.size)
            return file


Place = Path | Remote


def place(path: str | Path) -> Place:
    """A path of this machine, or a URL."""
    return Remote(path) if isinstance(path, str) and "://" in path else Path(path)


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, connected in this process, and the path in it."""
    from fsspec import url_to_fs  # which torch brings

    system, path = url_to_fs(url)
    if system not in _SYSTEMS:
        _SYSTEMS.append(system)
    return system, path


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Ask the server; an error names the URL.

    h5py waits for an answer with its lock held. A collector that ran in fsspec's thread meanwhile
    could wait for that lock, for ever: https://github.com/h5py/h5py/issues/2019.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{url} cannot be read: {error}; for s3 {install('cloud')}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {url}") from error
    except PermissionError as error:
        raise PermissionError(f"no permission to read {url}: {error}") from error
    except Exception as error:  # each service has its own
        raise OSError(f"cannot read {url}: {error or type(error).__name__}") from error
    finally:
        if collects:
            gc.enable()


def _block(
    fetch: Callable[[int, int], bytes], url: str, name: str, size: int, start: int, end: int
) -> bytes:
    """Bytes `start` to `end` of a file of `size` bytes, from the cache or the server."""
    end = min(end, size)
    digest = sha256(f"{name} {start} {end}".encode()).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldmodel"
    kept = root / digest[0] / digest
    with suppress(OSError):
        content = kept.read_bytes()
        os.utime(kept)
        return content
    with _asking(url):
        content = fetch(start, end)
        if len(content) != end - start:
            raise OSError(f"{len(content)} bytes came instead of {end - start}")
    share = _bound() // _FOLDERS
    try:
        _keep(kept, content, share)
    except OSError as error:
        warnings.warn(f"{url} is read without a cache: {error}", RuntimeWarning, stacklevel=2)
    return content


def _bound() -> int:
    """Bytes that the cache may hold."""
    words = os.environ.get("WORLDMODEL_CACHE_GB", "10")
    with suppress(ValueError):
        if 0 <= float(words) < 1e9:
            return int(float(words) * 1e9)
    raise ValueError(f"WORLDMODEL_CACHE_GB must be a number of gigabytes, got {words!r}")


def _keep(kept: Path, content: bytes, share: int) -> None:
    """Write a block, after the removal of those unused for longest, if its folder has the room."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(kept.parent.with_suffix(".lock"), timeout=60):
        stored = [(path.stat(), path) for path in kept.parent.iterdir()]
        excess = sum(stat.st_size for stat, _ in stored) + len(content) - share
        for stat, path in sorted(stored, key=lambda one: one[0].st_mtime_ns):
            if excess > 0:
                path.unlink()
                excess -= stat.st_size
        if excess <= 0:
            write_atomically(kept, content)
