"""Write episodes as HDF5 in the published layout; a killed writer leaves whole episodes."""

import errno
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodel._arguments import checked, shown
from worldmodel._extras import need
from worldmodel.data._cloud import place
from worldmodel.data.hdf5 import naming_damage, open_for_reading
from worldmodel.data.jpeg import Pictures, encoded

__all__ = ["HDF5Writer", "read_origin"]

_ROWS = 1024  # per chunk of a small column
_DATA = "pixels_jpeg"
_BYTES = 1 << 16  # per chunk of the bytes of JPEG
_INDEX = 64  # bytes per row, more than HDF5's index of chunks takes when it doubles
_OVERHEAD = 1 << 16  # headers
_VERSION = ("v110", "v110")  # the oldest file format that one may read while another writes


@checked(jpeg="[1, 100]")
class HDF5Writer(AbstractContextManager["HDF5Writer"]):
    """Appends whole episodes; if the writer is killed, the file ends at the last finished one.

    Rows are written first, then `ep_offset`, then `ep_len`: an episode counts once its length is
    there. HDF5's single-writer/multiple-reader mode keeps the file's own index whole in between, so
    others can read meanwhile. After a kill `open_hdf5` reads the file, as does `h5py.File(path,
    swmr=True)`, the published loader's way; `worldmodel data convert` makes a clean copy.

    Args:
        path: file to create, with the first episode; it must not exist.
        compression: of the frames, "gzip" or "lzf"; None stores single frames, which can be mapped.
        jpeg: quality of 1…100 at which frames are stored as JPEG; None stores them exactly.
        append: continue a file that an earlier writer closed.
        origin: where the episodes come from, stored as attributes of the file (`read_origin`).
    Raises: FileExistsError or FileNotFoundError, by `append`; ImportError without h5py; OSError if
        the folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        compression: Literal["gzip", "lzf"] | None = None,
        jpeg: int | None = None,
        append: bool = False,
        origin: Mapping[str, str | int] | None = None,
    ) -> None:
        self._h5py = need("h5py", "worldmodel", "writing HDF5")
        self.path, self._compression, self._jpeg = Path(path), compression, jpeg
        self._origin = dict(origin or {})
        if jpeg and compression:
            raise ValueError(f"jpeg must be without compression, got {jpeg} and {compression}")
        self._file: Any = None
        self._rows = self._episodes = self._bytes = 0
        if append:
            self._go_on()
        elif self.path.exists():
            raise FileExistsError(f"the file to write must not exist yet, got {self.path}")
        elif not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent} to write into")
        elif not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"cannot write into the folder {self.path.parent}")

    def __len__(self) -> int:
        return self._episodes

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An error inside the block comes first.
        with suppress(OSError) if error else nullcontext():
            self.close()

    def write(
        self,
        frames: ArrayLike | Pictures | None,
        actions: ArrayLike,
        states: ArrayLike | None = None,
    ) -> None:
        """Append one episode of L >= 2 frames [L, C, H, W], uint8, and count it.

        Actions are [L, A], or [L − 1, A] without the last one, stored as NaN; states [L, S]. Frames
        or states may be None, the same for every episode of a file.

        Raises: ValueError if shapes disagree with each other or with earlier episodes; OSError if
            the disk is full.
        """
        if isinstance(frames, Pictures) and self._jpeg is None:
            raise ValueError("frames must be arrays where the file is not of JPEG, got Pictures")
        if self._jpeg is not None and not isinstance(frames, (Pictures, NoneType)):
            frames = encoded(_pixels(frames), self._jpeg)
        columns = _columns(frames, np.asarray(actions), states)
        shape = frames.shape if isinstance(frames, Pictures) else None
        if self._file is None:
            self._create(columns, shape)
        self._check(columns, shape)
        first, last = self._rows, self._rows + len(columns["action"])
        # After a failed write HDF5 cannot close its file, and may crash at exit.
        _ensure_room(self.path, self._file.id.get_filesize() + self._room(columns))
        try:
            if (data := columns.pop(_DATA, None)) is not None:
                end = self._bytes + len(data)
                self._put(_DATA, self._bytes, end, data)
                columns["pixels"][:, 0] += self._bytes
                self._bytes = end
            for name, values in columns.items():
                self._put(name, first, last, values)
            self._put("ep_offset", self._episodes, self._episodes + 1, first)
            self._put("ep_len", self._episodes, self._episodes + 1, last - first)
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error}") from error
        self._rows, self._episodes = last, self._episodes + 1

    def close(self) -> None:
        """Close the file; from then on it needs no special mode to be read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _create(self, columns: dict[str, NDArray[Any]], shape: tuple[int, ...] | None) -> None:
        """A file with every column and no row, complete before it gets its name."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        try:
            _ensure_room(partial, self._room(columns))
            with self._h5py.File(partial, "w", libver=_VERSION) as file:
                index: dict[str, NDArray[Any]]
                index = {"ep_offset": np.empty(0, np.int64), "ep_len": np.empty(0, np.int32)}
                for name, values in (columns | index).items():
                    # Small columns stay uncompressed: a broken write must not damage earlier rows.
                    row, is_frames = values.shape[1:], name == "pixels" and shape is None
                    file.create_dataset(
                        name,
                        (0, *row),
                        values.dtype,
                        maxshape=(None, *row),
                        chunks=(1 if is_frames else _BYTES if name == _DATA else _ROWS, *row),
                        compression=self._compression if is_frames else None,
                    )
                if shape is not None:
                    told = {"encoding": "jpeg", "quality": self._jpeg, "shape": shape}
                    file["pixels"].attrs.update(told)
                file.attrs.update(self._origin)
            partial.rename(self.path)
            self._open()
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"cannot write {self.path}: {error}") from error

    def _room(self, columns: dict[str, NDArray[Any]]) -> int:
        """The most bytes by which an episode can make the file grow."""
        rows, large, name = len(columns["action"]), 0, _DATA if _DATA in columns else "pixels"
        small = sum(v[0].nbytes for other, v in columns.items() if other != name) + 12
        if name in columns:
            size = columns[name].nbytes
            chunks = (self._bytes + size) // _BYTES + 1 if name == _DATA else self._rows + rows
            large = size + _INDEX * chunks + _BYTES * (name == _DATA)
        return int(large + (-(-rows // _ROWS) + 1) * _ROWS * small + _OVERHEAD)

    def _open(self) -> None:
        # SWMR mode from the start: before `swmr_mode = True` no reader could open the file.
        h5f, h5p = self._h5py.h5f, self._h5py.h5p
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
        mode = h5f.ACC_RDWR | h5f.ACC_SWMR_WRITE
        self._file = self._h5py.File(h5f.open(os.fsencode(self.path), mode, fapl=access))

    def _go_on(self) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {self.path} to append to")
        try:
            self._open()
        except (OSError, ValueError) as error:
            why = "another writer holds it or was killed, or it is not HDF5 of version 1.10"
            remedy = f"copy it with `worldmodel data convert` ({error})"
            raise OSError(f"{self.path} cannot be appended to: {why}; {remedy}") from error
        seen = "pixels" if "pixels" in self._file else "state"
        for name in (seen, "action", "ep_len", "ep_offset"):
            if name not in self._file or self._file[name].maxshape[0] is not None:
                self.close()
                raise ValueError(f"{self.path} must have a column {name!r} that can grow")
        lengths, offsets = self._file["ep_len"][()], self._file["ep_offset"][()]
        # An episode that was interrupted may have its place already, and no length.
        self._episodes = last = len(np.trim_zeros(lengths, "b"))
        if last:
            self._rows = int(lengths[last - 1]) + int(offsets[last - 1])
        if (jpeg := self._file[seen].attrs.get("quality")) is not None:
            self._jpeg = int(jpeg)
            self._bytes = int(self._file[seen][self._rows - 1].sum()) if last else 0

    def _check(self, columns: dict[str, NDArray[Any]], shape: tuple[int, ...] | None) -> None:
        known = sorted(set(self._file) - {"ep_len", "ep_offset"})
        if sorted(columns) != known:
            raise ValueError(f"every episode must have the columns {known}, got {sorted(columns)}")
        for name, values in columns.items():
            row, came = self._file[name].shape[1:], values.shape[1:]
            if shape is not None and name == "pixels":
                row, came = tuple(self._file[name].attrs["shape"].tolist()), shape
            if came != row:
                wanted = f"{name} [L, {', '.join(map(str, row))}], as the first has"
                found = f"{[len(values), *came]} in episode {self._episodes}"
                raise ValueError(f"every episode must have {wanted}, got {found}")

    def _put(self, name: str, first: int, last: int, values: Any) -> None:
        dataset = self._file[name]
        if len(dataset) != last:
            dataset.resize(last, 0)
        dataset[first:last] = values
        dataset.flush()


def read_origin(path: str | Path) -> dict[str, str | int]:
    """The origin that `HDF5Writer` stored in a file.

    For other files: the strings and integers among its attributes.

    Raises: ImportError without h5py; FileNotFoundError; ValueError or OSError on a damaged file.
    """
    at = place(path)
    with naming_damage(at), open_for_reading(at) as file:
        known = {key: file.attrs[key] for key in file.attrs}
    words: dict[str, str | int] = {k: v for k, v in known.items() if isinstance(v, str)}
    return words | {k: int(v) for k, v in known.items() if isinstance(v, np.integer)}


def _pixels(frames: ArrayLike) -> NDArray[np.uint8]:
    """Frames [L, C, H, W] of an episode as [L, H, W, C]."""
    seen = np.asarray(frames)
    if seen.dtype != np.uint8 or seen.ndim != 4 or len(seen) < 2:
        raise ValueError(f"frames must be uint8 [L >= 2, C, H, W], got {shown(seen)}")
    return seen.transpose(0, 2, 3, 1)


def _columns(
    frames: ArrayLike | Pictures | None, actions: NDArray[Any], states: ArrayLike | None
) -> dict[str, NDArray[Any]]:
    """The columns of an episode, by name; places of JPEG count from its own first byte."""
    columns: dict[str, NDArray[Any]] = {}
    if isinstance(frames, Pictures):
        sizes = np.array([len(data) for data in frames.data], np.int64)
        columns["pixels"] = np.stack([sizes.cumsum() - sizes, sizes], axis=1)
        columns[_DATA] = np.frombuffer(b"".join(frames.data), np.uint8)
    elif frames is not None:
        columns["pixels"] = _pixels(frames)
    elif states is None or len(np.asarray(states)) < 2:
        raise ValueError("states must be [L >= 2, S] where frames are None")
    rows = len(columns["pixels"] if frames is not None else np.asarray(states))
    if actions.ndim != 2 or len(actions) not in (rows - 1, rows):
        wanted = f"[{rows}, A] or [{rows - 1}, A] beside {rows} frames"
        raise ValueError(f"actions must be {wanted}, got {list(actions.shape)}")
    stored = np.full((rows, actions.shape[1]), np.nan, np.float32)
    stored[: len(actions)] = actions
    columns["action"] = stored
    if states is not None:
        values = columns["state"] = np.asarray(states, np.float32)
        if values.ndim != 2 or len(values) != rows:
            came = list(values.shape)
            raise ValueError(f"states must be [{rows}, S] beside {rows} frames, got {came}")
    return columns


def _ensure_room(path: Path, size: int) -> None:
    """Make sure that a file can grow to `size` bytes; create it if it is absent.

    On Linux the space is allocated and released again, which detects a full disk, a quota or a
    limit on file sizes. Elsewhere only the free space of the disk is compared.
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
