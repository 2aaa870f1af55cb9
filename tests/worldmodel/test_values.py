"""Values and their policies: losses by hand, the chain whose distances are known, the traps."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from worldmodel.learning import learn
from worldmodel.policies import Actor, mlp
from worldmodel.transitions import Recipe, Transitions, draw
from worldmodel.values import GCIQL, GCIVL, HIQL, awr, expectile

HIDDEN = (32, 32)


def batch_of(learner: GCIVL | GCIQL | HIQL, num: int = 64) -> Transitions:
    """Random episodes' steps, as the learner wants them."""
    z, actions = torch.randn(5, 9, 4), torch.randn(5, 8, 2)
    return draw(z, actions, num, learner.recipe, torch.Generator().manual_seed(0))


def chain(E: int = 32, T: int = 6) -> tuple[Tensor, Tensor]:
    """Walks to the right on a line of T places, each with an embedding of its own."""
    places = torch.eye(T).expand(E, T, T) * 2
    return places, torch.ones(E, T - 1, 1)


def test_the_expectile_is_weighed_by_one_and_measured_by_the_other() -> None:
    """|κ − 1(adv < 0)| · difference², as OGBench separates them."""
    got = expectile(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([2.0, 2.0, -2.0]), 0.9)
    torch.testing.assert_close(got, torch.tensor([3.6, 0.4, 3.6]))


def test_gcivl_is_ogbenchs_loss_by_hand() -> None:
    """Twin values, each on its own slow copy; the weight is the slow copies' advantage."""
    learner = GCIVL(4, 2, replace(GCIVL.recipe, hidden=HIDDEN))
    for p in learner.slow.parameters():
        p.add_(0.3 * torch.randn_like(p))
    batch = batch_of(learner)
    v1, v2 = learner.value(learner.standard(batch.z, batch.value_goal))
    s1, s2 = learner.slow(learner.standard(batch.z, batch.value_goal))
    n1, n2 = learner.slow(learner.standard(batch.following, batch.value_goal))
    r, γ = batch.reward, batch.discount
    advantage = r + γ * torch.minimum(n1, n2) - (s1 + s2) / 2
    weight = torch.where(advantage >= 0, 0.9, 0.1)
    # The online values would weigh some rows the other way.
    assert ((advantage >= 0) != (r + γ * n1 - v1 >= 0)).any()
    value = (weight * (r + γ * n1 - v1) ** 2).mean() + (weight * (r + γ * n2 - v2) ** 2).mean()
    x = learner.standard(batch.z, batch.goal)
    better = learner.value(learner.standard(batch.following, batch.goal)).mean(0)
    α = (10 * (better - learner.value(x).mean(0))).exp().clamp_max(100)
    means, _ = learner.actor(x)
    clone = (α * (means[:, 0] - batch.actions).square().sum((1, 2)) / 2).mean()
    torch.testing.assert_close(learner.loss(batch), value + clone)


def test_gciql_is_ogbenchs_loss_by_hand() -> None:
    """One value under the slow critics' minimum, two critics, DDPG+BC with a clipped action."""
    learner = GCIQL(4, 2, replace(GCIQL.recipe, hidden=HIDDEN))
    for p in (*learner.slow.parameters(), *learner.actor.parameters()):
        p.data.add_(0.3 * torch.randn_like(p))
    learner.keep_within(torch.tensor([[-0.2, -0.1], [0.1, 0.3]]))
    batch = batch_of(learner)
    x = learner.standard(batch.z, batch.value_goal)
    a = batch.actions.flatten(1)
    q = learner.slow(torch.cat([x, a], -1)).amin(0)
    v = learner.value(x)[0]
    after = learner.value(learner.standard(batch.following, batch.value_goal))[0]
    q1, q2 = learner.critic(torch.cat([x, a], -1))
    target = batch.reward + batch.discount * after
    value = (torch.where(q >= v, 0.9, 0.1) * (q - v) ** 2).mean()
    critic = ((q1 - target) ** 2 + (q2 - target) ** 2).mean()
    x = learner.standard(batch.z, batch.goal)
    π = learner.actor(x)[0][:, 0, 0]
    clipped = torch.minimum(torch.maximum(π, learner.low), learner.high)
    assert (clipped != π).any()
    best = learner.critic(torch.cat([x, clipped], -1)).amin(0)
    actor = -best.mean() / best.abs().mean() + 0.3 * ((π - a) ** 2).sum(-1).mean() / 2
    torch.testing.assert_close(learner.loss(batch), value + critic + actor)


