"""Constraints: the known price is found, the plan obeys, the cost reported is the true one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from planners import CEM, AugmentedLagrangian, GradientDescent, Progress, optimize
from planners.wrappers import LagrangianState

from .known import constrained

SGD = GradientDescent(partial(torch.optim.SGD, lr=0.02))


@pytest.mark.parametrize(
    ("method", "every", "rounds", "error"),
    [
        (CEM(), 15, 8, 0.01),
        (SGD, 30, 6, 1e-3),
        (GradientDescent(), 10, 12, 0.05),
        (GradientDescent(num_restarts=4), 15, 8, 0.02),
    ],
)
def test_the_known_multiplier_is_found(method: CEM, every: int, rounds: int, error: float) -> None:
    """λ converges to the price of the constraint, and the plan to the constrained minimiser."""
    problem = constrained()
    states: list[LagrangianState] = []

    def watch(progress: Progress) -> None:
        assert isinstance(progress.state, LagrangianState)
        states.append(progress.state)

    wrapped = AugmentedLagrangian(method, problem.limit, every=every)
    plan = optimize(wrapped, problem.cost, problem.start, iterations=every * rounds, callback=watch)
    assert problem.multiplier is not None
    assert (states[-1].multiplier - problem.multiplier).abs().max() < error
    assert (plan.actions - problem.minimiser).abs().max() < 0.02
    assert problem.limit(plan.actions[:, None]).max() <= wrapped.tolerance
    assert states[-1].violation.max() == 0
    torch.testing.assert_close(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


def test_a_constraint_that_does_not_bind_costs_nothing() -> None:
    """With slack everywhere λ stays 0 and the plan is the unconstrained one."""
    problem = constrained()
    states: list[Progress] = []

    def slack(candidates: Tensor) -> Tensor:
        return problem.limit(candidates) - 100

    wrapped = AugmentedLagrangian(CEM(), slack, every=10)
    plan = optimize(wrapped, problem.cost, problem.start, iterations=30, callback=states.append)
    assert isinstance(states[-1].state, LagrangianState)
    assert states[-1].state.multiplier.abs().max() == 0
    assert plan.cost.max() < 1e-6


def test_without_a_feasible_candidate_the_least_violation_is_returned() -> None:
    """If nothing can satisfy c ≤ 0 the plan breaks it least, and the state says by how much."""
    states: list[Progress] = []

    def impossible(candidates: Tensor) -> Tensor:
        return (candidates.square().sum((-1, -2)) + 0.5).unsqueeze(-1)

    wrapped = AugmentedLagrangian(CEM(), impossible, every=10)
    plan = optimize(
        wrapped,
        lambda a: (a - 1).square().sum((-1, -2)),
        torch.ones(1, 1, 2),
        iterations=60,
        callback=states.append,
    )
    assert isinstance(states[-1].state, LagrangianState)
    assert states[-1].state.violation.item() == pytest.approx(0.5, abs=0.02)
    assert plan.actions.abs().max() < 0.15


def test_several_constraints_have_a_price_each() -> None:
    """min |a − (1, 1)|² with a₁ ≤ 0 and a₂ ≤ 1/2 costs 2 and 1 per unit."""
    states: list[Progress] = []

    def limits(candidates: Tensor) -> Tensor:
        return candidates[:, :, 0] - torch.tensor([0.0, 0.5])

    steep = GradientDescent(partial(torch.optim.SGD, lr=0.08))
    wrapped = AugmentedLagrangian(steep, limits, every=15)
    plan = optimize(
        wrapped,
        lambda a: (a - 1).square().sum((-1, -2)),
        torch.zeros(1, 1, 2),
        iterations=120,
        callback=states.append,
    )
    torch.testing.assert_close(plan.actions.flatten(), torch.tensor([0.0, 0.5]), atol=2e-3, rtol=0)
    assert isinstance(states[-1].state, LagrangianState)
    torch.testing.assert_close(
        states[-1].state.multiplier[0], torch.tensor([2.0, 1.0]), atol=1e-3, rtol=0
    )


def test_a_gradient_method_goes_on_and_a_sampling_method_starts_anew() -> None:
    """At an update CEM gets its spread back; Adam keeps counting its steps."""
    problem = constrained()
    states: list[Progress] = []
    for method in (CEM(), GradientDescent()):
        wrapped = AugmentedLagrangian(method, problem.limit, every=4)
        optimize(wrapped, problem.cost, problem.start, iterations=4, callback=states.append)
    anew, on = (progress.state for progress in (states[3], states[7]))
    assert isinstance(anew, LagrangianState)
    assert isinstance(on, LagrangianState)
    assert (anew.since, on.since) == (4, 0)
    assert (anew.inner.spread == 1).all()
    assert on.inner.memory["step"] == 4


def test_the_penalty_grows_only_where_a_constraint_stays_broken() -> None:
    """ρ doubles when two updates in a row leave c broken by more than half, and not by one."""
    states: list[LagrangianState] = []

    def watch(progress: Progress) -> None:
        assert isinstance(progress.state, LagrangianState)
        states.append(progress.state)

    # Problem 0 can never satisfy c, problem 1 always does.
    def limit(candidates: Tensor) -> Tensor:
        c = torch.tensor([1.0, -1.0])[:, None, None]
        return c.expand(-1, candidates.shape[1], -1)

    wrapped = AugmentedLagrangian(CEM(20, 5), limit, every=2, growth=3.0)
    optimize(
        wrapped,
        lambda a: a.square().sum((-1, -2)),
        torch.zeros(2, 1, 1),
        iterations=8,
        callback=watch,
    )
    seen = torch.stack([state.penalty for state in states[1::2]])
    assert torch.equal(seen[:, 0], 10 * torch.tensor([1.0, 3.0, 9.0, 27.0]))
    assert torch.equal(seen[:, 1], torch.full((4,), 10.0))


def test_candidates_without_a_value_are_broken() -> None:
    """A constraint that is NaN counts as violated: such a candidate is never the plan."""

    def cost(candidates: Tensor) -> Tensor:
        return (candidates - 1).square().sum((-1, -2))

    def limit(candidates: Tensor) -> Tensor:
        first = candidates[..., 0, 0]
        return torch.where(first > 0.2, torch.nan, first - 9).unsqueeze(-1)

    plan = optimize(
        AugmentedLagrangian(CEM(), limit, every=10), cost, torch.zeros(2, 1, 1), iterations=30
    )
    assert plan.actions.max() <= 0.2
    assert plan.actions.min() > 0.1


def test_wrong_settings_are_named() -> None:
    """Values outside their range, and a constraint of another shape, say so."""
    problem = constrained()
    for name, value in (("every", 0), ("penalty", 0.0), ("growth", 0.5), ("tolerance", -1.0)):
        with pytest.raises(ValueError, match=name):
            AugmentedLagrangian(CEM(), problem.limit, **{name: value})  # type: ignore[arg-type]
    flat = AugmentedLagrangian(CEM(), problem.cost)
    with pytest.raises(ValueError, match=r"constraint must map .* got \[8, 300\]"):
        optimize(flat, problem.cost, problem.start, iterations=1)
