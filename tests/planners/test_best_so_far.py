"""BestSoFar changes what is returned and nothing of the search."""

from __future__ import annotations

import torch
from torch import Tensor

from planners import CEM, BestSoFar, optimize

from .known import two_basins


def test_the_search_inside_is_the_same() -> None:
    """The wrapped method asks for the same candidates, bit for bit."""
    problem = two_basins()
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return problem.cost(candidates)

    optimize(CEM(16, 4), cost, problem.start, iterations=4)
    optimize(BestSoFar(CEM(16, 4)), cost, problem.start, iterations=4)
    for bare, wrapped in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(bare, wrapped)


def test_an_early_find_is_not_lost() -> None:
    """A lucky candidate of the first iteration is the plan although the search moves away."""
    lucky = torch.tensor([2.0, 2.0])
    calls: list[int] = []

    def cost(candidates: Tensor) -> Tensor:
        calls.append(0)
        costs = candidates.square().sum((-1, -2))
        costs[:, 3] = torch.where(torch.tensor(len(calls) == 1), -1.0, costs[:, 3])
        return costs

    plan = optimize(BestSoFar(CEM(16, 4)), cost, lucky.expand(2, 3, 2), iterations=10)
    assert torch.equal(plan.cost, torch.tensor([-1.0, -1.0]))
    assert (plan.actions - 2).abs().max() < 4
    assert torch.equal(plan.history, torch.full((10, 2), -1.0))