def test_hiql_is_ogbenchs_loss_by_hand() -> None:
    """GCIVL's value over φ, and AWR for a low and a high policy, which teach φ nothing."""
    learner = HIQL(4, 2, replace(HIQL.recipe, hidden=HIDDEN, ahead=3))
    batch, s = batch_of(learner), learner.standard

    def value(z: Tensor, g: Tensor, net: nn.Module) -> Tensor:
        out: Tensor = net(torch.cat([s(z), learner._phi(z, g)], -1))
        return out

    r, γ, g = batch.reward, batch.discount, batch.value_goal
    following = r + γ * value(batch.following, g, learner.slow)
    advantage = following.amin(0) - value(batch.z, g, learner.slow).mean(0)
    weight = torch.where(advantage >= 0, 0.7, 0.3)
    total = (weight * (following.detach() - value(batch.z, g, learner.value)) ** 2).mean(-1).sum()

    def clone(actor: Actor, x: Tensor, to: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        v = [value(z, goal, learner.value).mean(0) for z in (after, batch.z)]
        means, _ = actor(x)
        error = (means[:, 0] - to).square().sum((1, 2)) / 2
        return ((3 * (v[0] - v[1])).exp().clamp_max(100) * error).mean()

    x = torch.cat([s(batch.z), learner._phi(batch.z, batch.low_goal)], -1)
    total = total + clone(learner.actor, x, batch.actions, batch.following, batch.low_goal)
    wanted = learner._phi(batch.z, batch.subgoal)[:, None]
    x = torch.cat([s(batch.z), s(batch.goal)], -1)
    total = total + clone(learner.high, x, wanted, batch.subgoal, batch.goal)
    torch.testing.assert_close(learner.loss(batch), total)
    torch.testing.assert_close(wanted.norm(dim=-1), torch.full((64, 1), math.sqrt(10)))


def test_policies_teach_the_representation_nothing() -> None:
    """φ's gradient is that of the value alone: without value rows there is none."""
    learner = HIQL(4, 2, replace(HIQL.recipe, hidden=HIDDEN))
    batch = batch_of(learner)
    grads = torch.autograd.grad(
        learner.loss(batch), [*learner.represent.parameters()], retain_graph=False
    )
    learner.recipe = replace(
        learner.recipe, alpha=0.0
    )  # every weight 1: other policies' losses, the same value's
    again = torch.autograd.grad(learner.loss(batch), [*learner.represent.parameters()])
    for a, b in zip(grads, again, strict=True):
        torch.testing.assert_close(a, b)


def test_the_critic_is_not_taught_by_the_policy() -> None:
    """Without its own error a critic has no gradient, however the policy wishes to be judged."""
    learner = GCIQL(4, 2, replace(GCIQL.recipe, hidden=HIDDEN))
    batch = batch_of(learner)
    x = torch.cat([learner.standard(batch.z, batch.value_goal), batch.actions.flatten(1)], -1)
    after = learner.value(learner.standard(batch.following, batch.value_goal))[0].detach()
    target = batch.reward + batch.discount * after
    own = (learner.critic(x) - target).square().sum(0).mean()
    parameters = [*learner.critic.parameters()]
    expected = torch.autograd.grad(own, parameters)
    for a, b in zip(torch.autograd.grad(learner.loss(batch), parameters), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_advantage_is_clipped_at_a_hundred_and_has_no_gradient() -> None:
    """e^{α·adv} counts at most 100, and the value does not learn to please the policy."""
    actor = Actor(3, 1, Recipe(hidden=HIDDEN))
    x, actions = torch.randn(2, 3), torch.randn(2, 1, 1)
    advantage = torch.tensor([0.1, 5.0], requires_grad=True)
    error = (actor(x)[0][:, 0] - actions).square().sum((1, 2)) / 2
    expected = (error * torch.tensor([math.e, 100.0])).mean()
    got = awr(actor, x, actions, advantage, 10.0)
    torch.testing.assert_close(got, expected)
    got.backward()
    assert advantage.grad is None


def test_defaults_are_ogbenchs() -> None:
    """Expectile, temperature, discount, widths, sub-goals and slow copies as in its configs."""
    wanted = {
        GCIVL: {"share": 0.9, "alpha": 10.0},
        GCIQL: {"share": 0.9, "alpha": 0.3},
        HIQL: {"share": 0.7, "alpha": 3.0},
    }
    for kind, values in wanted.items():
        given = asdict(kind.recipe)
        common = {"discount": 0.99, "hidden": (512, 512, 512), "chunk": 1}
        assert {**common, **values}.items() <= given.items()
    learner = GCIVL(4, 2, replace(GCIVL.recipe, hidden=HIDDEN))
    assert learner.recipe.random == 0
    before = [p.clone() for p in learner.slow.parameters()]
    for p in learner.value.parameters():
        p.data.add_(1.0)
    learner.follow()
    for old, new in zip(before, learner.slow.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.005)


def test_networks_begin_as_ogbenchs() -> None:
    """Variance over the mean of both widths, biases 0, LayerNorm behind GELU in values alone."""
    net = mlp([300, 500, 40], norm=True, last=1e-2)
    first, gelu, norm, last = net
    assert (type(gelu), type(norm)) == (nn.GELU, nn.LayerNorm)
    torch.testing.assert_close(first.weight.var().item(), 2 / 800, rtol=0.02, atol=0)
    torch.testing.assert_close(last.weight.var().item(), 1e-2 * 2 / 540, rtol=0.03, atol=0)
    assert not last.bias.any()
    assert [type(layer) for layer in mlp([3, 4, 5])] == [nn.Linear, nn.GELU, nn.Linear]


@pytest.mark.parametrize("kind", [GCIVL, GCIQL, HIQL])
def test_distances_rank_in_full_precision(kind: type) -> None:
    """Autocast rounds none of them: sub-goals and what is trusted depend on their order."""
    learner = kind(6, 2, Recipe(hidden=(16, 16)))
    z, goal = torch.randn(2, 40, 6)
    wanted = learner.distance(z, goal)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learner.distance(z, goal), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "chunk", "steps"), [(GCIVL, 1, 1000), (GCIVL, 2, 1000), (HIQL, 1, 1500)]
)
def test_a_chain_has_its_known_distances(kind: type, chunk: int, steps: int) -> None:
    """On walks to the right d blocks ahead are d blocks away, whatever the chunk."""
    z, actions = chain()
    learner = learn(
        kind, z, actions, steps=steps, batch=64, rate=3e-3, hidden=(32, 32), chunk=chunk,
        discount=0.9, ahead=2,
    )  # fmt: skip
    place = z[0]
    got = torch.stack([learner.distance(place[:1], place[d : d + 1])[0] for d in range(4)])
    torch.testing.assert_close(got.expm1(), torch.arange(4.0), atol=0.5, rtol=0)
    proposal = learner(place[:1], place[4:5])
    assert proposal.shape == (1, 1, chunk, 1)
    assert (proposal - 1).abs().max() < 0.2


