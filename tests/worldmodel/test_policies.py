"""Policies that propose: several modes, chunks up to the goal, recorded ways, imagination."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel import GCBC, presets
from worldmodel.learning import learn
from worldmodel.policies import Actor, Policy, retrieve, unroll
from worldmodel.transitions import Recipe, draw


def doors(E: int = 256) -> tuple[Tensor, Tensor]:
    """Walks through a wall by a door at height 1 or one at −1, half of them each, chunk of two."""
    side = torch.where(torch.arange(E) % 2 == 0, 1.0, -1.0)
    middle = torch.stack([torch.ones(E), side], -1)
    z = torch.stack([torch.zeros(E, 2), middle, torch.tensor([2.0, 0.0]).expand(E, 2)], 1)
    return z, z.diff(dim=1)


def test_a_mean_runs_into_the_wall_and_modes_go_through_both_doors() -> None:
    """Between two doors one Gaussian goes straight on; of four each goes through a door."""
    z, actions = doors()
    here, there = z[:1, 0], z[:1, 2]
    config = {"steps": 400, "batch": 256, "rate": 3e-3, "hidden": (64, 64), "chunk": 2}
    one = learn(Policy, z, actions, modes=1, **config)(here, there)
    assert one[0, 0, 0, 1].abs() < 0.3
    several = learn(Policy, z, actions, modes=4, **config)(here, there)
    heights = several[0, :2, 0, 1]
    torch.testing.assert_close(heights.sort().values, torch.tensor([-1.0, 1.0]), atol=0.1, rtol=0)
    # What goes up comes down again: a mode is a whole chunk.
    torch.testing.assert_close(several[0, :2, 1, 1], -heights, atol=0.1, rtol=0)


def test_one_mode_is_squared_error() -> None:
    """With K = 1 the likelihood is −½ Σ (a − μ)², as OGBench's actor of σ = 1."""
    actor = Actor(3, 2, Recipe(chunk=2, hidden=(8,)))
    x, actions = torch.randn(5, 3), torch.randn(5, 2, 2)
    expected = -(actor(x)[0][:, 0] - actions).square().sum((1, 2)) / 2
    torch.testing.assert_close(actor.log_likelihood(x, actions), expected)


def test_a_mixture_is_a_density() -> None:
    """p(a | x) of one number integrates to 1 up to the constant that is left out."""
    actor = Actor(2, 1, Recipe(modes=3, hidden=(8,)))
    actor.log_std.data.fill_(-0.7)
    grid = torch.linspace(-8, 8, 4001)
    log_p = actor.log_likelihood(torch.ones(4001, 2), grid.view(-1, 1, 1))
    mass = torch.trapezoid(log_p.exp(), grid) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(mass, torch.tensor(1.0), atol=1e-4, rtol=0)


def test_blocks_after_the_goal_do_not_count() -> None:
    """What was done once the goal was reached leads elsewhere, and changes no loss."""
    z, actions = torch.randn(4, 9, 3), torch.randn(4, 8, 2)
    policy = Policy(3, 2, Recipe(chunk=4, modes=2, hidden=(16,)))
    batch = draw(z, actions, 200, Recipe(chunk=4), torch.Generator().manual_seed(0))
    late = torch.arange(4) >= batch.until[:, None]
    assert late.any()
    other = torch.where(late[..., None], 1e6, batch.actions)
    torch.testing.assert_close(policy.loss(batch), policy.loss(batch._replace(actions=other)))


def test_the_likeliest_mode_comes_first() -> None:
    """Proposals are ordered by weight: the first alone is the deterministic policy."""
    actor = Actor(2, 1, Recipe(modes=4, hidden=(8,)))
    x = torch.randn(6, 2)
    means, weights = actor(x)
    assert torch.equal(actor.ranked(x)[:, 0], means[torch.arange(6), weights.argmax(-1)])


