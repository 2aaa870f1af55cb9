"""Where frames live: in a tensor, or behind anything that hands out rows when asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EpisodeFrames", "Frames", "gather"]


class Frames(Protocol):
    """R frames [R, C, H, W], uint8, read by row number; a Tensor is one.

    Readers from disk hold no open file when pickled, so that a DataLoader's workers may be forked
    or spawned.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, C, H, W)."""

    @property
    def dtype(self) -> torch.dtype:
        """torch.uint8."""

    def __len__(self) -> int:
        """R."""

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...], int64 -> frames [..., C, H, W]."""


def gather(frames: Frames, rows: Tensor) -> Tensor:
    """Frames at `rows` [...]: [..., C, H, W]."""
    if isinstance(frames, Tensor):
        # index_select copies frame by frame; indexing by a tensor goes byte by byte.
        out: Tensor = frames.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return out
    return frames[rows]


class EpisodeFrames:
    """Frames of a source that gives whole episodes: videos, one file or dataset per episode.

    The last few episodes are kept, so rows in order cost one decoding each; random windows decode
    an episode each. To train on such a source, convert it to HDF5 or read it into memory.

    Args:
        read: e -> frames [L, H, W, C], uint8, of episode e; must be picklable.
        lengths: [E], rows of each episode.
        shape: (C, H, W) of every frame.
        keep: episodes kept decoded.
    """

    dtype = torch.uint8

    def __init__(
        self,
        read: Callable[[int], NDArray[np.uint8]],
        lengths: Tensor,
        shape: tuple[int, int, int],
        *,
        keep: int = 4,
    ) -> None:
        self._read, self._lengths, self._keep = read, lengths, keep
        self._ends = lengths.cumsum(0)
        self.shape: tuple[int, ...] = (int(lengths.sum()), *shape)
        self._decoded: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., C, H, W], a view of channels-last memory."""
        C, H, W = self.shape[1:]
        flat = rows.flatten()
        episode = torch.searchsorted(self._ends, flat, right=True)
        within = flat - (self._ends - self._lengths)[episode]
        out = np.empty((len(flat), H, W, C), np.uint8)
        for e in episode.unique().tolist():
            mine = (episode == e).numpy()
            out[mine] = self._episode(e)[within.numpy()[mine]]
        frames: Tensor = torch.from_numpy(out).permute(0, 3, 1, 2).unflatten(0, rows.shape)
        return frames

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": OrderedDict()}

    def _episode(self, e: int) -> NDArray[np.uint8]:
        if e not in self._decoded:
            frames = self._read(e)
            C, H, W = self.shape[1:]
            wanted = (int(self._lengths[e]), H, W, C)
            if frames.shape != wanted or frames.dtype != np.uint8:
                raise ValueError(
                    f"every frame must have one size: episode {e} must be uint8 {list(wanted)}, "
                    f"got {frames.dtype} {list(frames.shape)}"
                )
            self._decoded[e] = frames
            if len(self._decoded) > self._keep:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(e)
        return self._decoded[e]
