"""HDF5 files for the tests: as our writer leaves them, and as the platform's writers do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from worldmodel.data import Episodes, HDF5Writer


def write(path: Path, walks: list[Any], **options: Any) -> None:
    """Walks through our own writer."""
    with HDF5Writer(path, **options) as writer:
        for walk in walks:
            writer.write(walk.frames, walk.actions, walk.states)


def publish(path: Path, walks: list[Any], *, spoil: Callable[[Any], None] | None = None) -> None:
    """Walks as the platform's writers lay them out: one row per chunk, float64 states, groups."""
    columns: dict[str, list[Any]] = {"pixels": [], "action": [], "proprio/a": [], "proprio/b": []}
    for walk in walks:
        columns["pixels"].append(walk.frames.transpose(0, 2, 3, 1))
        columns["action"].append(np.vstack([walk.actions, np.full((1, 2), np.nan, np.float32)]))
        columns["proprio/a"].append(walk.states[:, :2].astype(np.float64))
        columns["proprio/b"].append(walk.states[:, 2])
    lengths = [len(walk.frames) for walk in walks]
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            rows = np.concatenate(parts)
            file.create_dataset(name, data=rows, chunks=(1, *rows.shape[1:]))
        file["ep_len"] = np.asarray(lengths, np.int32)
        file["ep_offset"] = np.cumsum([0, *lengths[:-1]])
        if spoil is not None:
            spoil(file)


def assert_same(found: Episodes, wanted: Episodes) -> None:
    """Equal in every row, NaN where NaN belongs."""
    rows = torch.arange(int(wanted.lengths.sum()))
    assert torch.equal(found.lengths, wanted.lengths)
    assert torch.equal(found.frames[rows], wanted.frames[rows])
    assert found.states is not None
    assert wanted.states is not None
    assert torch.equal(found.states, wanted.states)
    torch.testing.assert_close(found.actions, wanted.actions, rtol=0, atol=0, equal_nan=True)
