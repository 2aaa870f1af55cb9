"""Records that travel between the parts: a batch of windows, and the losses of a step.

Letters: B windows, T frames, C H W a frame, A action dims of one block, D embedding dims.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Batch", "Losses"]


class Batch(NamedTuple):
    """Windows of frames and the actions between them.

    `actions[:, t]` is what was done between `frames[:, t]` and `frames[:, t + 1]`: all the raw
    actions of that interval side by side, oldest first, so A = frameskip × raw action dims. The
    last block leads out of the window; nothing in the window shows its effect.

    Attributes:
        frames: [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1.
        actions: [B, T, A], normalised as the model expects them.
    """

    frames: Tensor
    actions: Tensor


class Losses(NamedTuple):
    """What one step minimised, term by term.

    Attributes:
        total: [], prediction + weight × regularization; the one to call backward on.
        prediction: [], mean squared error of the next embedding, per coordinate.
        regularization: [], the regularizer's value before its weight.
        embeddings: [B, T, D], detached, for diagnostics.
    """

    total: Tensor
    prediction: Tensor
    regularization: Tensor
    embeddings: Tensor
