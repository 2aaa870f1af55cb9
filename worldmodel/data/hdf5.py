"""HDF5 in the published LeWM layout: flat rows, one dataset per column, an index of episodes.

`pixels` [R, H, W, C] (or [R, C, H, W]) uint8, `action` [R, A], optional state columns [R, …],
`ep_len` [E] and `ep_offset` [E]. Columns may lie in groups: `proprio/joint_pos`. JPEG: see `jpeg`.
Source: LeWM's released data and stable-worldmodel's writers (arXiv:2603.19312).
"""

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel._arguments import checked, shown
from worldmodel._extras import need
from worldmodel.data._cloud import Place, Remote, place
from worldmodel.data.episodes import Episodes
from worldmodel.data.frames import Frames, StoredFrames, is_channels_last
from worldmodel.data.jpeg import JPEGFrames
from worldmodel.data.reading import Column, Integers, Names, choose_states, read_actions

__all__ = ["ChunkedFrames", "MappedFrames", "hdf5_columns", "open_for_reading", "open_hdf5"]

Images = NDArray[np.uint8]
Ints = NDArray[np.int64]

# Reading a column's last row needs its whole index.
_TRIAL = """
import h5py, sys
with h5py.File(sys.argv[1], "r", swmr=True) as file:
    file.visititems(lambda _, x: [x[-1:]] and None if getattr(x, "ndim", 0) and len(x) else None)
"""
_INDEX = ("ep_len", "ep_offset")
_STACK = 64  # channels, at most


@checked()
def open_hdf5(
    path: str | Path, *, pixels: str = "pixels", action: str = "action", state: Names = None,
    integers: Integers = "choices", shift: bool = False,
) -> Episodes:  # fmt: skip
    """Episodes of an HDF5 file; frames stay on disk until they are read.

    Uncompressed frames are memory-mapped, so the system caches them and a file larger than memory
    streams. Compressed ones, and all behind a URL, are read through h5py. The result can be
    pickled, forked and sent to workers. A file with an active or killed writer ends at its last
    whole episode; one behind a URL must be closed.

    Args:
        path: of the file, or its URL, as s3://bucket/walks.h5.
        pixels: column of frames, uint8, channels last or first, or none of grey frames. The frames
            of a file of states alone (`worldmodel data collect --states-only`) are its states.
        action: column of raw actions; NaN in the last row of each episode.
        state: columns or groups, side by side as `states`; by default `state` or `proprio`.
        integers, shift: see `worldmodel.data.reading.read_actions`.
    Raises: FileNotFoundError; ImportError if h5py or a compression filter is missing; ValueError if
        the file is not HDF5 or damaged, a column is missing or has another shape, or there is no
        episode; OSError if it was cut short.
    """
    at = place(path)
    with naming_damage(at), open_for_reading(at) as file:
        columns = sorted(column.name for column in _columns(file))
        blind = pixels == "pixels" and pixels not in columns and "state" in columns
        needed = [action] if blind else [pixels, action]
        for name in (*needed, *_INDEX):
            if name not in columns:
                found = ", ".join(columns) or "none"
                raise ValueError(f"{path} must have a column {name!r}, got {found}")
        lengths, rows = _index(file, at, needed)
        stored = _values(file[action], at, rows)
        taken = read_actions(stored, lengths, path, integers=integers, shift=shift)
        rows = rows[np.isin(np.repeat(np.arange(len(lengths)), lengths), taken.kept)]
        frames = None if blind else _frames(file, at, pixels, rows)
        groups = {str(group) for name in columns for group in PurePosixPath(name).parents}
        chosen = choose_states(
            state, {*columns, *groups} - {"."}, ("state", "proprio"), f"columns or groups of {path}"
        )
        members = [c for name in chosen for c in columns if c == name or c.startswith(f"{name}/")]
        tables = [_values(file[name], at, rows).reshape(len(rows), -1) for name in members]
    states = None
    if tables:
        states = torch.from_numpy(np.hstack(tables, dtype=np.float32, casting="unsafe"))
    seen = states if frames is None else frames
    assert seen is not None
    return Episodes(
        seen,
        torch.from_numpy(taken.actions),
        torch.from_numpy(lengths[taken.kept]),
        states,
        choices=taken.choices,
    )


