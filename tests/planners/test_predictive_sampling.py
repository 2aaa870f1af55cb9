"""Predictive sampling keeps the best candidate, and the plan among them."""

from __future__ import annotations

import pytest
import torch

from planners import Kernel, PredictiveSampling, optimize
from planners.noise import Noise, Stream

from .known import valley


def test_its_cost_is_scored_and_never_rises() -> None:
    """The plan stays a candidate: its cost is known and monotone without any wrapper."""
    problem = valley()
    plan = optimize(PredictiveSampling(10), problem.cost, problem.start, iterations=20)
    assert (plan.history.diff(dim=0) <= 0).all()
    torch.testing.assert_close(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


def test_few_knots_move_the_whole_horizon() -> None:
    """With two kernel support points the candidates differ from the plan in two ways only."""
    method = PredictiveSampling(50, correlation=Kernel(2))
    plan = torch.linspace(0, 1, 8).view(1, 8, 1)
    drawn = method.ask(method.init(plan), Noise(Stream(torch.tensor([0])), 0))
    change = (drawn - plan[:, None])[0, 1:, :, 0]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2


def test_too_few_samples_are_refused() -> None:
    """One sample would be the plan itself."""
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 2, got 1"):
        PredictiveSampling(1)