@pytest.mark.slow
def test_the_critics_value_grows_with_the_distance() -> None:
    """GCIQL, whose value follows critics that follow it, orders the first places of the chain."""
    z, actions = chain()
    learner = learn(
        GCIQL, z, actions, steps=800, batch=64, rate=3e-3, hidden=(32, 32), discount=0.9
    )
    got = learner.distance(z[:1, 0], z[0])
    assert (got[:5].diff() > 0).all()
    assert (learner(z[:1, 0], z[:1, 4]) - 1).abs().max() < 0.2


def test_a_value_prefers_the_short_way_that_was_taken_less_often() -> None:
    """Nine of ten walks make a detour; the value knows the short way, and so does the policy."""
    T, place = 5, torch.eye(8) * 2
    short, long = [0, 4, 4, 4, 4], [0, 1, 2, 3, 4]
    walks = torch.tensor([short] * 10 + [long] * 90)
    z = place[walks]
    actions = torch.where(torch.tensor([True] * 10 + [False] * 90)[:, None, None], 1.0, -1.0)
    actions = actions.expand(100, T - 1, 1).contiguous()
    learner = learn(
        GCIVL, z, actions, steps=700, batch=128, rate=3e-3, hidden=(32, 32), discount=0.9
    )
    start, goal = place[:1], place[4:5]
    assert learner.distance(start, goal).expm1() < 2.5
    assert learner(start, goal).item() > 0