def hdf5_columns(path: str | Path) -> list[Column]:
    """Every column of an HDF5 file, the index included."""
    with naming_damage(place(path)), open_for_reading(place(path)) as file:
        return _columns(file)


def _columns(file: Any) -> list[Column]:
    h5py = need("h5py", "worldmodel", "reading HDF5")
    found: list[Column] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            chunks = "contiguous" if item.chunks is None else f"chunks {list(item.chunks)}"
            encoding = [str(item.attrs["encoding"])] if "encoding" in item.attrs else []
            storage = ", ".join([chunks, *(name for _, name in filters(item)), *encoding])
            found.append(Column(name, tuple(item.shape), str(item.dtype), storage))

    file.visititems(visit)
    return found


def _index(file: Any, path: Place, columns: Sequence[str]) -> tuple[Ints, Ints]:
    """Length of each whole episode, and the stored row of each of our rows."""
    num = min(len(file[name]) for name in _INDEX)
    for name in _INDEX:
        _ensure_own(file[name], path)
    lengths, offsets = (_whole(file[name][:num], name, path) for name in _INDEX)
    # A killed writer may have left room for an episode that it did not write.
    whole = np.flatnonzero(lengths)
    if len(whole) == 0:
        raise ValueError(f"{path} must hold at least one whole episode, got none")
    lengths, offsets = lengths[: whole[-1] + 1], offsets[: whole[-1] + 1]
    for name in columns:
        outside = (lengths < 0) | (offsets < 0) | (offsets + lengths > len(file[name]))
        if outside.any():
            e = int(outside.argmax())
            rule = f"stay within the {len(file[name])} rows of {name!r}"
            found = f"{offsets[e]} + {lengths[e]} in episode {e} of {path}"
            raise ValueError(f"ep_offset + ep_len must {rule}, got {found}")
    order: Ints = np.argsort(offsets, kind="stable")
    order = order[lengths[order] > 0]
    shared = np.flatnonzero((offsets + lengths)[order][:-1] > offsets[order][1:])
    if len(shared):
        e, other = sorted(order[shared[0] : shared[0] + 2].tolist())
        rule = "ep_offset and ep_len must give each row to one episode"
        raise ValueError(f"{rule}, got episodes {e} and {other} that overlap in {path}")
    first: Ints = np.repeat(offsets - (lengths.cumsum() - lengths), lengths)
    return lengths, first + np.arange(int(lengths.sum()))


def _whole(values: Any, name: str, path: Place) -> Ints:
    if values.dtype.kind not in "iuf" or (values % 1 != 0).any():
        raise ValueError(f"{name!r} must hold whole numbers, got {values.dtype} in {path}")
    return values.astype(np.int64)


def _frames(file: Any, path: Place, name: str, rows: Ints) -> Frames:
    dataset = file[name]
    if str(dataset.attrs.get("encoding")) == "jpeg":
        return _pictures(file, path, name, rows)
    shape, found = dataset.shape[1:], f"{dataset.dtype} {list(dataset.shape)} in {path}"
    if dataset.ndim not in (3, 4) or dataset.dtype != np.uint8:
        raise ValueError(f"{name!r} must be uint8 [R, H, W, C], got {found}")
    shape = shape if dataset.ndim == 4 else (*shape, 1)
    if min(shape[0], shape[-1]) > _STACK:
        raise ValueError(f"{name!r} must have few channels, last or first, got {found}")
    addresses = row_addresses(dataset, path)
    if addresses is not None and isinstance(path, Path):
        return MappedFrames(path, shape, addresses[rows])
    return ChunkedFrames(path, name, shape, rows, (dataset.chunks or (1,))[0])


