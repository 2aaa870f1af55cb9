"""HDF5 in the published LeWM layout: flat rows, one dataset per column, an index of episodes.

`pixels` [R, H, W, C] (or [R, C, H, W]) uint8, `action` [R, A], optional state columns [R, …],
`ep_len` [E] and `ep_offset` [E]. Columns may lie in groups: `proprio/joint_pos`.
Source: LeWM's released data and stable-worldmodel's writers (arXiv:2603.19312).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel._extras import need
from worldmodel.data.column import Column
from worldmodel.data.episodes import Episodes
from worldmodel.data.hdf5_frames import (
    ChunkedFrames,
    MappedFrames,
    ensure_filters,
    filters,
    naming_damage,
    open_for_reading,
    raw_rows,
    row_addresses,
)

__all__ = ["hdf5_columns", "open_hdf5"]

_INDEX = ("ep_len", "ep_offset")
_STATES = ("state", "proprio")


def open_hdf5(
    path: str | Path,
    *,
    pixels: str = "pixels",
    action: str = "action",
    state: str | Sequence[str] | None = None,
) -> Episodes:
    """Episodes of an HDF5 file; frames stay on disk and are read when asked for.

    Uncompressed frames are mapped: the file's pages in memory are the cache, no HDF5 call is made
    per frame, and a file larger than memory streams. Compressed ones go through h5py. Nothing of
    h5py stays open, so the result can be pickled, forked and sent to workers. A file that is still
    being written, or whose writer was killed, ends at its last whole episode.

    Args:
        path: of the file.
        pixels: column of frames, uint8, channels last or first.
        action: column of raw actions; NaN in the last row of each episode.
        state: columns or groups of columns laid side by side as `states`; by default `state`, else
            `proprio`, else none.
    Returns: Episodes.
    Raises: FileNotFoundError; ImportError if h5py or a compression filter is missing; ValueError
        if the file is not HDF5 or damaged, a column is missing or has another shape, or there is no
        episode; OSError if it was cut short.
    """
    path = Path(path)
    with naming_damage(path), open_for_reading(path) as file:
        columns = {column.name for column in _columns(file)}
        for name in (pixels, action, *_INDEX):
            if name not in columns:
                found = ", ".join(sorted(columns)) or "none"
                raise ValueError(f"{path} must have a column {name!r}, got {found}")
        lengths, rows = _index(file, path, (pixels, action))
        frames = _frames(file, path, pixels, rows)
        actions = _table(file[action], path, rows)
        names = _state_columns(columns, state, path)
        states = [_table(file[name], path, rows) for name in names]
    return Episodes(
        frames, actions, torch.from_numpy(lengths), torch.cat(states, 1) if states else None
    )


def hdf5_columns(path: str | Path) -> list[Column]:
    """Every column of an HDF5 file, the index included."""
    with naming_damage(Path(path)), open_for_reading(Path(path)) as file:
        return _columns(file)


def _columns(file: Any) -> list[Column]:
    h5py = need("h5py", "worldmodel", "reading HDF5")
    found: list[Column] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            chunks = "contiguous" if item.chunks is None else f"chunks {_shape(item.chunks)}"
            storage = ", ".join([chunks, *(name for _, name in filters(item))])
            found.append(Column(name, tuple(item.shape), str(item.dtype), storage))

    file.visititems(visit)
    return found


def _index(
    file: Any, path: Path, columns: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length of each whole episode, and the stored row of each of our rows."""
    num = min(len(file[name]) for name in _INDEX)
    lengths, offsets = (file[name][:num].astype(np.int64) for name in _INDEX)
    # A killed writer may have made room for an episode that it never entered.
    whole = np.flatnonzero(lengths)
    num = int(whole[-1]) + 1 if len(whole) else 0
    lengths, offsets = lengths[:num], offsets[:num]
    if num == 0:
        raise ValueError(f"{path} must hold at least one whole episode, got none")
    for name in columns:
        outside = (lengths < 0) | (offsets < 0) | (offsets + lengths > len(file[name]))
        if outside.any():
            e = int(outside.argmax())
            raise ValueError(
                f"ep_offset + ep_len must stay within the {len(file[name])} rows of {name!r}, got "
                f"{offsets[e]} + {lengths[e]} in episode {e} of {path}"
            )
    first = np.repeat(offsets - (lengths.cumsum() - lengths), lengths)
    return lengths, first + np.arange(lengths.sum())


def _frames(
    file: Any, path: Path, name: str, rows: NDArray[np.int64]
) -> MappedFrames | ChunkedFrames:
    dataset = file[name]
    if dataset.ndim != 4 or dataset.dtype != np.uint8:
        raise ValueError(
            f"{name!r} must be uint8 [R, H, W, C], got {dataset.dtype} {_shape(dataset.shape)} "
            f"in {path}"
        )
    if dataset.shape[-1] not in (1, 3, 4) and dataset.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"{name!r} must have 1, 3 or 4 channels, last or first, got {_shape(dataset.shape)} "
            f"in {path}"
        )
    ensure_filters(dataset, path)
    addresses = row_addresses(dataset, path.stat().st_size)
    if addresses is not None:
        return MappedFrames(path, dataset.shape[1:], addresses[rows])
    return ChunkedFrames(path, name, dataset.shape[1:], rows, (dataset.chunks or (1,))[0])


def _table(dataset: Any, path: Path, rows: NDArray[np.int64]) -> Tensor:
    """Rows of a small column as float32 [R, S], whatever its shape."""
    if dataset.dtype.kind not in "fiub" or len(dataset) <= rows.max():
        raise ValueError(
            f"{dataset.name!r} must be numbers, one row per frame, got {dataset.dtype} "
            f"{_shape(dataset.shape)} in {path}"
        )
    ensure_filters(dataset, path)
    # Published files have one row per chunk, and h5py makes a call for each.
    addresses = row_addresses(dataset, path.stat().st_size)
    values = dataset[()][rows] if addresses is None else raw_rows(path, dataset, addresses[rows])
    flat = np.ascontiguousarray(values, np.float32).reshape(len(rows), -1)
    return torch.from_numpy(flat)


def _state_columns(columns: set[str], state: str | Sequence[str] | None, path: Path) -> list[str]:
    if state is None:
        given = next(([s] for s in _STATES if _members(columns, s)), [])
    else:
        given = [state] if isinstance(state, str) else list(state)
    chosen: list[str] = []
    for name in given:
        members = _members(columns, name)
        if not members:
            raise ValueError(
                f"state must name columns or groups of {path}, got {name!r} among "
                f"{', '.join(sorted(columns))}"
            )
        chosen += members
    return chosen


def _members(columns: set[str], name: str) -> list[str]:
    """The column of this name, or every column of the group."""
    return sorted(c for c in columns if c == name or c.startswith(f"{name}/"))


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
