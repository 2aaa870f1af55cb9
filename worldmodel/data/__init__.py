"""Data sets: episodes, and windows of frames and actions."""

from typing import TYPE_CHECKING

from worldmodel._lazy import lazily

if TYPE_CHECKING:
    from worldmodel.data.episodes import (
        ActionScale,
        Episodes,
        action_digest,
        episode_digests,
        split,
    )
    from worldmodel.data.frames import Frames
    from worldmodel.data.hdf5 import open_hdf5
    from worldmodel.data.hdf5_writer import HDF5Writer
    from worldmodel.data.windows import BatchOrder, Windows, loader

__getattr__ = lazily(__name__)

__all__ = [
    "ActionScale", "BatchOrder", "Episodes", "Frames", "HDF5Writer", "Windows", "action_digest",
    "episode_digests", "loader", "open_hdf5", "split",
]  # fmt: skip