def _pictures(file: Any, path: Place, name: str, rows: Ints) -> Frames:
    spans, shape = _values(file[name], path, rows), file[name].attrs.get("shape")
    store = file.get(f"{name}_jpeg")
    known = isinstance(shape, np.ndarray) and shape.shape == (3,) and shape.dtype.kind in "iu"
    if not known or (shape < 1).any() or shape[2] not in (1, 3):
        raise ValueError(f"{name!r} must have the shape of its pictures, got {shape} in {path}")
    if store is None or store.dtype != np.uint8 or store.ndim != 1:
        raise ValueError(f"{path} must have a column {name + '_jpeg'!r} of bytes beside {name!r}")
    _ensure_own(store, path)
    if spans.dtype != np.int64 or spans.shape[1:] != (2,):
        raise ValueError(f"{name!r} of JPEG must be int64 [R, 2], got {shown(spans)} in {path}")
    first, num = spans[:, 0], spans[:, 1]
    outside = (first < 0) | (num < 1) | (num > len(store)) | (first > len(store) - num)
    if outside.any():
        found = f"got {num[outside][0]} behind byte {first[outside][0]} in {path}"
        raise ValueError(f"{name!r} must stay within the {len(store)} bytes of JPEG, {found}")
    return JPEGFrames(path, partial(_column, path, store.name), shape.tolist(), spans)


def _column(path: Place, name: str) -> Any:
    with naming_damage(path):
        return open_for_reading(path)[name]


def _values(dataset: Any, path: Place, rows: Ints) -> NDArray[Any]:
    """Rows of a small column, unconverted."""
    if dataset.dtype.kind not in "fiub" or len(dataset) <= rows.max():
        found = f"{dataset.dtype} {list(dataset.shape)} in {path}"
        raise ValueError(f"{dataset.name!r} must be numbers, one row per frame, got {found}")
    # Published files have one row per chunk, and h5py makes a call for each, which is slow.
    addresses = row_addresses(dataset, path)
    if addresses is None or isinstance(path, Remote):
        return dataset[()][rows]
    size = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return mapped_rows(path, size)[addresses[rows]].view(dataset.dtype)


def open_for_reading(path: Place) -> Any:
    """The file as an h5py.File; FileNotFoundError, or ValueError if it is not HDF5."""
    h5py = need("h5py", "worldmodel", "reading HDF5")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    raw, is_here = path.open("rb"), isinstance(path, Path)
    head = raw.read(12)
    if is_here:
        raw.close()
    if not (h5py.is_hdf5(path) if is_here else head[:8] == b"\x89HDF\r\n\x1a\n"):
        raise ValueError(f"path must be an HDF5 file, got {path}, which is not one")
    # With an active or killed writer, SWMR mode reads the complete part. Other files could hang.
    has_writer = len(head) == 12 and head[8] >= 3 and bool(head[11] & 4)  # superblock 3, bit 2
    if has_writer and isinstance(path, Path):
        _try_out(path)
    elif has_writer:
        remedy = "worldmodel data convert makes a clean copy of the local file"
        raise ValueError(f"{path} must be a closed file, its writer was active or killed: {remedy}")
    return h5py.File(path if is_here else raw, "r", swmr=has_writer)


def _try_out(path: Path) -> None:
    """Read the file's structure in another process; ValueError if it fails or hangs."""
    words = [sys.executable, "-c", _TRIAL, str(path.resolve())]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=15)  # noqa: S603 - fixed words
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} is damaged: HDF5 waits for a writer to mend it") from None
    if found.returncode:
        raise ValueError(f"{path} is damaged: {found.stderr.strip().splitlines()[-1:]}")


@contextmanager
def naming_damage(path: Place) -> Iterator[None]:
    """Raise ValueError for a broken structure and OSError for a failed read; both name the path."""
    try:
        yield
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(f"cannot read {path}: {error}") from error


def filters(dataset: Any) -> list[tuple[int, str]]:
    """Number and name of each filter between the file and the values."""
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    return [(code, name.decode() or f"filter {code}") for code, _, _, name in found]


def ensure_filters(dataset: Any, path: Place) -> None:
    """Load hdf5plugin if a compression filter of the dataset needs it; ImportError without it."""
    available = need("h5py", "worldmodel", "reading HDF5").h5z.filter_avail
    for code, name in filters(dataset):
        if not available(code):
            with suppress(ImportError):  # which registers its filters
                importlib.import_module("hdf5plugin")
        if not available(code):
            what = f"{dataset.name!r} of {path} is compressed by {name!r} (HDF5 filter {code})"
            raise ImportError(f"{what}, which h5py cannot read alone: pip install hdf5plugin")


