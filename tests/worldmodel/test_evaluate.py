"""Evaluation: pairs that are fair, successes that are counted, intervals that are known."""

from __future__ import annotations

import numpy as np
import pytest

from worldmodel.apps.evaluate import RandomPolicy, attempt, make_pairs
from worldmodel.apps.evaluate.manifest import Pairs
from worldmodel.apps.evaluate.policies import Actor, ExpertPolicy, IdlePolicy, Scene, Task
from worldmodel.worlds import TwoRoom, collect

WORLD = TwoRoom(16)


class Down:
    """Full speed along y, eight units a step, in blocks."""

    def __init__(self, block: int = 1) -> None:
        self.block = block

    def begin(self, task: Task) -> Actor:
        """The same actions whatever is seen."""
        actions = np.zeros((len(task.goals), self.block, 2), np.float32)
        actions[..., 1] = 1
        return lambda _: actions


def line(num: int, distance: float) -> Pairs:
    """Goals straight below their starts, `distance` world units away."""
    starts = np.full((num, 2), 40, np.float32)
    nowhere = np.zeros(num, np.int64)
    return Pairs(starts, starts + np.asarray([0, distance], np.float32), nowhere, nowhere, 0)


def acts(policy: RandomPolicy, seeds: np.ndarray) -> np.ndarray:
    """The first actions of a policy for pairs with these seeds."""
    states = np.zeros((len(seeds), 2), np.float32)
    actor = policy.begin(Task(WORLD, states, seeds))
    return actor(Scene(states, lambda _=0: WORLD.draw(states)))


def test_pairs_lie_offset_steps_apart_in_one_held_out_episode() -> None:
    """Every start is a state of the walks, its goal the state `offset` steps later."""
    walks = collect(WORLD, 8, 40, seed=1)
    pairs = make_pairs(WORLD, list(walks.states), 50, offset=25, seed=2)
    assert np.array_equal(pairs.starts, walks.states[pairs.episodes, pairs.rows])
    assert np.array_equal(pairs.goals, walks.states[pairs.episodes, pairs.rows + 25])


