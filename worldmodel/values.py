"""How far is the goal for who acts well? Values of recorded steps, and policies that follow them.

Rewards are −1 for every block until the goal is reached, so V = −(1 − γ^d) / (1 − γ) for d blocks.
The losses are those of OGBench (`impls/agents/gcivl.py`, `gciql.py`, `hiql.py`), where a block of
actions, or a chunk of several, takes the place of a step.

Letters: N steps, D embedding dims, n blocks of a chunk, A action dims of a block. s, s′, g are
embeddings; V̄ is a slow copy of V.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.policies import Actor, Standard, mlp
from worldmodel.transitions import Goals, Transitions

__all__ = ["GCIQL", "GCIVL", "HIQL", "awr", "expectile"]

_TAU = 0.005
Nets = Sequence[int]


def expectile(advantage: Tensor, difference: Tensor, share: float) -> Tensor:
    """|share − 1(advantage < 0)| · difference²: weighed by the one, measured by the other."""
    return torch.where(advantage >= 0, share, 1 - share) * difference.square()


def awr(actor: Actor, x: Tensor, actions: Tensor, advantage: Tensor, alpha: float) -> Tensor:
    """−mean min(e^{α · advantage}, 100) log π(actions | x): imitate what turned out well."""
    weight = (alpha * advantage).exp().clamp_max(100.0).detach()
    return -(weight * actor.log_likelihood(x, actions)).mean()


def _ivl(
    value: Callable[[Tensor, Tensor], Tensor],
    slow: Callable[[Tensor, Tensor], Tensor],
    batch: Transitions,
    share: float,
) -> Tensor:
    """The value loss of GCIVL and HIQL.

        adv = r + γ min_i V̄_i(s′) − mean_i V̄_i(s)
        Σ_i expectile(adv, r + γ V̄_i(s′) − V_i(s))

    The weight is the slow copy's opinion, the residual the learner's; each V_i follows its own V̄_i.
    """
    g, r, γ = batch.value_goal, batch.reward, batch.discount
    with torch.no_grad():
        following = r + γ * slow(batch.following, g)
        advantage = following.amin(0) - slow(batch.z, g).mean(0)
    return expectile(advantage, following - value(batch.z, g), share).mean(-1).sum()


class _Ensemble(nn.ModuleList):
    """Networks to one number each: [N, D'] -> [len, N]."""

    def __init__(self, count: int, dim: int, hidden: Nets) -> None:
        super().__init__(mlp([dim, *hidden, 1], norm=True) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([net(x) for net in self], -1).movedim(-1, 0)


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module) -> None:
    for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
        old.lerp_(new, _TAU)


def _steps(value: Tensor, discount: float) -> Tensor:
    """log(1 + d) of V = −(1 − γ^d) / (1 − γ); what is beyond 1 / (1 − γ) is far."""
    left = (1 + (1 - discount) * value).clamp(1e-3, 1.0)
    return (left.log() / torch.tensor(discount).log()).log1p()


class GCIVL(nn.Module):
    """Goal-conditioned implicit V-learning: how far, and the policy that data with hindsight gives.

        value    Σ_i expectile_κ(adv, r + γ V̄_i(s′, g) − V_i(s, g)), see `_ivl`
        policy   AWR with advantage mean_i V_i(s′, g) − mean_i V_i(s, g), α

    Args:
        dim: D.
        action_dim: A.
        chunk: n.
        modes: of the policy; 1 as in the source.
        hidden: widths between.
        discount: γ of one block; with .99 a hundred blocks are seen well.
        share: κ, near 1 for the best that was ever done from there.
        alpha: α.
    Source: OGBench, arXiv:2410.20092; IQL: Kostrikov et al., arXiv:2110.06169.
    """

    def __init__(
        self,
        dim: int,
        action_dim: int,
        chunk: int = 1,
        modes: int = 1,
        hidden: Nets = (512, 512, 512),
        discount: float = 0.99,
        share: float = 0.9,
        alpha: float = 10.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": dim, "action_dim": action_dim, "chunk": chunk, "modes": modes,
            "hidden": list(hidden), "discount": discount, "share": share, "alpha": alpha,
        }  # fmt: skip
        self.goals = Goals(chunk=chunk, discount=discount)
        self.share, self.alpha = share, alpha
        self.standard = Standard(dim)
        self.value = _Ensemble(2, 2 * dim, hidden)
        self.slow = copy.deepcopy(self.value).requires_grad_(False)
        self.actor = Actor(2 * dim, chunk, action_dim, modes, hidden)

    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """Proposals [B, K, n, A], the likeliest first, for z and z_goal [B, D]."""
        return self.actor.ranked(self._seen(z, z_goal))

    def distance(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """log(1 + blocks) from z to z_goal, both [..., D]: [...], for `goals.temporal`.

        The lower of two values counts: a search finds every one that is too high.
        """
        return _steps(self.value(self._seen(z, z_goal)).amin(0), self.goals.discount)

    def loss(self, batch: Transitions) -> Tensor:
        """Value and policy, summed; each has parameters of its own."""
        value = _ivl(
            lambda s, g: self.value(self._seen(s, g)),
            lambda s, g: self.slow(self._seen(s, g)),
            batch,
            self.share,
        )
        x = self._seen(batch.z, batch.goal)
        with torch.no_grad():
            after = self.value(self._seen(batch.following, batch.goal)).mean(0)
            advantage = after - self.value(x).mean(0)
        return value + awr(self.actor, x, batch.actions, advantage, self.alpha)

    def follow(self) -> None:
        """Move the slow copy, V̄ ← V̄ + .005 (V − V̄); after each step."""
        _follow(self.slow, self.value)

    def _seen(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return torch.cat([self.standard(z), self.standard(z_goal)], -1)


class GCIQL(nn.Module):
    """Goal-conditioned implicit Q-learning over chunks of actions.

        value    expectile_κ(q − V, q − V),   q = min_i Q̄_i(s, a, g)
        critic   Σ_i (Q_i(s, a, g) − r − γ V(s′, g))²
        policy   −mean min_i Q_i(s, π, g) / mean |min_i Q_i(s, π, g)| − α mean log N(a; π, I),
                 π clipped to what the data holds

    One V without a slow copy, two Q with one.

    Args:
        dim: D.
        action_dim: A.
        chunk: n.
        hidden: widths between.
        discount: γ of one block.
        share: κ.
        alpha: α, how much of a clone the policy is.
    Source: OGBench, arXiv:2410.20092 (DDPG+BC, its default); chunks: Q-chunking, arXiv:2507.07969.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        dim: int,
        action_dim: int,
        chunk: int = 1,
        hidden: Nets = (512, 512, 512),
        discount: float = 0.99,
        share: float = 0.9,
        alpha: float = 0.3,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": dim, "action_dim": action_dim, "chunk": chunk, "hidden": list(hidden),
            "discount": discount, "share": share, "alpha": alpha,
        }  # fmt: skip
        self.goals = Goals(chunk=chunk, discount=discount)
        self.share, self.alpha = share, alpha
        self.standard = Standard(dim)
        self.value = _Ensemble(1, 2 * dim, hidden)
        self.critic = _Ensemble(2, 2 * dim + chunk * action_dim, hidden)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor = Actor(2 * dim, chunk, action_dim, 1, hidden)
        self.register_buffer("low", torch.full((action_dim,), -1.0))
        self.register_buffer("high", torch.full((action_dim,), 1.0))

    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """The proposal [B, 1, n, A] for z and z_goal [B, D]."""
        means = self.actor.best(self._seen(z, z_goal)).unsqueeze(1)
        return torch.minimum(torch.maximum(means, self.low), self.high)

    def distance(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """log(1 + blocks) from z to z_goal, both [..., D]: [...], for `goals.temporal`."""
        return _steps(self.value(self._seen(z, z_goal))[0], self.goals.discount)

    def keep_within(self, actions: Tensor) -> None:
        """Take the range of recorded actions [..., A]: outside, Q has seen nothing."""
        self.low.copy_(actions.flatten(0, -2).amin(0))
        self.high.copy_(actions.flatten(0, -2).amax(0))

    def loss(self, batch: Transitions) -> Tensor:
        """Value, critic and policy, summed; each has parameters of its own."""
        x, actions = self._seen(batch.z, batch.value_goal), batch.actions.flatten(1)
        with torch.no_grad():
            q = self.slow(torch.cat([x, actions], -1)).amin(0)
            following = self.value(self._seen(batch.following, batch.value_goal))[0]
            target = batch.reward + batch.discount * following
        v = self.value(x)[0]
        value = expectile(q - v, q - v, self.share).mean()
        critic = (self.critic(torch.cat([x, actions], -1)) - target).square().sum(0).mean()
        x = self._seen(batch.z, batch.goal)
        means, _ = self.actor(x)
        chosen = torch.minimum(torch.maximum(means[:, 0], self.low), self.high)
        # The critic is a measure here, not a pupil.
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        given = (torch.cat([x, chosen.flatten(1)], -1),)
        best: Tensor = torch.func.functional_call(self.critic, frozen, given).amin(0)
        follow = -best.mean() / (best.abs().mean() + 1e-6).detach()
        clone = (means[:, 0] - batch.actions).square().flatten(1).sum(-1).mean() / 2
        return value + critic + follow + self.alpha * clone

    def follow(self) -> None:
        """Move the slow copy, Q̄ ← Q̄ + .005 (Q − Q̄); after each step."""
        _follow(self.slow, self.critic)

    def _seen(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return torch.cat([self.standard(z), self.standard(z_goal)], -1)


class HIQL(nn.Module):
    """Hierarchical implicit Q-learning: a policy for sub-goals, and one that reaches them.

        value    as GCIVL's, of V_i(s, φ(s, g)); φ has length √10 and learns from the value alone
        low      AWR: actions towards the state k blocks ahead, advantage V(s′) − V(s)
        high     AWR: φ(s, s_{t+k}) on the way to g, advantage V(s_{t+k}, g) − V(s, g)

    Args:
        dim: D.
        action_dim: A.
        chunk: n.
        hidden: widths between.
        discount: γ of one block.
        share: κ, lower than GCIVL's.
        alpha: α of both policies.
        ahead: k, blocks to a sub-goal: 25 steps, 10 where things are handled.
        rep_dim: width of φ.
    Source: Park et al., arXiv:2307.11949; OGBench, arXiv:2410.20092, for everything above.
    """

    def __init__(
        self,
        dim: int,
        action_dim: int,
        chunk: int = 1,
        hidden: Nets = (512, 512, 512),
        discount: float = 0.99,
        share: float = 0.7,
        alpha: float = 3.0,
        ahead: int = 5,
        rep_dim: int = 10,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": dim, "action_dim": action_dim, "chunk": chunk, "hidden": list(hidden),
            "discount": discount, "share": share, "alpha": alpha, "ahead": ahead,
            "rep_dim": rep_dim,
        }  # fmt: skip
        self.goals = Goals(chunk=chunk, discount=discount, ahead=ahead)
        self.share, self.alpha = share, alpha
        self.standard = Standard(dim)
        self.represent = mlp([2 * dim, *hidden, rep_dim], norm=True)
        self.value = _Ensemble(2, dim + rep_dim, hidden)
        self.slow = copy.deepcopy(self.value).requires_grad_(False)
        self.actor = Actor(dim + rep_dim, chunk, action_dim, 1, hidden)
        self.high = Actor(2 * dim, 1, rep_dim, 1, hidden)

    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """The proposal [B, 1, n, A]: what the low policy does for the high one's sub-goal."""
        means = self.actor.best(torch.cat([self.standard(z), self.toward(z, z_goal)], -1))
        return means.unsqueeze(1)

    def toward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """The sub-goal's φ that the high policy wants, [B, 10], of length √10."""
        return _of_length(self.high.best(self._both(z, z_goal))[:, 0])

    def phi(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """φ(s, g): [..., 10], of length √10."""
        return _of_length(self.represent(self._both(z, z_goal)))

    def subgoal(self, z: Tensor, z_goal: Tensor, known: Tensor) -> Tensor:
        """The recorded embedding whose φ is nearest to the one wanted: of known [M, D], [B, D]."""
        wanted = self.toward(z, z_goal).unsqueeze(1)
        pairs = torch.broadcast_tensors(z.unsqueeze(1), known)
        return known[(self.phi(*pairs) - wanted).square().sum(-1).argmin(1)]

    def distance(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """log(1 + blocks) from z to z_goal, both [..., D]: [...], for `goals.temporal`."""
        return _steps(self._value(z, z_goal).amin(0), self.goals.discount)

    def loss(self, batch: Transitions) -> Tensor:
        """Value and both policies, summed; the policies teach φ nothing."""
        value = _ivl(self._value, self._slow, batch, self.share)
        s, low, goal, ahead = batch.z, batch.low_goal, batch.goal, batch.subgoal
        with torch.no_grad():
            near = self._value(batch.following, low).mean(0) - self._value(s, low).mean(0)
            far = self._value(ahead, goal).mean(0) - self._value(s, goal).mean(0)
            x = torch.cat([self.standard(s), self.phi(s, low)], -1)
            wanted = self.phi(s, ahead).unsqueeze(1)
        lower = awr(self.actor, x, batch.actions, near, self.alpha)
        return value + lower + awr(self.high, self._both(s, goal), wanted, far, self.alpha)

    def follow(self) -> None:
        """Move the slow copy of V; φ has none. After each step."""
        _follow(self.slow, self.value)

    def _both(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return torch.cat([self.standard(z), self.standard(z_goal)], -1)

    def _value(self, z: Tensor, z_goal: Tensor) -> Tensor:
        out: Tensor = self.value(torch.cat([self.standard(z), self.phi(z, z_goal)], -1))
        return out

    def _slow(self, z: Tensor, z_goal: Tensor) -> Tensor:
        out: Tensor = self.slow(torch.cat([self.standard(z), self.phi(z, z_goal)], -1))
        return out


def _of_length(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5
