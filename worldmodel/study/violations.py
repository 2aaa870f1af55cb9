"""Episodes in which something impossible happens: a jump, or a change of colour.

Letters: E episodes, T frames, C H W a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["background", "recolour", "splice"]


def background(frames: Tensor) -> Tensor:
    """What all frames share: the median of every pixel.

    Args:
        frames: [..., C, H, W], uint8, from one camera that stands still.
    Returns: [C, H, W], uint8.
    """
    out: Tensor = frames.flatten(0, -4).median(dim=0).values
    return out


def recolour(frames: Tensor, still: Tensor, at: int, *, threshold: int = 24) -> Tensor:
    """From frame `at` on, whatever differs from the background changes its colour.

    Red becomes green, green blue and blue red, in every pixel that differs from `still` by more
    than `threshold` in some channel. Nothing moves, so only what things look like is violated.

    Args:
        frames: [E, T, 3, H, W], uint8.
        still: [3, H, W], uint8, the background.
        at: first frame that is changed.
        threshold: above sensor noise and below the contrast of objects, of 255.
    Returns: [E, T, 3, H, W], a copy.
    Raises: ValueError if frames have not three channels or `at` lies outside.
    """
    if frames.shape[-3] != 3 or not 0 <= at < frames.shape[1]:
        raise ValueError(
            f"frames must be [E, T > at, 3, H, W] with at = {at} >= 0, got {list(frames.shape)}"
        )
    later = frames[:, at:]
    differs = (later.short() - still.short()).abs().amax(-3, keepdim=True) > threshold
    out = frames.clone()
    out[:, at:] = torch.where(differs, later.roll(1, dims=-3), later)
    return out


def splice(x: Tensor, at: int) -> Tensor:
    """From entry `at` on, each episode goes on as its neighbour does: a jump to another place.

    Everything after the jump is true again, only the jump is not. Splice frames, actions and
    states at the same entry.

    Args:
        x: [E, T, …], E ≥ 2; episode e continues as episode e + 1, the last as the first.
        at: first entry that is the neighbour's.
    Returns: [E, T, …].
    Raises: ValueError if there is one episode only, or `at` lies outside.
    """
    if len(x) < 2 or not 0 < at < x.shape[1]:
        raise ValueError(f"x must be [E >= 2, T > at, ...] with at = {at} > 0, got {list(x.shape)}")
    return torch.cat([x[:, :at], x.roll(-1, dims=0)[:, at:]], dim=1)