def test_a_policy_acts_in_imagination_where_its_chunk_ends() -> None:
    """On a line z + a, steps of half the rest of the way are unrolled until the horizon."""

    def decide(z: Tensor, g: Tensor) -> Tensor:
        half = ((g - z) / 2)[:, None, None]
        return torch.cat([half, -half], 1)

    plans = unroll(decide, lambda z, a: z + a.sum(1), torch.zeros(1, 1), torch.ones(1, 1), 3)
    expected = torch.tensor([[0.5, 0.25, 0.125], [-0.5, 0.75, 0.375]])
    torch.testing.assert_close(plans[0, :, :, 0], expected)


def test_a_cloned_policy_on_the_models_encoder_proposes_too() -> None:
    """Its first block is its answer to the embeddings seen now, the next to what is imagined."""
    model = presets.small(action_dim=4).eval()
    gcbc = GCBC(model.encoder, presets.small(action_dim=4).predictor, 4).eval()
    z, goal = torch.randn(3, 64), torch.randn(3, 64)

    def decide(z: Tensor, g: Tensor) -> Tensor:
        return gcbc.decide(torch.stack([z, g], 1))[:, None, None]

    def step(z: Tensor, actions: Tensor) -> Tensor:
        return model.rollout(z[:, None], actions)[:, -1]

    plans = unroll(decide, step, z, goal, 2)
    first = decide(z, goal)
    assert torch.equal(plans[:, :, :1], first)
    assert torch.equal(plans[:, :, 1:], decide(step(z, first[:, 0]), goal))


def test_what_was_done_on_the_same_way_is_found() -> None:
    """From a recorded embedding to a later one of the same episode, its actions are the first."""
    z = torch.randn(20, 12, 6)
    actions = torch.randn(20, 11, 2)
    now, goal = z[[3, 7], [2, 5]], z[[3, 7], [6, 8]]
    plans = retrieve(z, actions, now, goal, 4, 5)
    assert plans.shape == (2, 4, 5, 2)
    assert torch.equal(plans[0, 0], actions[3, 2:7])
    assert torch.equal(plans[1, 0], actions[7, 5:10])
    # A goal nine blocks on is seen with a longer reach, and then only.
    far = retrieve(z, actions, z[[3]][:, 0], z[[3]][:, 9], 1, 5, reach=9)
    assert torch.equal(far[0, 0], actions[3, :5])


def test_what_is_nearest_is_found_in_full_precision() -> None:
    """Embeddings in bfloat16, and autocast, rank as the same numbers in float32 do."""
    z, actions = torch.randn(20, 12, 6).bfloat16(), torch.randn(20, 11, 2)
    now, goal = (z.float() + 0.1).bfloat16()[:, 2], z[:, 5]
    wanted = retrieve(z.float(), actions, now.float(), goal.float(), 8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(retrieve(z.float(), actions, now.float(), goal.float(), 8, 5), wanted)
    assert torch.equal(retrieve(z, actions, now, goal, 8, 5), wanted)


def test_the_goal_is_looked_for_ahead_alone() -> None:
    """A recorded embedding that is the goal itself is no way to it: its past does not count."""
    z = torch.zeros(2, 7, 1)
    z[0], z[1, :, 0] = 5.0, torch.tensor([5.0, 4, 3, 2, 1, 0, 0])
    actions = torch.arange(12.0).view(2, 6, 1)
    plans = retrieve(z, actions, torch.tensor([[5.0]]), torch.tensor([[4.0]]), 1, 3)
    assert plans.flatten().tolist() == [6, 7, 8]
    # From 4 that episode goes down: being there is no way there, and the other one is nearer.
    plans = retrieve(z, actions, torch.tensor([[4.0]]), torch.tensor([[4.5]]), 1, 3)
    assert (plans < 6).all()


def test_modes_begin_apart() -> None:
    """Equal modes would learn the same for ever: their first means differ."""
    means, _ = Actor(2, 1, Recipe(modes=4, hidden=(8,)))(torch.zeros(1, 2))
    assert torch.pdist(means[0, :, 0]).min() > 0.01


def test_episodes_shorter_than_a_plan_are_named() -> None:
    """A plan of five blocks needs six embeddings."""
    with pytest.raises(ValueError, match=r"T > horizon = 5, got \[2, 5, 3\]"):
        retrieve(
            torch.zeros(2, 5, 3), torch.zeros(2, 4, 1), torch.zeros(1, 3), torch.zeros(1, 3), 1, 5
        )
