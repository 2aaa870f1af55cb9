"""Refine: first one method, then the other from where it ended."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from planners import CEM, MPPI, CategoricalCEM, GradientDescent, Refine, optimize

from .known import quadratic, two_basins


def test_before_the_change_it_is_the_first_method() -> None:
    """Up to `after` iterations the plan is the first method's, bit for bit."""
    problem = quadratic()
    both = Refine(CEM(), MPPI(), after=5)
    for iterations in (1, 5):
        plan = optimize(both, problem.cost, problem.start, iterations=iterations)
        first = optimize(CEM(), problem.cost, problem.start, iterations=iterations)
        assert torch.equal(plan.actions, first.actions)
        assert torch.equal(plan.history, first.history)


def test_the_second_starts_at_the_first_ones_plan() -> None:
    """Its first candidate is where the first method ended; gradients are asked for from there."""
    problem = quadratic()
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return problem.cost(candidates)

    first = optimize(CEM(), problem.cost, problem.start, iterations=4)
    optimize(Refine(CEM(), GradientDescent(), after=4), cost, problem.start, iterations=6)
    assert torch.equal(seen[4][:, 0].detach(), first.actions)
    assert [candidates.requires_grad for candidates in seen] == [False] * 4 + [True] * 2


def test_the_second_draws_other_numbers() -> None:
    """The second method's noise is not the first one's again."""
    problem = quadratic()
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return problem.cost(candidates)

    optimize(Refine(MPPI(8), MPPI(8), after=1), cost, problem.start, iterations=2)
    drawn = [(candidates - candidates[:, :1])[:, 1:] for candidates in seen]
    assert not torch.allclose(drawn[0], drawn[1])


def test_sampling_finds_the_valley_and_gradients_its_floor() -> None:
    """From the worse of two basins, gradients alone stay there, and CEM alone stops short."""
    problem = two_basins()
    descent = GradientDescent(partial(torch.optim.SGD, lr=0.25))

    def regret(method: Any, iterations: int) -> float:
        plan = optimize(method, problem.cost, problem.start, iterations=iterations)
        return problem.regret(plan.actions).max().item()

    assert regret(descent, 30) >= 1
    assert regret(CEM(init_std=2.0), 3) > 1e-5
    assert regret(Refine(CEM(init_std=2.0), descent, after=3), 30) < 1e-9


def test_wrong_settings_are_named() -> None:
    """`after` must be positive, and choices do not mix with free actions."""
    with pytest.raises(ValueError, match="after must be an integer of at least 1, got 0"):
        Refine(CEM(), MPPI(), after=0)
    with pytest.raises(ValueError, match="both be discrete or both not"):
        Refine(CategoricalCEM(), GradientDescent(), after=1)


def test_the_second_methods_restarts_are_moved_apart() -> None:
    """The second method counts from its own start: its restarts are drawn when it begins."""
    problem = quadratic(2)
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return problem.cost(candidates)

    both = Refine(CEM(20, 5), GradientDescent(num_restarts=3), after=2)
    optimize(both, cost, problem.start, iterations=4)
    apart = (seen[2][:, 1:] - seen[2][:, :1]).abs().amax((2, 3))
    assert apart.shape == (2, 2)
    assert (apart > 0.1).all()
    # Drawn once: the next step moves each by no more than Adam's learning rate.
    assert (seen[3] - seen[2]).abs().max() <= 0.1 + 1e-6
