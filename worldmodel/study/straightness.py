"""How straight are latent paths? The mean cosine between consecutive velocities."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["straightness"]


def straightness(z: Tensor) -> Tensor:
    """Mean cosine of consecutive velocities along each path.

        S = mean_t cos(v_t, v_{t+1}),   v_t = z_{t+1} − z_t

    1 on a straight line at any speed, about 0 on a random walk, −½ on independent points, −1 on
    a path that goes back and forth. Pairs with a velocity of length zero have no cosine and are
    left out; what is below 1e-6 of the path's distance from the origin counts as zero, for that
    is rounding.

    Args:
        z: [E, T, D], T ≥ 3.
    Returns: [E]; NaN for a path without two consecutive moves.
    Raises: ValueError if there are fewer than three points.
    Source: LeWM, arXiv:2603.19312, Equation 9.
    """
    if z.dim() != 3 or z.shape[1] < 3:
        raise ValueError(f"z must be [E, T >= 3, D], got {list(z.shape)}")
    v = z.diff(dim=1)
    speed = torch.linalg.vector_norm(v, dim=-1)
    least = 1e-6 * torch.linalg.vector_norm(z, dim=-1).amax(1, keepdim=True)
    moving = speed > least.clamp_min(torch.finfo(z.dtype).tiny)
    unit = v / torch.where(moving, speed, torch.ones_like(speed)).unsqueeze(-1)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    both = moving[:, 1:] & moving[:, :-1]
    out: Tensor = (cosine * both).sum(1) / both.sum(1)
    return out
