"""Receding horizon: shifting, executing, blocks, resets, and control that works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planners import CEM, ICEM, MPC, Bounds, PredictiveSampling, from_dynamics, split_blocks


def towards(goal: Tensor) -> Callable[[Tensor], Tensor]:
    """Cost whose minimiser is the sequence `goal` [B, H, A]."""

    def cost(candidates: Tensor) -> Tensor:
        return (candidates - goal.unsqueeze(1)).square().flatten(2).contiguous().sum(-1)

    return cost


GOAL = torch.tensor([[[0.1], [0.2], [0.3], [0.4]]])


@pytest.mark.parametrize(("tail", "last"), [("zero", 0.0), ("repeat", 0.4)])
def test_the_next_search_starts_from_the_shifted_plan(tail: str, last: float) -> None:
    """After k actions are executed the rest of the plan leads the next start, then the tail."""
    mpc = MPC(CEM(), horizon=4, action_dim=1, iterations=20, execute=3, tail=tail)  # type: ignore[arg-type]
    actions = mpc.act(towards(GOAL))
    torch.testing.assert_close(actions, GOAL[:, :3], atol=1e-3, rtol=0)
    expected = torch.tensor([[[0.4], [last], [last], [last]]])
    torch.testing.assert_close(mpc.start, expected, atol=1e-3, rtol=0)
    assert mpc.last is not None
    assert torch.equal(mpc.start[:, 0], mpc.last.actions[:, 3])


def test_blocks_become_environment_steps_in_order() -> None:
    """An action of 3 steps × 2 controls is handed out as three steps, first step first."""
    blocked = torch.arange(12.0).view(1, 2, 6)
    assert torch.equal(split_blocks(blocked, 3), torch.arange(12.0).view(1, 6, 2))
    goal = torch.linspace(-0.5, 0.5, 12).view(1, 2, 6)
    mpc = MPC(CEM(), horizon=2, action_dim=6, iterations=25, execute=2, block=3)
    torch.testing.assert_close(mpc.act(towards(goal)), goal.view(1, 6, 2), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="block must divide"):
        split_blocks(blocked, 4)


def test_actions_come_in_the_environments_units() -> None:
    """The model's action 1 is mean + std in the environment, and never beyond its box."""
    goal = torch.tensor([[[1.0, 9.0]]])
    bounds = Bounds(-1.0, 2.0, mean=[0.5, 0.5], std=[0.25, 0.5])
    mpc = MPC(CEM(init_std=2.0), horizon=1, action_dim=2, iterations=25, bounds=bounds)
    actions = mpc.act(towards(goal))
    torch.testing.assert_close(actions, torch.tensor([[[0.75, 2.0]]]), atol=1e-3, rtol=0)
    assert actions.max() <= 2.0
    assert mpc.last is not None
    torch.testing.assert_close(mpc.last.actions[0, 0, 1], torch.tensor(3.0))


def test_each_call_draws_anew_and_a_run_repeats() -> None:
    """Two calls use different noise; a second controller with the same seed repeats the first."""
    made = [
        MPC(PredictiveSampling(8), horizon=2, action_dim=2, iterations=1, seed=4) for _ in range(2)
    ]
    cost = towards(torch.full((1, 2, 2), 5.0))
    first = [made[0].act(cost) for _ in range(3)]
    again = made[0].act(cost, start=torch.zeros(1, 2, 2))
    assert not torch.equal(first[0], again)
    assert all(torch.equal(made[1].act(cost), action) for action in first)


@pytest.mark.parametrize("method", [CEM(16, 4), ICEM(20, 5)], ids=["CEM", "ICEM"])
def test_a_reset_problem_begins_anew_and_the_others_do_not_notice(method: CEM | ICEM) -> None:
    """After reset, problem 1 plans as a new controller would; problems 0 and 2 go on."""
    goal = torch.linspace(-1, 1, 12).view(3, 2, 2)
    seeds = torch.tensor([5, 6, 7])

    def make(index: list[int]) -> MPC[object]:  # type: ignore[type-var]
        return MPC(  # type: ignore[return-value]
            method,  # type: ignore[arg-type]
            horizon=2,
            action_dim=2,
            iterations=2,
            seed=seeds[index],
            batch=len(index),
        )

    whole, rest, new = make([0, 1, 2]), make([0, 2]), make([1])
    for _ in range(2):
        whole.act(towards(goal))
        rest.act(towards(goal[[0, 2]]))
    whole.reset(torch.tensor([False, True, False]))
    for _ in range(2):
        actions = whole.act(towards(goal))
        assert torch.equal(actions[[0, 2]], rest.act(towards(goal[[0, 2]])))
        assert torch.equal(actions[[1]], new.act(towards(goal[[1]])))


def test_a_full_reset_is_a_new_controller() -> None:
    """reset() without a mask forgets everything."""
    mpc = MPC(CEM(16, 4), horizon=4, action_dim=1, iterations=2)
    first = [mpc.act(towards(GOAL)) for _ in range(2)]
    mpc.reset()
    assert all(torch.equal(mpc.act(towards(GOAL)), action) for action in first)
    with pytest.raises(ValueError, match=r"done must be \[1\], got \[2\]"):
        mpc.reset(torch.tensor([True, False]))


def test_kept_elites_help_the_next_control_step() -> None:
    """The shifted elites of iCEM are among the candidates of the next call."""
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return towards(GOAL)(candidates)

    mpc = MPC(ICEM(40, 10), horizon=4, action_dim=1, iterations=3)
    mpc.act(cost)
    kept = seen[-1][0]
    elites = kept[towards(GOAL)(kept[None])[0].argsort()[:3]]
    mpc.act(cost)
    shifted = torch.cat([elites[:, 1:], elites[:, -1:]], 1)
    for elite in shifted:
        assert (seen[3][0] == elite).all(-1).all(-1).any()


def test_it_brings_a_mass_to_rest() -> None:
    """In closed loop a double integrator ends near 0, from 16 places at once."""
    torch.manual_seed(0)
    state = torch.randn(16, 2)

    def step(s: Tensor, a: Tensor) -> Tensor:
        return torch.stack([s[:, 0] + 0.2 * s[:, 1], s[:, 1] + 0.2 * a[:, 0]], 1)

    cost_from = from_dynamics(step, lambda s, a: s.square().sum(1) + 0.01 * a.square().sum(1))
    mpc = MPC(
        CEM(64, 8),
        horizon=10,
        action_dim=1,
        iterations=4,
        batch=16,
        bounds=Bounds(-3.0, 3.0),
        tail="repeat",
    )
    for _ in range(30):
        state = step(state, mpc.act(cost_from(state))[:, 0])
    assert state.norm(dim=1).max() < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"execute": 5}, r"execute must be an integer in \[1, 4\], got 5"),
        ({"execute": 0}, "execute"),
        ({"block": 2}, "block must divide action_dim = 1"),
        ({"tail": "ones"}, "tail"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, int], message: str) -> None:
    """A setting outside its range names itself."""
    given = {"horizon": 4, "action_dim": 1, "iterations": 1, **change}
    with pytest.raises(ValueError, match=message):
        MPC(CEM(), **given)  # type: ignore[arg-type]
