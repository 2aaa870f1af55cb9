"""Goals drawn for steps: OGBench's shares and rewards, the future alone, no past actions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.transitions import Recipe, Transitions, draw

SINGLE = Recipe()


def episodes(E: int = 6, T: int = 9) -> tuple[Tensor, Tensor]:
    """Embeddings (episode, time, 1) and actions (episode, time): every number says where it is."""
    e, t = torch.meshgrid(torch.arange(E), torch.arange(T), indexing="ij")
    z = torch.stack([e, t, torch.ones_like(e)], -1).float()
    return z, z[:, :-1, :2].clone()


def drawn(num: int = 20000, recipe: Recipe = SINGLE, seed: int = 0) -> Transitions:
    """Many steps of `episodes`."""
    return draw(*episodes(), num, recipe, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_step_is_what_was_done_from_there(chunk: int) -> None:
    """Actions t … t + n − 1 of the same episode lead from s_t to s_{t+n}."""
    batch = drawn(recipe=Recipe(chunk=chunk))
    (e, t), block = batch.z[:, :2].T, torch.arange(chunk)
    assert torch.equal(batch.actions[..., 0], e[:, None].expand(-1, chunk))
    assert torch.equal(batch.actions[..., 1], t[:, None] + block)
    assert torch.equal(batch.following[:, 1], t + chunk)


def test_no_action_before_the_step_is_drawn() -> None:
    """Whatever was done earlier, a batch is the same to the last bit: policies cannot copy it."""
    z, actions = episodes()
    generator = torch.Generator().manual_seed(0)
    first = draw(z, actions, 500, Recipe(chunk=2), generator)
    for row in range(0, 500, 25):
        e, t = int(first.z[row, 0]), int(first.z[row, 1])
        changed = actions.clone()
        changed[e, :t] = torch.nan
        changed[:e] = changed[e + 1 :] = torch.nan
        again = draw(z, changed, 500, Recipe(chunk=2), torch.Generator().manual_seed(0))
        for name in Transitions._fields:
            assert torch.equal(getattr(again, name)[row], getattr(first, name)[row]), name


def test_policy_goals_lie_in_the_future_of_the_same_episode() -> None:
    """By default all of them do, uniformly, the ends half as often, as OGBench rounds."""
    batch = drawn()
    assert torch.equal(batch.goal[:, 0], batch.z[:, 0])
    assert (batch.goal[:, 1] > batch.z[:, 1]).all()
    assert torch.equal(batch.until, (batch.goal - batch.z)[:, 1].long())
    first = batch.until[batch.z[:, 1] == 0]
    share = first.bincount(minlength=9) / len(first)
    expected = torch.tensor([0, 0.5, 1, 1, 1, 1, 1, 1, 0.5]) / 7
    torch.testing.assert_close(share, expected, atol=0.025, rtol=0)


def test_value_goals_have_ogbenchs_shares() -> None:
    """A fifth is the state itself, half lies geometrically ahead, the rest anywhere."""
    batch = drawn(recipe=Recipe(discount=0.8))
    apart = batch.value_goal - batch.z
    here = (apart[:, :2] == 0).all(-1).float().mean()
    assert abs(here - (0.2 + 0.3 / 48)) < 0.01
    elsewhere = (apart[:, 0] != 0).float().mean()
    assert abs(elsewhere - 0.3 * 5 / 6) < 0.01
    ahead = apart[(apart[:, 0] == 0) & (apart[:, 1] > 0) & (batch.z[:, 1] == 0), 1]
    ratio = (ahead == 2).float().sum() / (ahead == 1).float().sum()
    # Random goals of the same episode thin the ratio of .8 out a little.
    assert abs(ratio - (0.5 * 0.16 + 0.3 / 48) / (0.5 * 0.2 + 0.3 / 48)) < 0.06
    # None is the last state of another episode: nothing was done from there.
    assert batch.value_goal[apart[:, 0] != 0, 1].max() == 7


def test_the_goal_is_reached_by_index_not_by_likeness() -> None:
    """With all embeddings equal only a goal at the very same step ends the count."""
    z, actions = episodes()
    same = draw(z * 0, actions, 20000, Recipe(), torch.Generator().manual_seed(0))
    true = drawn()
    here = (true.value_goal == true.z).all(-1)
    assert torch.equal(same.reward, torch.where(here, 0.0, -1.0))
    assert torch.equal(same.discount, torch.where(here, 0.0, 0.99).to(z))


def test_a_chunk_counts_blocks_until_the_goal() -> None:
    """Over n blocks reward and discount are those of n single steps that stop at the goal."""
    γ = 0.9
    batch = drawn(recipe=Recipe(chunk=3, discount=γ))
    apart = (batch.value_goal - batch.z)[:, 1]
    within = (batch.value_goal[:, 0] == batch.z[:, 0]) & (apart >= 0)
    for d in range(5):
        rows = within & (apart == d)
        assert rows.any()
        reward = -float(sum(γ**i for i in range(min(d, 3))))
        torch.testing.assert_close(batch.reward[rows], torch.full((int(rows.sum()),), reward))
        left = 0.0 if d < 3 else γ**3
        torch.testing.assert_close(batch.discount[rows], torch.full((int(rows.sum()),), left))
    assert (batch.discount[~within] > 0).all()


def test_subgoals_lie_ahead_but_not_beyond() -> None:
    """The high policy's target stops at its goal, the low one's goal at the end of the episode."""
    batch = drawn(recipe=Recipe(ahead=4))
    t, g = batch.z[:, 1], batch.goal[:, 1]
    assert torch.equal(batch.subgoal[:, 1], torch.minimum(t + 4, g))
    assert torch.equal(batch.low_goal[:, 1], (t + 4).clamp_max(8))


def test_a_seed_is_a_batch_and_another_seed_another() -> None:
    """Nothing is drawn from the global generator; two workers with two seeds see other goals."""
    torch.manual_seed(1)
    first = drawn(100, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first.goal, drawn(100, seed=3).goal)
    assert not torch.equal(first.goal, drawn(100, seed=4).goal)


def test_random_policy_goals_are_there_to_be_asked_for() -> None:
    """A share of them comes from anywhere."""
    batch = drawn(recipe=Recipe(random=0.4))
    away = (batch.goal[:, 0] != batch.z[:, 0]).float().mean()
    assert abs(away - 0.4 * 5 / 6) < 0.02


def test_shapes_that_disagree_are_named() -> None:
    """One action too many, or episodes as short as a chunk, are an error."""
    z, actions = episodes()
    generator = torch.Generator()
    for bad, recipe in ((z[:, :-1], Recipe()), (z, Recipe(chunk=9))):
        with pytest.raises(ValueError, match=r"z and actions must be \[E, T, D\]"):
            draw(bad, actions, 4, recipe, generator)
