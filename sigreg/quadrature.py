"""Nodes and weights that turn the Epps-Pulley integral over frequencies into a sum."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Quadrature", "trapezoid"]


class Quadrature(NamedTuple):
    """A rule ∫ g(t) e^{−t²/2} dt ≈ Σ_k weight_k · g(t_k) for even functions g.

    Attributes:
        t: [K], non-negative frequencies, ascending from 0.
        weight: [K], quadrature weight times the window e^{−t²/2}.
        target: [K], characteristic function of N(0, 1) at `t`, e^{−t²/2}.
        spacing: Δt if t_k = k Δt, which the fused kernels need; None leaves the rule to the
            reference. A number, so that no kernel has to read a device tensor to learn it.
    """

    t: Tensor
    weight: Tensor
    target: Tensor
    spacing: float | None = None

    def to(self, like: Tensor) -> Quadrature:
        """The same rule in the dtype and on the device of `like`."""
        return self._replace(
            t=self.t.to(like), weight=self.weight.to(like), target=self.target.to(like)
        )


def trapezoid(num_knots: int = 17, t_max: float = 3.0) -> Quadrature:
    """Trapezoid rule on [−t_max, t_max], folded onto [0, t_max] by symmetry.

        weight_k = 2Δt e^{−t_k²/2},   halved at both ends,   Δt = t_max / (K − 1)

    Equal spacing is what lets a kernel replace K sines by one sine and K complex products.
    It also makes the rule periodic: a shift of the data by 2π/Δt is invisible to it, 33.5 for
    the default. The default rule is the one of the released LeWM and LeJEPA code.

    Args:
        num_knots: K, at least 2.
        t_max: largest frequency, positive and finite.
    Returns: Quadrature of float64 tensors on the CPU.
    Raises: ValueError if `num_knots` < 2 or `t_max` is not positive and finite.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 1; interval as in the code of LeWM, 2603.19312.
    """
    if num_knots < 2:
        raise ValueError(f"num_knots must be at least 2, got {num_knots}")
    if not (t_max > 0 and math.isfinite(t_max)):
        raise ValueError(f"t_max must be positive and finite, got {t_max}")
    t = torch.linspace(0.0, t_max, num_knots, dtype=torch.float64)
    spacing = t_max / (num_knots - 1)
    width = torch.full_like(t, 2.0 * spacing)
    width[0] /= 2
    width[-1] /= 2
    target = torch.exp(-(t**2) / 2)
    return Quadrature(t=t, weight=width * target, target=target, spacing=spacing)
