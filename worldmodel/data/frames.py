"""Frames in a tensor, or from a source that returns rows on request."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EpisodeFrames", "Frames", "KeptFrames", "StoredFrames", "gather", "in_colour",
           "is_channels_last"]  # fmt: skip

Images = NDArray[np.uint8]
_TOGETHER = 256  # frames copied at a time
_DECODED = 4  # episodes that `EpisodeFrames` keeps


class Frames(Protocol):
    """R frames [R, C, H, W], uint8, read by row number, such as a Tensor.

    A pickled reader holds no open file, so that DataLoader workers may be forked or spawned.
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
        # index_select copies whole frames; indexing by a tensor copies single bytes.
        return frames.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    return frames[rows]


def is_channels_last(shape: Sequence[int]) -> bool:
    """Whether a picture of this shape is [H, W, C]: 1, 3 or 4 channels are last, else the fewer."""
    known, first, last = (1, 3, 4), shape[0], shape[-1]
    return last in known or (first not in known and last <= first)


def in_colour(num: int) -> list[int]:
    """The channels, out of `num`, that make a picture in red, green and blue.

    Grey is repeated, alpha dropped, and of a stack of frames the newest, at its end, is taken.
    """
    return [0, 1, 2] if num == 4 else list(range(num - 3, num)) if num % 3 == 0 else [num - 1] * 3


class KeptFrames:
    """Chosen rows of other frames, in one tensor on a device; other rows cannot be read.

    They keep their order in memory, channels first or last, so that a network rounds alike.

    Args:
        frames: R of them, read once.
        rows: [N], in rising order.
        device: where they are kept and gathered.
        embed: [n, C, H, W] -> [n, ...], what is kept of some frames; by default themselves.
    """

    def __init__(
        self, frames: Frames, rows: Tensor, device: torch.device,
        embed: Callable[[Tensor], Tensor] = lambda seen: seen,
    ) -> None:  # fmt: skip
        one = embed(gather(frames, rows[:1]))
        self.shape, self.dtype = (len(frames), *one.shape[1:]), one.dtype
        self._last = not one.is_contiguous()
        first, *rest = self.shape[1:]
        shape = (*rest, first) if self._last else self.shape[1:]
        self._kept = torch.empty((len(rows), *shape), dtype=self.dtype, device=device)
        seen = self._kept.movedim(-1, 1) if self._last else self._kept
        for part, some in zip(seen.split(_TOGETHER), rows.split(_TOGETHER), strict=True):
            part.copy_(embed(gather(frames, some)))
        self._place = torch.full((len(frames),), -1, device=rows.device)
        self._place[rows] = torch.arange(len(rows), device=rows.device)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., C, H, W], on the device."""
        place = self._place[rows].to(self._kept.device, non_blocking=True)
        seen = gather(self._kept, place)
        return seen.movedim(-1, -3) if self._last else seen


class StoredFrames(ABC):
    """Frames [num, *shape] of one source; `_read` returns them as they are stored."""

    dtype = torch.uint8

    def __init__(self, num: int, shape: Sequence[int], *, channels_last: bool) -> None:
        H, W, C = shape if channels_last else (*shape[1:], shape[0])
        self._stored, self._channels_last = tuple(shape), channels_last
        self.shape: tuple[int, ...] = (num, C, H, W)
        self._source: Any = None  # open or decoded data; never pickled

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., C, H, W], a view of the stored order of channels."""
        frames = torch.from_numpy(self._read(rows.flatten().numpy()))
        if self._channels_last:
            frames = frames.permute(0, 3, 1, 2)
        return frames.unflatten(0, rows.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def _own(self, make: Callable[[], Any]) -> Any:
        """`make()`, once in each process: a fork must not use what its parent opened."""
        if self._source is None or self._source[0] != os.getpid():
            self._source = os.getpid(), make()
        return self._source[1]

    @abstractmethod
    def _read(self, rows: NDArray[np.int64]) -> Images:
        """Frames [n, *shape] of rows [n]."""


class EpisodeFrames(StoredFrames):
    """Frames of a source of whole episodes: videos, one file or dataset per episode.

    The last four episodes stay decoded, so rows in order cost one decoding each, but random
    windows decode an episode each. For training, convert it to HDF5 or read it into memory.

    Args:
        read: e -> frames [L, H, W, C], uint8, of episode e; must be picklable.
        lengths: [E], rows of each episode.
        shape: (C, H, W) of every frame.
    """

    def __init__(
        self, read: Callable[[int], Images], lengths: Tensor, shape: Sequence[int]
    ) -> None:
        C, H, W = shape
        super().__init__(int(lengths.sum()), (H, W, C), channels_last=True)
        self._decode, self._lengths = read, lengths.numpy()
        self._ends = self._lengths.cumsum()

    def _read(self, rows: NDArray[np.int64]) -> Images:
        episode = np.searchsorted(self._ends, rows, side="right")
        within = rows - (self._ends - self._lengths)[episode]
        out = np.empty((len(rows), *self._stored), np.uint8)
        decoded = self._own(lambda: lru_cache(_DECODED)(self._decode))
        for e in np.unique(episode).tolist():
            frames, wanted = decoded(e), (int(self._lengths[e]), *self._stored)
            if frames.shape != wanted or frames.dtype != np.uint8:
                rule = f"every frame must have one size: episode {e} must be uint8 {list(wanted)}"
                raise ValueError(f"{rule}, got {frames.dtype} {list(frames.shape)}")
            mine = episode == e
            out[mine] = frames[within[mine]]
        return out