def _ensure_own(dataset: Any, path: Place) -> None:
    """Refuse values in other files, because the author of this file could name any of yours."""
    if dataset.is_virtual or dataset.external:
        rule = f"hold its own values, got links to other files, in {path}"
        raise ValueError(f"{dataset.name!r} must {rule}: h5repack makes a copy of your own")


def row_addresses(dataset: Any, path: Place) -> Ints | None:
    """Byte address of each row in the file; None if they cannot be mapped.

    They can in contiguous storage and in unfiltered chunks of whole rows, on this machine.

    Raises: ImportError for an unknown filter; ValueError if the file is shorter than it says.
    """
    _ensure_own(dataset, path)
    ensure_filters(dataset, path)
    size, rows = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize, len(dataset)
    if dataset.file.userblock_size or not rows or isinstance(path, Remote):
        return None
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if start is None:
            return None
        addresses: Ints = start + size * np.arange(rows)
    else:
        per_chunk = dataset.chunks[0]
        if dataset.chunks[1:] != dataset.shape[1:] or filters(dataset):
            return None
        starts = np.full(-(-rows // per_chunk), -1, np.int64)

        def note(chunk: Any) -> None:
            starts[chunk.chunk_offset[0] // per_chunk] = chunk.byte_offset

        dataset.id.chunk_iter(note)
        if (starts < 0).any():
            return None
        chunk, within = np.divmod(np.arange(rows), per_chunk)
        addresses = starts[chunk] + size * within
    end, file_end = int(addresses.max()) + size, path.stat().st_size
    if end > file_end or addresses.min() < 0:
        found = f"it ends at byte {file_end:,}, the column at {end:,}"
        raise ValueError(f"{dataset.name!r} must lie inside {path}, which was cut short: {found}")
    return addresses


def mapped_rows(path: Path, size: int) -> Images:
    """The mapped file with a row of `size` bytes at every byte address."""
    file = np.memmap(path, np.uint8, "r")
    return np.lib.stride_tricks.sliding_window_view(file, size)


class MappedFrames(StoredFrames):
    """Uncompressed frames of one shape, mapped at their addresses [R] in the file."""

    def __init__(self, path: Path, shape: Sequence[int], addresses: Ints) -> None:
        super().__init__(len(addresses), shape, channels_last=is_channels_last(shape))
        self._path, self._addresses = path, addresses

    def _read(self, rows: Ints) -> Images:
        file = self._own(lambda: mapped_rows(self._path, math.prod(self._stored)))
        return file[self._addresses[rows]].reshape(-1, *self._stored)


class ChunkedFrames(StoredFrames):
    """Compressed or oddly chunked frames, read through h5py, each chunk once per batch.

    `rows` [R] are the stored rows of the column `name`, whose chunks hold `per_chunk` rows.
    """

    def __init__(
        self, path: Place, name: str, shape: Sequence[int], rows: Ints, per_chunk: int
    ) -> None:
        super().__init__(len(rows), shape, channels_last=is_channels_last(shape))
        self._path, self._name, self._rows, self._per_chunk = path, name, rows, per_chunk

    def _read(self, rows: Ints) -> Images:
        dataset = self._own(self._open)
        wanted, back = np.unique(self._rows[rows], return_inverse=True)
        out = np.empty((len(wanted), *self._stored), np.uint8)
        edges = np.flatnonzero(np.diff(wanted // self._per_chunk)) + 1
        for part in np.split(np.arange(len(wanted)), edges):
            if len(part):
                stored = wanted[part]
                with naming_damage(self._path):
                    block = dataset[int(stored[0]) : int(stored[-1]) + 1]
                out[part] = block[stored - stored[0]].reshape(-1, *self._stored)
        return out[back]

    def _open(self) -> Any:
        dataset = _column(self._path, self._name)
        ensure_filters(dataset, self._path)
        return dataset
