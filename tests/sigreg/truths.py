"""One-dimensional samples whose Epps-Pulley statistic is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sigreg import Quadrature


class Truth(NamedTuple):
    """Samples x [N] and their statistic under a rule."""

    name: str
    x: Tensor
    statistic: Callable[[Quadrature], Tensor]


def _distance(rule: Quadrature, cos: Tensor, sin: Tensor | float = 0.0) -> Tensor:
    """Σ_k weight_k |φ_k − target_k|² of a characteristic function known exactly."""
    return (rule.weight * ((cos - rule.target) ** 2 + sin**2)).sum()


def _bessel(t: Tensor) -> Tensor:
    return torch.special.bessel_j0(2 * t)


_CIRCLE = 2 * torch.cos(2 * torch.pi * torch.arange(60, dtype=torch.float64) / 60)

TRUTHS = (
    Truth(
        "collapsed on 0",
        torch.zeros(50, dtype=torch.float64),
        lambda rule: 50 * _distance(rule, torch.ones_like(rule.t)),
    ),
    Truth(
        "collapsed on 1.7",
        torch.full((9,), 1.7, dtype=torch.float64),
        lambda rule: 9 * _distance(rule, torch.cos(1.7 * rule.t), torch.sin(1.7 * rule.t)),
    ),
    Truth(
        "half at −1, half at 1",
        torch.tensor([-1.0, 1.0] * 20, dtype=torch.float64),
        lambda rule: 40 * _distance(rule, torch.cos(rule.t)),
    ),
    Truth(
        "a pair at each of ±0.6 and ±1.4",
        torch.tensor([-1.4, -0.6, 0.6, 1.4] * 2, dtype=torch.float64),
        lambda rule: 8 * _distance(rule, torch.cos(rule.t) * torch.cos(0.4 * rule.t)),
    ),
    # Equal steps around a circle: sums over them are integrals up to J_60(2t), which is nothing.
    Truth("arcsine law of radius 2", _CIRCLE, lambda rule: 60 * _distance(rule, _bessel(rule.t))),
)
