"""An iteration of each planner on a cost that costs nothing, beside CEM written plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from planners import (
    CEM,
    ICEM,
    MPPI,
    BestSoFar,
    GradientDescent,
    PredictiveSampling,
    optimize,
)

METHODS = {
    "CEM": CEM(),
    "iCEM": ICEM(decay=1.0, num_elites=30),
    "MPPI": MPPI(),
    "BestSoFar(CEM)": BestSoFar(CEM()),
    "predictive sampling": PredictiveSampling(),
    "gradient descent": GradientDescent(),
}


def free(candidates: Tensor) -> Tensor:
    """One view, no arithmetic."""
    return candidates[:, :, 0, 0]


def plain() -> Tensor:
    """CEM's loop at LeWM's settings in a few lines, nothing checked."""
    mean, std = torch.zeros(1, 5, 10), torch.ones(1, 5, 10)
    for _ in range(10):
        candidates = torch.randn(1, 300, 5, 10) * std[:, None] + mean[:, None]
        _, index = torch.topk(free(candidates), 30, dim=1, largest=False)
        elites = candidates[torch.arange(1)[:, None], index]
        mean, std = elites.mean(1), elites.std(1)
    return mean


@pytest.mark.benchmark(group="10 iterations of a planner, cost free")
@pytest.mark.parametrize("name", ["CEM, plain loop", *METHODS])
def test_iterations(benchmark: Any, name: str) -> None:
    """Nothing but the planner."""
    if name == "CEM, plain loop":
        benchmark(plain)
        return
    start = torch.zeros(1, 5, 10)
    benchmark(lambda: optimize(METHODS[name], free, start, iterations=10, seed=0))
