"""Nodes and weights that turn the Epps-Pulley integral over frequencies into a sum."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sigreg import _arguments as require

__all__ = ["Quadrature", "gaussian", "student_t_cf", "trapezoid_rule"]


class Quadrature(NamedTuple):
    """A rule ∫ g(t) e^{−t²/2} dt ≈ Σ_k weight_k · g(t_k) for even functions g."""

    t: Tensor  #: [K], non-negative frequencies, ascending from 0
    weight: Tensor  #: [K], quadrature weight times the window e^{−t²/2}
    target: Tensor  #: [K], the characteristic function to match at `t`, e^{−t²/2} for N(0, 1)
    spacing: float | None = None  #: Δt if t_k = k Δt, as fused kernels need; None: the reference

    def to(self, like: Tensor) -> "Quadrature":
        """The same rule in the dtype and on the device of `like`."""
        t, weight, target = (part.to(like) for part in self[:3])
        return Quadrature(t, weight, target, self.spacing)


def gaussian(t: Tensor) -> Tensor:
    """Characteristic function of N(0, 1), e^{−t²/2}."""
    return torch.exp(-(t**2) / 2)


def student_t_cf(dof: int) -> Callable[[Tensor], Tensor]:
    """Characteristic function of Student's t, scaled to variance 1: a target with heavy tails.

        u^{ν/2} K_{ν/2}(u) / (2^{ν/2−1} Γ(ν/2)),   u = √(ν − 2) |t|,   K the Bessel function

    An isotropic multivariate t has it along every direction; it becomes N(0, I) for ν → ∞. K starts
    from K_0, K_1 or from K_{1/2}(u) = √(π/2u) e^{−u}, and its upward recurrence is stable.

    Args:
        dof: ν, a whole number of at least 3, or there is no variance to set to 1.
    Returns: a function of t for `trapezoid_rule(target=...)`.
    Source: Hurst (1995), The characteristic function of the Student t distribution.
    """
    require.count("dof", dof, at_least=3)

    def target(t: Tensor) -> Tensor:
        u = math.sqrt(dof - 2) * t.abs()
        at = torch.where(u > 0, u, 1)
        order, start = 0.5, torch.sqrt(math.pi / (2 * at)) * torch.exp(-at)
        below, above = start, start
        if dof % 2 == 0:
            order, below = 1.0, torch.special.modified_bessel_k0(at)
            above = torch.special.modified_bessel_k1(at)
        while order < dof / 2:
            below, above = above, below + 2 * order / at * above
            order += 1
        norm = 2 ** (dof / 2 - 1) * math.gamma(dof / 2)
        return torch.where(u > 0, at ** (dof / 2) * above / norm, 1)

    return target


def trapezoid_rule(
    knots: int = 17, t_max: float = 3.0, target: Callable[[Tensor], Tensor] = gaussian
) -> Quadrature:
    """Trapezoid rule on [−t_max, t_max], folded onto [0, t_max] by symmetry.

        weight_k = 2Δt e^{−t_k²/2},   halved at both ends,   Δt = t_max / (K − 1)

    With equal spacing a kernel needs one sine and K complex products in place of K sines. But the
    rule is periodic: it cannot see a shift of the data by 2π/Δt, 33.5 for the default.

    Args:
        knots: K, at least 2.
        t_max: largest frequency, positive and finite.
        target: real, even characteristic function to match: `gaussian`, `student_t_cf(5)`, yours.
    Returns: Quadrature of float64 tensors on the CPU.
    Raises: ValueError if `knots` or `t_max` is outside its range.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 1; interval as in the code of LeWM, 2603.19312.
    """
    require.count("knots", knots, at_least=2)
    require.number("t_max", t_max, "(0, inf)")
    require.kind("target", target, callable)
    t = torch.linspace(0.0, t_max, knots, dtype=torch.float64, device="cpu")
    spacing = t_max / (knots - 1)
    width = torch.full_like(t, 2.0 * spacing)
    width[[0, -1]] /= 2
    return Quadrature(t=t, weight=width * gaussian(t), target=target(t), spacing=spacing)
