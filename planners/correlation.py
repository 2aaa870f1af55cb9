"""Noise that is alike from one action to the next: smooth exploration, few ways to move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from planners._arguments import integer, number, require
from planners.noise import Noise

__all__ = ["Colored", "Correlation", "Integrated", "Kernel", "correlated"]


class Correlation(Protocol):
    """How noise at one step of the horizon goes with noise at another; hashable."""

    def matrix(self, horizon: int) -> Tensor:
        """L, [H, J], float64 on the CPU: noise = L · J independent numbers per action dim."""


@dataclass(frozen=True)
class Colored:
    """Stationary noise whose power falls with frequency as 1 / f^β, the same at every step.

        noise_h = Σ_f c_f (u_f cos 2πfh + v_f sin 2πfh),  f = 0, 1/H, … 1/2
        c_f     ∝ max(f, 1/H)^{−β/2}

    β = 0 is white noise, 1 pink, 2 Brownian; large β pushes all steps the same way.

    Source: Timmer & König (1995); for planning: iCEM, arXiv:2008.06389, Section 3.1.
    """

    beta: float  #: β, at least 0.
    #: Whether its variance is 1. If not, Σ c_f² leaves f = 0 out and counts f = 1/2 half, as in the
    #: noise of iCEM's release: σ is above 1 (β = 2: 1.18 at 5 steps, 1.15 at 30), but 1 for β = 0.
    unit: bool = True

    def __post_init__(self) -> None:
        number("beta", self.beta, "[0, inf)")

    def matrix(self, horizon: int) -> Tensor:
        """Cosines and sines, [H, H]: one pair per frequency, one alone at 0 and at 1/2."""
        h = torch.arange(horizon, dtype=torch.float64)
        columns, power = [], 0.0
        for k in range(horizon // 2 + 1):
            alone = k in (0, horizon / 2)
            # A pair carries twice the power of a lone cosine.
            weight = max(k, 1) ** -self.beta * (1 if alone else 2)
            if self.unit or not self.beta or horizon == 1:
                power += weight
            elif k:
                power += weight / 2 if alone else weight
            angle = 2 * math.pi * k / horizon * h
            waves = [angle.cos()] if alone else [angle.cos(), angle.sin()]
            columns += [math.sqrt(weight) * wave for wave in waves]
        return torch.stack(columns, 1) / math.sqrt(power)


@dataclass(frozen=True)
class Integrated:
    """A random walk: noise is drawn for the change of the action, H^{−1/2} Σ_{j ≤ h} ε_j.

    The first action barely moves, so consecutive control steps agree; the last has variance 1.

    Source: smooth MPPI, arXiv:2112.09988, where the change of the action is the decision.
    """

    def matrix(self, horizon: int) -> Tensor:
        """Lower triangle of ones over √H, [H, H]."""
        return torch.ones(horizon, horizon, dtype=torch.float64).tril() / math.sqrt(horizon)


@dataclass(frozen=True)
class Kernel:
    """Noise at a few support points, interpolated by a Gaussian kernel.

        L = K(t, τ) K(τ, τ)⁻¹,  K(s, t) = exp(−(s − t)² / 2ℓ²),  τ: J points over the horizon

    Source: kernel MPPI of the pytorch_mppi package.
    """

    num_support: int  #: J, how many points carry noise, in [2, H].
    length: float = 1.0  #: ℓ, in units of the distance between support points.

    def __post_init__(self) -> None:
        integer("num_support", self.num_support, 2)
        number("length", self.length, "(0, inf)")

    def matrix(self, horizon: int) -> Tensor:
        """Interpolation weights, [H, J]."""
        J = self.num_support
        require(J <= horizon, f"num_support must be at most the horizon, {horizon}, got {J}")
        τ = torch.arange(J, dtype=torch.float64)
        t = torch.linspace(0, J - 1, horizon, dtype=torch.float64)
        across, among = (
            torch.exp(-((at[:, None] - τ) ** 2) / (2 * self.length**2)) for at in (t, τ)
        )
        weights: Tensor = torch.linalg.solve(among, across, left=False)
        return weights


# One per (correlation, horizon, dtype, device): to copy it inside the loop would wait for a device.
_MATRICES: dict[tuple[Correlation, int, torch.dtype, torch.device], Tensor] = {}


def correlated(
    noise: Noise, correlation: Correlation | None, num_samples: int, like: Tensor
) -> Tensor:
    """Noise [B, S, H, A] for plans like `like`; without a correlation steps are independent."""
    H, A = like.shape[1:]
    if correlation is None:
        return noise.normal((num_samples, H, A), dtype=like.dtype)
    key = (correlation, H, like.dtype, like.device)
    if key not in _MATRICES:
        _MATRICES[key] = correlation.matrix(H).to(dtype=like.dtype, device=like.device)
    L = _MATRICES[key]
    z = noise.normal((num_samples, L.shape[1], A), dtype=like.dtype)
    # Column by column: a matrix product would round differently in another batch.
    total = L[:, 0, None] * z[:, :, 0, None]
    for j in range(1, L.shape[1]):
        total += L[:, j, None] * z[:, :, j, None]
    return total
