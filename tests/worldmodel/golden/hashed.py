"""Weights and inputs as pure functions of names and indices, so that goldens hold outputs only.

    h₀ = i + 40503 · (crc32(name) mod 2¹⁵),  twice  h ← (h ⊕ h≫16) · 0x45d9f3b mod 2³¹
    u = (h mod 2²⁴) / 2²³ − 1,  exact in float32 and uniform over [−1, 1)

A tensor of a state dict is filled by the kind its name tells: matrices and convolutions with
√(3 / fan_in) · u, which keeps variances near one; norm weights with 1 + u/4; biases and running
means with u/4; running variances with 1 + u/2; tokens and positions with u, those of the predictor
with u/1000. No entry is zero or one by default, so no part of the architecture can hide; and faint
embeddings stay faint behind the predictor's positions, so that the ε of its norms shows.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

__all__ = ["actions", "frames", "state_dict", "uniform"]


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values u of a name, in row-major order."""
    h = torch.arange(math.prod(shape)) + 40503 * (zlib.crc32(name.encode()) % 2**15)
    for _ in range(2):
        h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0x7FFFFFFF
    return ((h & 0xFFFFFF).float() / 2**23 - 1).reshape(shape)


def state_dict(keys: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict with these names and shapes."""
    return {name: _tensor(name, shape) for name, shape in keys.items()}


def frames(windows: int, steps: int, side: int) -> Tensor:
    """Frames of 7 × 7 flat squares, [B, T, 3, side, side], uint8; side is a multiple of 7."""
    squares = ((uniform("frames", (windows, steps, 3, 7, 7)) + 1) * 128).to(torch.uint8)
    return squares.repeat_interleave(side // 7, -1).repeat_interleave(side // 7, -2)


def actions(*shape: int) -> Tensor:
    """Actions of about unit size."""
    return 1.5 * uniform("actions", shape)


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    u = uniform(name, shape)
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.tensor(3)
    if leaf == "running_var":
        return 1 + u / 2
    if leaf in ("bias", "running_mean"):
        return u / 4
    if leaf == "weight" and len(shape) == 1:
        return 1 + u / 4
    if leaf == "weight":
        return math.sqrt(3 / math.prod(shape[1:])) * u
    return u / 1000 if leaf == "pos_embedding" else u