def test_pairs_stay_inside_episodes_of_any_length() -> None:
    """Of uneven episodes every pair of rows `offset` apart can be drawn, and no other."""
    lengths = [4, 2, 7, 3]
    episodes = [np.stack([np.full(n, 9 * e), np.arange(n)], -1) for e, n in enumerate(lengths)]
    pairs = make_pairs(WORLD, episodes, 5, offset=3, seed=0, protocol="published")
    drawn = sorted(zip(pairs.episodes.tolist(), pairs.rows.tolist(), strict=True))
    assert drawn == [(0, 0), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert pairs.dropped == 0


def test_no_pair_is_solved_and_none_is_drawn_twice() -> None:
    """All pairs are outside the success radius, and asking for all of them gives each once."""
    walks = collect(WORLD, 8, 40, seed=1)
    every = (walks.states[:, :16].reshape(-1, 2), walks.states[:, 25:].reshape(-1, 2))
    open_ = int((~WORLD.success(*every)).sum())
    pairs = make_pairs(WORLD, list(walks.states), open_, offset=25, seed=2)
    assert not WORLD.success(pairs.starts, pairs.goals).any()
    both = np.concatenate([pairs.starts, pairs.goals], axis=1)
    assert len(np.unique(both, axis=0)) == len(both) == open_
    with pytest.raises(ValueError, match=rf"at most the {open_} unsolved pairs, got {open_ + 1}"):
        make_pairs(WORLD, list(walks.states), open_ + 1, offset=25, seed=2)


def test_dropped_counts_the_solved_pairs_drawn_on_the_way() -> None:
    """Where half of all pairs are solved, kept and dropped together are those drawn."""
    states = np.zeros((20, 3, 2), np.float32)
    states[::2, 2, 0] = 100
    order = np.random.default_rng(3).permutation(20)
    last = np.flatnonzero(order % 2 == 0)[6]
    assert make_pairs(WORLD, list(states), 7, offset=2, seed=3).dropped == last + 1 - 7 > 0


def test_pairs_are_a_function_of_the_seed() -> None:
    """The same seed draws the same pairs, another one others."""
    walks = collect(WORLD, 8, 40, seed=1)
    one, two, other = (make_pairs(WORLD, list(walks.states), 20, seed=s) for s in (2, 2, 3))
    assert np.array_equal(one.starts, two.starts)
    assert not np.array_equal(one.starts, other.starts)


def test_an_offset_beyond_the_episode_is_refused() -> None:
    """The message holds the number of states and the offset."""
    with pytest.raises(ValueError, match=r"longest episode's 11 states, .* got 11"):
        make_pairs(WORLD, list(collect(WORLD, 2, 10, seed=0).states), 1, offset=11, seed=0)


@pytest.mark.parametrize(("distance", "steps"), [(17, 1), (31, 2), (33, 3), (95, 10), (97, None)])
def test_success_counts_at_any_step_and_at_the_last_of_the_budget(
    distance: float, steps: int | None
) -> None:
    """At eight units a step and a radius of 16, the first step within it is known."""
    outcome = attempt(WORLD, line(3, distance), Down(), budget=10)
    assert outcome.success.tolist() == [steps is not None] * 3
    assert outcome.steps.tolist() == [steps or 10] * 3


def test_a_policy_that_overshoots_has_still_reached_the_goal() -> None:
    """Success is being there after some step, not staying."""
    outcome = attempt(WORLD, line(1, 24), Down(), budget=15)
    assert outcome.success.all()
    assert not outcome.at_end.any()
    assert outcome.distance[0] == 15 * 8 - 24


@pytest.mark.parametrize("block", [1, 3, 5, 20])
def test_blocks_are_cut_at_the_budget(block: int) -> None:
    """Paths hold budget + 1 states, from as many decisions as blocks fit into the budget."""
    outcome = attempt(WORLD, line(2, 60), Down(block), budget=7)
    assert outcome.paths.shape == (2, 8, 2)
    assert len(outcome.seconds) == -(-7 // block)
    np.testing.assert_allclose(outcome.paths[0, :, 1], 40 + 8.0 * np.arange(8))


def test_random_actions_fill_the_box_and_belong_to_their_pair() -> None:
    """Uniform on [−1, 1]²; a pair's actions depend on its own seed alone."""
    seeds = np.arange(5000)
    drawn = acts(RandomPolicy(), seeds)
    assert drawn.shape == (5000, 1, 2)
    assert np.abs(drawn).max() <= 1
    np.testing.assert_allclose(drawn.mean((0, 1)), 0, atol=0.03)
    np.testing.assert_allclose(drawn.var((0, 1)), 1 / 3, atol=0.02)
    some = np.asarray([7, 4000, 3])
    assert np.array_equal(acts(RandomPolicy(), some), drawn[some])


def test_doing_nothing_stays_and_the_expert_arrives() -> None:
    """The no-op policy leaves every state as it is; the expert solves every pair."""
    pairs = make_pairs(WORLD, list(collect(WORLD, 8, 40, seed=1).states), 20, offset=25, seed=2)
    idle = attempt(WORLD, pairs, IdlePolicy(), budget=5)
    assert (idle.paths == idle.paths[:, :1]).all()
    assert not idle.success.any()
    assert attempt(WORLD, pairs, ExpertPolicy(), budget=50).at_end.all()


def test_a_world_without_an_expert_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the expert where nobody wrote one is an error that names the world."""
    world = TwoRoom(16)
    monkeypatch.setattr(world, "expert", lambda goals: None)
    with pytest.raises(ValueError, match="two-room has no scripted expert"):
        attempt(world, line(1, 30), ExpertPolicy(), budget=1)


def test_actions_of_another_shape_are_refused() -> None:
    """A policy that forgets the block dimension is told what its actions must be."""

    class Flat:
        def begin(self, task: Task) -> Actor:
            return lambda scene: np.zeros((len(task.goals), 2), np.float32)

    with pytest.raises(ValueError, match=r"must be \[3, steps, 2\], got \[3, 2\]"):
        attempt(WORLD, line(3, 30), Flat(), budget=1)


def test_a_block_of_no_actions_is_refused() -> None:
    """A policy that decides nothing would never reach the end of its budget."""
    with pytest.raises(ValueError, match=r"must be \[2, steps, 2\], got \[2, 0, 2\]"):
        attempt(WORLD, line(2, 30), Down(block=0), budget=1)
