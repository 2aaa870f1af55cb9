"""Frames of an HDF5 file: mapped where they lie uncompressed, through h5py where they do not."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel._extras import need

__all__ = [
    "ChunkedFrames",
    "MappedFrames",
    "ensure_filters",
    "filter_available",
    "filters",
    "naming_damage",
    "open_for_reading",
    "raw_rows",
    "row_addresses",
]

Ints = NDArray[np.int64]


def open_for_reading(path: Path) -> Any:
    """The file as an h5py.File.

    Raises: FileNotFoundError; ImportError without h5py; ValueError if it is not HDF5.
    """
    h5py = need("h5py", "worldmodel", "reading HDF5")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"path must be an HDF5 file, got {path}, which is not one")
    # Where a writer lives, or was killed, this mode reads what is whole. It must not be tried on
    # any other file: HDF5 would wait for a writer to mend what is broken.
    return h5py.File(path, "r", swmr=_has_writer(path))


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Let whatever HDF5 stumbles over end in an error that names the file.

    Raises: ValueError for a structure that is broken, OSError for bytes that cannot be read.
    """
    try:
        yield
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(f"cannot read {path}: {error}") from error


def _has_writer(path: Path) -> bool:
    """Whether the file bears the mark of a single writer beside readers (superblock 3, bit 2)."""
    with path.open("rb") as file:
        head = file.read(12)
    return len(head) == 12 and head[8] >= 3 and bool(head[11] & 4)


def filters(dataset: Any) -> list[tuple[int, str]]:
    """Number and name of each filter between the file and the values, compression above all."""
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    return [(code, name.decode() or f"filter {code}") for code, _, _, name in found]


def filter_available(code: int) -> bool:
    """Whether HDF5 can undo a filter in this process."""
    return bool(need("h5py", "worldmodel", "reading HDF5").h5z.filter_avail(code))


def ensure_filters(dataset: Any, path: Path) -> None:
    """Load hdf5plugin if a compression filter of the dataset needs it.

    Raises: ImportError naming hdf5plugin and the filter.
    """
    missing = [(code, name) for code, name in filters(dataset) if not filter_available(code)]
    if missing:
        # Importing it registers its filters.
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")
    for code, name in missing:
        if not filter_available(code):
            raise ImportError(
                f"{dataset.name!r} of {path} is compressed by {name!r} (HDF5 filter {code}), which "
                f"h5py cannot read alone: pip install hdf5plugin"
            )


def row_addresses(dataset: Any, file_size: int) -> Ints | None:
    """Byte address of each row in the file, or None if rows do not lie there as they are.

    Rows lie as they are in contiguous storage and in unfiltered chunks of whole rows.

    Raises: ValueError if the file is shorter than its own index says.
    """
    row_bytes = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    rows = len(dataset)
    if dataset.is_virtual or dataset.external or dataset.file.userblock_size or not rows:
        return None
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if start is None:
            return None
        addresses: Ints = start + row_bytes * np.arange(rows)
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
        addresses = starts[chunk] + row_bytes * within
    end = int(addresses.max()) + row_bytes
    if end > file_size:
        raise ValueError(
            f"{dataset.name!r} must lie inside {dataset.file.filename}, which was cut short: "
            f"it ends at byte {file_size:,}, the column at {end:,}"
        )
    return addresses


def raw_rows(path: Path, dataset: Any, addresses: Ints) -> NDArray[Any]:
    """Rows of a small column gathered from their addresses, without a call per chunk."""
    row_bytes = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    raw = np.memmap(path, np.uint8, "r")[addresses[:, None] + np.arange(row_bytes)]
    values: NDArray[Any] = raw.view(dataset.dtype).reshape(len(addresses), *dataset.shape[1:])
    return values


