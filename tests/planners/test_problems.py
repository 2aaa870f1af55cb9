"""The test bed itself: each minimum is the minimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from . import known
from .known import Problem

ALL = [
    known.quadratic,
    known.active_bounds,
    known.constrained,
    known.valley,
    known.two_basins,
    known.linear_quadratic,
    known.reach,
    known.chain,
]
SMOOTH = [known.quadratic, known.valley, known.linear_quadratic, known.reach, known.two_basins]


@pytest.mark.parametrize("make", ALL)
def test_the_minimiser_costs_the_minimum(make: Callable[[int], Problem]) -> None:
    """The given plan attains the given minimum and obeys what it is subject to."""
    problem = make(8)
    torch.testing.assert_close(problem.regret(problem.minimiser), torch.zeros(8), atol=2e-5, rtol=0)
    if problem.constraint is not None:
        assert problem.limit(problem.minimiser[:, None]).max() < 1e-5
    if problem.bounds is not None:
        assert problem.minimiser.abs().max() <= 1


@pytest.mark.parametrize("make", ALL)
def test_nothing_near_or_far_costs_less(make: Callable[[int], Problem]) -> None:
    """Ten thousand admissible plans around the minimiser, near and far, all cost at least it."""
    problem = make(4)
    generator = torch.Generator().manual_seed(0)
    B, H, A = problem.start.shape
    noise = torch.randn(B, 10_000, H, A, generator=generator)
    radius = torch.logspace(-3, 0.5, 10_000).view(-1, 1, 1)
    others = problem.minimiser[:, None] + radius * noise
    if make is known.chain:
        others = torch.softmax(5 * noise, -1)
    if problem.bounds is not None:
        others = others.clamp(-1, 1)
    costs = problem.cost(others)
    if problem.constraint is not None:
        costs = torch.where(problem.limit(others).amax(-1) <= 0, costs, torch.inf)
    assert (costs - problem.minimum[:, None]).min() > -1e-5


@pytest.mark.parametrize("make", SMOOTH)
def test_the_slope_is_zero_at_a_free_minimiser(make: Callable[[int], Problem]) -> None:
    """Where nothing binds, the gradient vanishes at the minimiser."""
    problem = make(8)
    problem = replace(problem, parameters=tuple(p.double() for p in problem.parameters))
    at = problem.minimiser.double()[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(problem.cost(at).sum(), at)
    assert slope.abs().max() < 1e-4


def test_the_multiplier_balances_the_slopes() -> None:
    """At the constrained minimum ∇cost + λ ∇c = 0, with c = 0 and λ > 0."""
    problem = known.constrained()
    assert problem.multiplier is not None
    assert problem.multiplier.min() > 0
    at = problem.minimiser[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(problem.cost(at).sum(), at)
    (rise,) = torch.autograd.grad(problem.limit(at).sum(), at)
    balance = slope + problem.multiplier[:, :, None, None] * rise
    torch.testing.assert_close(balance, torch.zeros_like(balance), atol=1e-5, rtol=0)


def test_riccati_agrees_with_one_linear_solve() -> None:
    """The recursion's actions solve the normal equations of the whole horizon at once."""
    problem = known.linear_quadratic(3)
    size = problem.start[0].numel()
    for b in range(3):
        alone = problem.take(torch.tensor([b]))
        alone = replace(alone, parameters=tuple(p.double() for p in alone.parameters))

        def cost(a: torch.Tensor, alone: Problem = alone) -> torch.Tensor:
            return alone.cost(a.view(1, 1, -1, 1))[0, 0]

        zero = torch.zeros(size, dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(cost, zero)
        slope = torch.autograd.functional.jacobian(cost, zero)
        solved = torch.linalg.solve(hessian, -slope)
        torch.testing.assert_close(
            problem.minimiser[b].flatten().double(), solved, atol=1e-6, rtol=1e-6
        )


def test_a_problem_does_not_depend_on_how_many_there_are() -> None:
    """Problem b of 3 is problem b of 30."""
    for make in ALL:
        few, many = make(3), make(30)
        assert torch.equal(few.minimum, many.minimum[:3])
        assert all(
            torch.equal(a, b[:3]) for a, b in zip(few.parameters, many.parameters, strict=True)
        )


def test_a_problem_without_a_constraint_says_so() -> None:
    """Asking a free problem for its constraint is an error."""
    problem = known.quadratic()
    with pytest.raises(ValueError, match="must be asked of a problem with a constraint"):
        problem.limit(problem.start[:, None])
