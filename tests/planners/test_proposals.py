"""Proposals: all are costed, the best is kept, none are averaged, other units are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from planners import CEM, MPC, Bounds, PredictiveSampling, Proposals, optimize
from planners.noise import Noise

from .known import two_basins


def doors(actions: Tensor) -> Tensor:
    """Two doors at ±1 and a wall between them: [B, S, 1, 1] -> [B, S]."""
    at = actions[:, :, 0, 0]
    return torch.where((at.abs() - 1).abs() < 0.3, (at.abs() - 1).abs(), 10 - 0 * at)


THROUGH = torch.tensor([[-1.0, 1.0]]).view(1, 2, 1, 1)


def test_every_proposal_is_costed_once_and_the_cheapest_is_the_plan() -> None:
    """Without a method the only call holds the start and the proposals, and their best is taken."""
    problem, seen = two_basins(3), []
    plans = torch.randn(3, 7, 2, 1)

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return problem.cost(actions)

    plan = optimize(Proposals(None, plans), cost, problem.start, iterations=1)
    (asked,) = seen
    assert torch.equal(asked, torch.cat([problem.start[:, None], plans], 1))
    assert torch.equal(plan.cost, problem.cost(asked).amin(1))
    assert torch.equal(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


@pytest.mark.parametrize("method", [None, CEM(16, 4, init_std=0.05, min_std=0.05)])
def test_two_doors_are_never_averaged(method: Any) -> None:
    """Of plans through either door one is taken, whose mean would run into the wall."""
    start = torch.zeros(1, 1, 1)
    plan = optimize(Proposals(method, THROUGH), doors, start, iterations=4)
    assert doors(plan.actions[:, None]).item() < 0.1
    assert doors(THROUGH.mean(1, keepdim=True)).item() == 10


@pytest.mark.parametrize("seed", range(5))
def test_a_policy_that_is_right_is_not_wrecked(seed: int) -> None:
    """A wide, greedy refinement of the exact minimiser gives back the exact minimiser."""
    problem = two_basins(4)
    right = problem.minimiser[:, None]
    wild = CEM(8, 2, init_std=5.0)
    plan = optimize(Proposals(wild, right), problem.cost, problem.start, iterations=5, seed=seed)
    assert torch.equal(plan.actions, problem.minimiser)
    wrecked = optimize(wild, problem.cost, problem.minimiser, iterations=5, seed=seed)
    assert problem.regret(wrecked.actions).max() > 0.01


def test_refinement_improves_and_never_costs_more_than_the_best_proposal() -> None:
    """From proposals off the minimum the plan is cheaper than each of them, in every problem."""
    problem = two_basins(8)
    plans = 0.7 * torch.stack([problem.minimiser, -problem.minimiser], 1)
    best = problem.cost(plans).amin(1)
    method = CEM(32, 6, init_std=0.2, min_std=0.05)
    plan = optimize(Proposals(method, plans), problem.cost, problem.start, iterations=4)
    assert (plan.cost < best).all()
    assert (plan.history.diff(dim=0) <= 0).all()


def test_wrong_units_are_refused() -> None:
    """Pixels where standardised actions belong are an error; a little beyond the edge is not."""
    bounds = Bounds(-1.0, 1.0, std=0.5)  # ±2 in planning units
    edge = torch.full((1, 5, 3, 2), 2.0).nextafter(torch.tensor(9.0))  # recorded at full speed
    Proposals(None, edge, bounds)
    plans = torch.randn(1, 50, 3, 2)
    Proposals(None, plans, bounds)
    for wrong in (100 * plans, plans + 10, plans * torch.nan):
        with pytest.raises(ValueError, match=r"inside \[-2.0, -2.0\] to \[2.0, 2.0\]: .* converts"):
            Proposals(None, wrong, bounds)
        later = Proposals(None, lambda plan, noise, wrong=wrong: wrong, bounds)
        with pytest.raises(ValueError, match="planning units"):
            optimize(later, doors, torch.zeros(1, 3, 2), iterations=1)


def test_wrong_shapes_and_kinds_are_named() -> None:
    """Another horizon, or something that is no source, is named with what came."""
    with pytest.raises(ValueError, match=r"candidates must be .* = \[1, P, 1, 1\], got .*4, 1"):
        optimize(
            Proposals(None, torch.zeros(1, 2, 4, 1)), doors, torch.zeros(1, 1, 1), iterations=1
        )
    with pytest.raises(TypeError, match="candidates must be an instance"):
        Proposals(None, 3)  # type: ignore[arg-type]


def test_sources_stand_side_by_side() -> None:
    """Plans, a function of the start and noise, and a method's first candidates, in their order."""
    start, seen = torch.full((2, 3, 1), 0.5), []

    def moved(plan: Tensor, noise: Noise) -> Tensor:
        return plan[:, None] + noise.uniform((2, 3, 1), lane=3)

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return actions.flatten(2).sum(-1)

    given = torch.ones(2, 1, 3, 1)
    sources = (given, moved, PredictiveSampling(4, 0.1))
    for _ in range(2):
        optimize(Proposals(None, sources), cost, start, iterations=1, seed=3)
    assert torch.equal(seen[0], seen[1])
    assert seen[0].shape == (2, 8, 3, 1)
    assert torch.equal(seen[0][:, 1:2], given)
    assert ((seen[0][:, 2:4] >= 0.5) & (seen[0][:, 2:4] <= 1.5)).all()
    assert torch.equal(seen[0][:, 4], start)


def test_a_controller_takes_new_proposals_every_step() -> None:
    """Under MPC each step has its own plans, and the rest of the last one stands among them."""
    mpc: MPC[Any] = MPC(Proposals(None), horizon=2, action_dim=1, iterations=1)
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions[0, :, :, 0].tolist())
        return -actions.flatten(2).sum(-1)

    for value in (3.0, 0.0):
        plans = torch.tensor([[[[value], [value + 1]]]])
        done = mpc.act(cost, method=Proposals(None, plans))
    assert seen == [[[0, 0], [3, 4]], [[4, 0], [0, 1]]]
    assert done.item() == 4
