"""Planning as a policy: inside the box, repeatable, and blind to who stands beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from planners import Cost
from worldmodel import WorldModel, presets
from worldmodel.apps.evaluate import (
    PLANNERS,
    Imagined,
    Planner,
    PlannerPolicy,
    Scene,
    Task,
    planning,
)
from worldmodel.data import ActionScale
from worldmodel.worlds import TwoRoom

WORLD = TwoRoom(16)
SCALE = ActionScale(torch.tensor([0.1, -0.2]), torch.tensor([0.6, 0.5]))
RNG = np.random.default_rng(0)
STARTS, GOALS = WORLD.sample_states(RNG, 7), WORLD.sample_states(RNG, 7)
SEEDS = np.arange(7) + 40
TINY = Planner(samples=6, elites=3, iterations=2, horizon=2, together=4)


@pytest.fixture(scope="module")
def policy() -> PlannerPolicy:
    """A fresh model of 16-pixel frames behind a small search."""
    torch.manual_seed(0)
    model = presets.small(6, image_size=16, dim=8).eval()
    return PlannerPolicy(model, SCALE, frameskip=3, planner=TINY)


def two_decisions(policy: PlannerPolicy, which: list[int], planner: Planner) -> np.ndarray:
    """Actions of two decisions in a row for some of the pairs: [n, 2, steps, 2]."""
    policy = PlannerPolicy(policy.model, policy.scale, frameskip=3, planner=planner)
    states = STARTS[which]
    actor = policy.begin(Task(WORLD, GOALS[which], SEEDS[which]))
    return np.stack([actor(Scene(states, lambda: WORLD.draw(states))) for _ in range(2)], 1)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_depends_on_its_own_pair_alone(policy: PlannerPolicy, name: str) -> None:
    """One at a time, three at a time, all at once or in another order: the same bits."""
    planner = replace(TINY, name=name)
    whole = two_decisions(policy, list(range(7)), planner)
    for size in (1, 3):
        for first in range(0, 7, size):
            some = list(range(7))[first : first + size]
            assert np.array_equal(two_decisions(policy, some, planner), whole[some])
    mixed = [5, 0, 6, 2, 1, 4, 3]
    assert np.array_equal(two_decisions(policy, mixed, planner), whole[mixed])


@pytest.mark.parametrize("name", PLANNERS)
def test_actions_are_held_over_a_block_inside_the_box(policy: PlannerPolicy, name: str) -> None:
    """A held block is one raw action; every action lies in [−1, 1]; `execute` blocks come out."""
    actions = two_decisions(policy, [0, 1], replace(TINY, name=name, execute=2))
    assert actions.shape == (2, 2, 6, 2)
    assert (np.abs(actions) <= 1).all()
    blocks = actions.reshape(2, 2, 2, 3, 2)
    assert (blocks == blocks[..., :1, :]).all()


def test_a_free_block_moves_within_itself(policy: PlannerPolicy) -> None:
    """Searching every raw action gives blocks that are not constant, inside the box too."""
    actions = two_decisions(policy, [0, 1], replace(TINY, held=False))
    assert actions.shape == (2, 2, 3, 2)
    assert (actions != actions[:, :, :1]).any()
    assert (np.abs(actions) <= 1).all()


def test_seeds_decide(policy: PlannerPolicy) -> None:
    """Two pairs that differ in nothing but the seed are planned for differently."""
    states = np.repeat(STARTS[:1], 2, axis=0)
    task = Task(WORLD, np.repeat(GOALS[:1], 2, axis=0), np.asarray([1, 2]))
    actions = policy.begin(task)(Scene(states, lambda: WORLD.draw(states)))
    assert not np.array_equal(actions[0], actions[1])


def test_what_a_plan_expects_is_the_rollout_of_its_actions(policy: PlannerPolicy) -> None:
    """`on_plan` receives the model's own rollout of the chosen plan, beside the goal."""
    seen: list[Imagined] = []
    planner = replace(TINY, execute=2)
    watched = PlannerPolicy(policy.model, SCALE, frameskip=3, planner=planner, on_plan=seen.append)
    actor = watched.begin(Task(WORLD, GOALS, SEEDS))
    actions = actor(Scene(STARTS, lambda: WORLD.draw(STARTS)))
    blocks = SCALE.normalise(torch.from_numpy(actions).reshape(7, 2, 6))
    with torch.no_grad():
        z = policy.model.encode(torch.from_numpy(WORLD.draw(STARTS))[:, None])
        expected = policy.model.rollout(z, blocks)
        goal = policy.model.encode(torch.from_numpy(WORLD.draw(GOALS))[:, None])[:, 0]
    torch.testing.assert_close(seen[0].z, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen[0].goal, goal)
    assert not seen[0].last


def test_the_usual_settings_cost_the_same_number_of_rollouts() -> None:
    """Planners are compared at equal work: 384 rollouts a decision each."""
    for name in PLANNERS:
        samples, iterations = Planner(name).budget
        assert samples * iterations == 384


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"name": "magic"}, "planner must be one of cem, .*, got 'magic'"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"std": float("nan")}, "std must be positive and finite, got nan"),
        ({"execute": 6}, "execute must be at most horizon = 5, got 6"),
        ({"elites": 65}, r"num_elites must be an integer in \[2, 64\], got 65"),
    ],
)
def test_impossible_settings_are_refused(words: dict[str, object], part: str) -> None:
    """The message names the setting, the rule and what came."""
    with pytest.raises(ValueError, match=part):
        Planner(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("num", [1, 3, 4, 7])
def test_the_model_always_sees_as_many_problems_at_once(
    policy: PlannerPolicy, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding depends on how many stand in a call: whatever the batch, four do."""
    seen: list[int] = []
    plain = planning.goal_cost

    def counted(model: WorldModel, frames: Tensor, goal: Tensor, **words: Any) -> Cost:
        seen.extend((len(frames), len(goal)))
        cost = plain(model, frames, goal, **words)

        def one(plans: Tensor) -> Tensor:
            seen.append(len(plans))
            return cost(plans)

        return one

    monkeypatch.setattr(planning, "goal_cost", counted)
    two_decisions(policy, list(range(num)), TINY)
    assert set(seen) == {4}