class MappedFrames:
    """Uncompressed frames, read from the mapped file at known addresses.

    Args:
        path: of the file.
        stored: shape of a stored frame, channels last or first.
        addresses: [R], byte where each frame begins.
    """

    dtype = torch.uint8

    def __init__(self, path: Path, stored: Sequence[int], addresses: Ints) -> None:
        self._path, self._stored, self._addresses = path, tuple(stored), addresses
        self.shape: tuple[int, ...] = (len(addresses), *_channels_first(self._stored))
        self._bytes = int(np.prod(self._stored))
        steps = np.diff(addresses)
        even = len(steps) > 0 and bool((steps == steps[0]).all()) and int(steps[0]) >= self._bytes
        self._stride = int(steps[0]) if even else 0
        self._map: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., C, H, W], a view of the stored order of channels."""
        source = self._source()
        flat = rows.flatten().numpy()
        if self._stride:
            out = source[flat]
        else:
            out = np.empty((len(flat), self._bytes), np.uint8)
            for i, start in enumerate(self._addresses[flat].tolist()):
                out[i] = source[start : start + self._bytes]
        return _as_frames(out.reshape(-1, *self._stored), rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def _source(self) -> NDArray[np.uint8]:
        """All frames as rows if they are evenly spaced, else the bytes of the file."""
        if self._map is None:
            if not self._stride:
                self._map = np.memmap(self._path, np.uint8, "r")
            else:
                first, last = int(self._addresses[0]), int(self._addresses[-1])
                length = last + self._bytes - first
                flat = np.memmap(self._path, np.uint8, "r", offset=first, shape=(length,))
                self._map = np.lib.stride_tricks.as_strided(
                    flat, (len(self), self._bytes), (self._stride, 1), writeable=False
                )
        return self._map


class ChunkedFrames:
    """Compressed or oddly chunked frames, read through h5py, each touched chunk once a batch.

    The file is opened when first used, and again in each process that uses it.

    Args:
        path: of the file.
        name: column of the frames.
        stored: shape of a stored frame, channels last or first.
        rows: [R], stored row of each frame.
        per_chunk: rows in a chunk.
    """

    dtype = torch.uint8

    def __init__(
        self, path: Path, name: str, stored: Sequence[int], rows: Ints, per_chunk: int
    ) -> None:
        self._path, self._name, self._stored = path, name, tuple(stored)
        self._rows, self._per_chunk = rows, per_chunk
        self.shape: tuple[int, ...] = (len(rows), *_channels_first(self._stored))
        self._dataset: Any = None
        self._process = -1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., C, H, W], a view of the stored order of channels."""
        dataset = self._open()
        wanted, back = np.unique(self._rows[rows.flatten().numpy()], return_inverse=True)
        out = np.empty((len(wanted), *self._stored), np.uint8)
        edges = np.flatnonzero(np.diff(wanted // self._per_chunk)) + 1
        for part in np.split(np.arange(len(wanted)), edges):
            if len(part):
                stored = wanted[part]
                with naming_damage(self._path):
                    block = dataset[int(stored[0]) : int(stored[-1]) + 1]
                out[part] = block[stored - stored[0]]
        return _as_frames(out[back], rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None, "_process": -1}

    def _open(self) -> Any:
        if self._process != os.getpid():
            with naming_damage(self._path):
                dataset = open_for_reading(self._path)[self._name]
            ensure_filters(dataset, self._path)
            self._dataset, self._process = dataset, os.getpid()
        return self._dataset


def _channels_first(stored: Sequence[int]) -> tuple[int, int, int]:
    if stored[-1] in (1, 3, 4):
        return stored[2], stored[0], stored[1]
    return stored[0], stored[1], stored[2]


def _as_frames(stored: NDArray[np.uint8], rows: Tensor) -> Tensor:
    frames = torch.from_numpy(stored)
    if stored.shape[-1] in (1, 3, 4):
        frames = frames.permute(0, 3, 1, 2)
    out: Tensor = frames.unflatten(0, rows.shape)
    return out
