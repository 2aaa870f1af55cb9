"""Evaluation: pairs that are fair, successes that are counted, intervals that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldmodel import presets
from worldmodel.apps.evaluate import (
    Pairs,
    PlannerPolicy,
    RandomPolicy,
    attempt,
    make_pairs,
    wilson,
)
from worldmodel.data import ActionScale
from worldmodel.worlds import TwoRoom, Walks, collect

WORLD = TwoRoom(16)


def line(num: int, distance: float) -> Pairs:
    """Goals straight below their starts, `distance` world units away."""
    starts = np.full((num, 2), 40, np.float32)
    return Pairs(starts, starts + np.asarray([0, distance], np.float32), dropped=0)


def down(states: np.ndarray, steps: int = 1) -> np.ndarray:
    """Full speed along y: eight units a step."""
    actions = np.zeros((len(states), steps, 2), np.float32)
    actions[..., 1] = 1
    return actions


def test_pairs_lie_offset_steps_apart_in_one_held_out_episode() -> None:
    """Every start is a state of the walks, its goal the state `offset` steps later."""
    walks = collect(WORLD, 8, 40, seed=1)
    pairs = make_pairs(WORLD, walks, 50, offset=25, seed=2)
    for start, goal in zip(pairs.starts, pairs.goals, strict=True):
        where = np.argwhere((walks.states == start).all(-1))
        later = [walks.states[e, t + 25] for e, t in where if t + 25 < 41]
        assert any((goal == state).all() for state in later)


def test_no_pair_is_solved_and_none_is_drawn_twice() -> None:
    """All pairs are outside the success radius, and asking for all of them gives each once."""
    walks = collect(WORLD, 8, 40, seed=1)
    every = (walks.states[:, :16].reshape(-1, 2), walks.states[:, 25:].reshape(-1, 2))
    open_ = int((~WORLD.success(*every)).sum())
    pairs = make_pairs(WORLD, walks, open_, offset=25, seed=2)
    assert not WORLD.success(pairs.starts, pairs.goals).any()
    both = np.concatenate([pairs.starts, pairs.goals], axis=1)
    assert len(np.unique(both, axis=0)) == len(both) == open_
    with pytest.raises(ValueError, match=rf"at most the {open_} unsolved pairs, got {open_ + 1}"):
        make_pairs(WORLD, walks, open_ + 1, offset=25, seed=2)


def test_dropped_counts_the_solved_pairs_drawn_on_the_way() -> None:
    """Where half of all pairs are solved, kept and dropped together are those drawn."""
    states = np.zeros((20, 3, 2), np.float32)
    states[::2, 2, 0] = 100
    walks = Walks(states, np.zeros((20, 2, 2), np.float32))
    order = np.random.default_rng(3).permutation(20)
    last = np.flatnonzero(order % 2 == 0)[6]
    assert make_pairs(WORLD, walks, 7, offset=2, seed=3).dropped == last + 1 - 7 > 0


def test_pairs_are_a_function_of_the_seed() -> None:
    """The same seed draws the same pairs, another one others."""
    walks = collect(WORLD, 8, 40, seed=1)
    one, two, other = (make_pairs(WORLD, walks, 20, seed=s) for s in (2, 2, 3))
    assert np.array_equal(one.starts, two.starts)
    assert not np.array_equal(one.starts, other.starts)


def test_an_offset_beyond_the_episode_is_refused() -> None:
    """The message holds the number of states and the offset."""
    with pytest.raises(ValueError, match="offset must be below the episode's 11 states, got 11"):
        make_pairs(WORLD, collect(WORLD, 2, 10, seed=0), 1, offset=11, seed=0)


@pytest.mark.parametrize(("distance", "steps"), [(17, 1), (31, 2), (33, 3), (95, 10), (97, None)])
def test_success_counts_at_any_step_and_at_the_last_of_the_budget(
    distance: float, steps: int | None
) -> None:
    """At eight units a step and a radius of 16, the first step within it is known."""
    outcome = attempt(WORLD, line(3, distance), down, budget=10)
    assert outcome.success.tolist() == [steps is not None] * 3
    assert outcome.steps.tolist() == [steps or 10] * 3


def test_a_policy_that_overshoots_has_still_reached_the_goal() -> None:
    """Success is being there after some step, not staying."""
    outcome = attempt(WORLD, line(1, 24), down, budget=15)
    assert outcome.success.all()
    assert not WORLD.success(outcome.paths[:, -1], line(1, 24).goals).any()


@pytest.mark.parametrize("block", [1, 3, 5, 20])
def test_blocks_are_cut_at_the_budget(block: int) -> None:
    """Paths hold budget + 1 states, and `on_steps` counts up to the budget, whatever the block."""
    counted: list[int] = []
    outcome = attempt(
        WORLD, line(2, 60), lambda s: down(s, block), budget=7, on_steps=counted.append
    )
    assert outcome.paths.shape == (2, 8, 2)
    assert sum(counted) == 7
    np.testing.assert_allclose(outcome.paths[0, :, 1], 40 + 8.0 * np.arange(8))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (85, 100, 0.76717, 0.90694),
     (1, 2, 0.09453, 0.90547)],
)  # fmt: skip
def test_wilson_interval_equals_known_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    """Tabulated bounds at 95 %; at the ends they are z²/(n + z²) wide."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=2e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_bounds_solve_the_score_equation(trials: int, data: st.DataObject) -> None:
    """At each bound p, |rate − p| is z standard deviations of a proportion p; failures mirror."""
    successes = data.draw(st.integers(0, trials))
    rate = successes / trials
    low, high = wilson(successes, trials)
    for p in (low, high):
        assert (rate - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, abs=1e-9)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_random_policy_fills_the_box_and_repeats_with_its_seed() -> None:
    """Uniform on [−1, 1]²: mean 0, variance 1/3; the same seed acts the same."""
    states = np.zeros((5000, 2), np.float32)
    one, two, other = (RandomPolicy(seed)(states) for seed in (1, 1, 2))
    assert one.shape == (5000, 1, 2)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.abs(one).max() <= 1
    np.testing.assert_allclose(one.mean((0, 1)), 0, atol=0.03)
    np.testing.assert_allclose(one.var((0, 1)), 1 / 3, atol=0.02)


def test_planner_policy_holds_actions_within_the_box_and_repeats() -> None:
    """A block is one raw action held `frameskip` times, inside [−1, 1]; a seed decides it."""
    model, world = presets.small(6, image_size=16, dim=8).eval(), TwoRoom(16)
    walks = collect(world, 2, 10, seed=0)
    scale = ActionScale(
        mean=walks.actions.reshape(-1, 2).mean(0).tolist(),
        std=walks.actions.reshape(-1, 2).std(0).tolist(),
    )
    starts, goals = walks.states[:, 0], walks.states[:, -1]
    blocks = [
        PlannerPolicy(
            model, world, goals, scale, frameskip=3, horizon=2, num_samples=8, num_elites=2,
            iterations=2, seed=seed,
        )(starts)
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert blocks[0].shape == (2, 3, 2)
    assert (np.abs(blocks[0]) <= 1 + 1e-6).all()
    assert (blocks[0] == blocks[0][:, :1]).all()
    assert np.array_equal(blocks[0], blocks[1])
    assert not np.array_equal(blocks[0], blocks[2])
