"""Values: distances to goals under good actions, and policies that follow them.

Rewards are −1 per block until the goal is reached, so V = −(1 − γ^d) / (1 − γ) for d blocks. The
losses are those of OGBench, arXiv:2410.20092 (`impls/agents/gcivl.py`, `gciql.py`, `hiql.py`), with
a block of actions, or a chunk of several, in place of a step.

Each has `learner(z, z_goal) -> [B, K, n, A]`, proposals, and `learner.distance(z, z_goal)`, log(1 +
blocks) of [..., D] that broadcast, for `goals.temporal` and `subgoals.Graph`.

Letters: N steps, D embedding dims, n blocks a chunk, A action dims; s, s′, g embeddings, V̄ slow V.
"""

import copy
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.goals import exactly, precise
from worldmodel.policies import Actor, Standard, mlp
from worldmodel.transitions import Recipe, Transitions

__all__ = ["GCIQL", "GCIVL", "HIQL"]

_TAU = 0.005
_REP = 10  # width of φ


def expectile(advantage: Tensor, difference: Tensor, share: float) -> Tensor:
    """|share − 1(advantage < 0)| · difference²: the sign of one weighs the square of the other."""
    return torch.where(advantage >= 0, share, 1 - share) * difference.square()


def awr(actor: Actor, x: Tensor, actions: Tensor, advantage: Tensor, alpha: float) -> Tensor:
    """−mean min(e^{α · advantage}, 100) log π(actions | x): imitate good actions more."""
    weight = (alpha * advantage).exp().clamp_max(100.0).detach()
    return -(weight * actor.log_likelihood(x, actions)).mean()


class _Ensemble(nn.ModuleList):
    """Networks to one number each: [..., D'] -> [len, ...]."""

    def __init__(self, count: int, dim: int, recipe: Recipe) -> None:
        super().__init__(mlp([dim, *recipe.hidden, 1], norm=True) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([net(x) for net in self], -1).movedim(-1, 0)


class _Valued(nn.Module):
    """The common base: values, a network with a slow copy, and a distance."""

    value: nn.Module

    def __init__(self, dim: int, recipe: Recipe, followed: nn.Module) -> None:
        super().__init__()
        self.recipe, self.standard = recipe, Standard(dim)
        self.slow = copy.deepcopy(followed).requires_grad_(False)
        self._pair = (self.slow, followed)  # in a tuple, so that it is no submodule

    def values(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """V_i of [..., D] that broadcast: [i, ...]."""
        return self.value(self._both(z, z_goal))

    def _both(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """What the values get of z and z_goal."""
        return self.standard(z, z_goal)

    @torch.no_grad()
    def _gain(self, z: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        """mean_i V_i(after, g) − mean_i V_i(s, g)."""
        return self.values(after, goal).mean(0) - self.values(z, goal).mean(0)

    def _ivl(self, batch: Transitions) -> Tensor:
        """The value loss of GCIVL and HIQL, whose slow copy is of the value.

            adv = r + γ min_i V̄_i(s′) − mean_i V̄_i(s)
            Σ_i expectile(adv, r + γ V̄_i(s′) − V_i(s))

        The slow copy gives the weight, the learner the residual; each V_i follows its own V̄_i.
        """
        g = batch.value_goal
        with torch.no_grad():
            following = batch.reward + batch.discount * self.slow(self._both(batch.following, g))
            advantage = following.amin(0) - self.slow(self._both(batch.z, g)).mean(0)
        difference = following - self.values(batch.z, g)
        return expectile(advantage, difference, self.recipe.share).mean(-1).sum()

    @checked(z="* D", z_goal="* D")
    def distance(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """log(1 + d) from the lowest V = −(1 − γ^d) / (1 − γ): a search exploits high ones."""
        γ = self.recipe.discount
        with exactly(z):
            value = self.values(precise(z), precise(z_goal)).amin(0)
        left = (1 + (1 - γ) * value).clamp(1e-3, 1.0)  # V below −1 / (1 − γ) means far
        return (left.log() / torch.tensor(γ, device="cpu").log()).log1p()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copy, V̄ ← V̄ + .005 (V − V̄), before each step."""
        for old, new in zip(*(part.parameters() for part in self._pair), strict=True):
            old.lerp_(new, _TAU)


@checked()
class GCIVL(_Valued):
    """Goal-conditioned implicit V-learning: distances, and a policy from hindsight data.

        value    Σ_i expectile_κ(adv, r + γ V̄_i(s′, g) − V_i(s, g)), see `_ivl`
        policy   AWR with advantage mean_i V_i(s′, g) − mean_i V_i(s, g), α

    Args:
        dim, action_dim, recipe: D, A; defaults of the source, κ = .9, α = 10, one mode.
    Source: OGBench; IQL: Kostrikov et al., arXiv:2110.06169.
    """

    recipe = Recipe()

    def __init__(self, dim: int, action_dim: int, recipe: Recipe = recipe) -> None:
        value = _Ensemble(2, 2 * dim, recipe)
        super().__init__(dim, recipe, value)
        self.value, self.actor = value, Actor(2 * dim, action_dim, recipe)

    @checked(z="B D", z_goal="B D")
    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """Proposals, the likeliest first."""
        return self.actor.ranked(self.standard(z, z_goal))

    def loss(self, batch: Transitions) -> Tensor:
        """Value and policy, summed; each has parameters of its own."""
        x = self.standard(batch.z, batch.goal)
        gain = self._gain(batch.z, batch.following, batch.goal)
        return self._ivl(batch) + awr(self.actor, x, batch.actions, gain, self.recipe.alpha)


@checked()
class GCIQL(_Valued):
    """Goal-conditioned implicit Q-learning over chunks of actions.

        value    expectile_κ(q − V, q − V),   q = min_i Q̄_i(s, a, g)
        critic   Σ_i (Q_i(s, a, g) − r − γ V(s′, g))²
        policy   −mean min_i Q_i(s, π, g) / mean |min_i Q_i(s, π, g)| − α mean log N(a; π, I),
                 π clipped to what the data holds

    One V without a slow copy, two Q with one.

    Args:
        dim, action_dim, recipe: D, A; defaults of the source, κ = .9, α = .3; one mode always.
    Source: OGBench (DDPG+BC, its default); chunks: Q-chunking, arXiv:2507.07969.
    """

    low: Tensor
    high: Tensor
    recipe = Recipe(alpha=0.3)

    def __init__(self, dim: int, action_dim: int, recipe: Recipe = recipe) -> None:
        value = _Ensemble(1, 2 * dim, recipe)
        critic = _Ensemble(2, 2 * dim + recipe.chunk * action_dim, recipe)
        super().__init__(dim, recipe, critic)
        self.value, self.critic = value, critic
        self.actor = Actor(2 * dim, action_dim, replace(recipe, modes=1))
        self.register_buffer("low", torch.full((action_dim,), -1.0))
        self.register_buffer("high", torch.full((action_dim,), 1.0))

    @checked(z="B D", z_goal="B D")
    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """The proposal."""
        return self.actor.ranked(self.standard(z, z_goal)).clamp(self.low, self.high)

    def keep_within(self, actions: Tensor) -> None:
        """Store the range of recorded actions [..., A]; Q was not trained outside."""
        self.low.copy_(actions.flatten(0, -2).amin(0))
        self.high.copy_(actions.flatten(0, -2).amax(0))

    def loss(self, batch: Transitions) -> Tensor:
        """Value, critic and policy, summed; each has parameters of its own."""
        see, actions = self.standard, batch.actions.flatten(1)
        x = see(batch.z, batch.value_goal)
        with torch.no_grad():
            q = self.slow(torch.cat([x, actions], -1)).amin(0)
            following = self.value(see(batch.following, batch.value_goal))[0]
            target = batch.reward + batch.discount * following
        v = self.value(x)[0]
        value = expectile(q - v, q - v, self.recipe.share).mean()
        critic = (self.critic(torch.cat([x, actions], -1)) - target).square().sum(0).mean()
        x = see(batch.z, batch.goal)
        means = self.actor(x)[0][:, 0]
        # The policy's loss must not train the critic.
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        chosen = torch.cat([x, means.clamp(self.low, self.high).flatten(1)], -1)
        best: Tensor = torch.func.functional_call(self.critic, frozen, (chosen,)).amin(0)
        pleased = -best.mean() / (best.abs().mean() + 1e-6).detach()
        clone = (means.flatten(1) - actions).square().sum(-1).mean() / 2
        return value + critic + pleased + self.recipe.alpha * clone


@checked()
class HIQL(_Valued):
    """Hierarchical implicit Q-learning: a policy for sub-goals, and one that reaches them.

        value    as GCIVL's, of V_i(s, φ(s, g)); φ has length √10 and learns from the value alone
        low      AWR: actions towards the state k blocks ahead, advantage V(s′) − V(s)
        high     AWR: φ(s, s_{t+k}) on the way to g, advantage V(s_{t+k}, g) − V(s, g)

    Args:
        dim, action_dim, recipe: D, A; defaults of the source, κ = .7, α = 3, k = 5; one mode.
    Source: Park et al., arXiv:2307.11949; OGBench.
    """

    recipe = Recipe(share=0.7, alpha=3.0)

    def __init__(self, dim: int, action_dim: int, recipe: Recipe = recipe) -> None:
        represent = mlp([2 * dim, *recipe.hidden, _REP], norm=True)
        value = _Ensemble(2, dim + _REP, recipe)
        super().__init__(dim, recipe, value)
        self.represent, self.value = represent, value
        self.actor = Actor(dim + _REP, action_dim, replace(recipe, modes=1))
        self.high = Actor(2 * dim, _REP, replace(recipe, modes=1, chunk=1))

    @checked(z="B D", z_goal="B D")
    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """The proposal of the low policy for the high policy's sub-goal."""
        wanted = _of_length(self.high.ranked(self.standard(z, z_goal))[:, 0, 0])
        return self.actor.ranked(torch.cat([self.standard(z), wanted], -1))

    def subgoal(self, z: Tensor, z_goal: Tensor, known: Tensor) -> Tensor:
        """The recorded embedding, of known [M, D], with φ nearest to the high policy's: [B, D]."""
        wanted = _of_length(self.high.ranked(self.standard(z, z_goal))[:, 0])
        return known[(self._phi(z.unsqueeze(1), known) - wanted).square().sum(-1).argmin(1)]

    def loss(self, batch: Transitions) -> Tensor:
        """Value and both policies, summed; the policies do not train φ."""
        s, low, goal, ahead = batch.z, batch.low_goal, batch.goal, batch.subgoal
        near, far = self._gain(s, batch.following, low), self._gain(s, ahead, goal)
        with torch.no_grad():
            x, wanted = self._both(s, low), self._phi(s, ahead).unsqueeze(1)
        lower = awr(self.actor, x, batch.actions, near, self.recipe.alpha)
        higher = awr(self.high, self.standard(s, goal), wanted, far, self.recipe.alpha)
        return self._ivl(batch) + lower + higher

    def _phi(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return _of_length(self.represent(self.standard(z, z_goal)))

    def _both(self, z: Tensor, z_goal: Tensor) -> Tensor:
        φ = self._phi(z, z_goal)
        return torch.cat([self.standard(z).expand(*φ.shape[:-1], -1), φ], -1)


def _of_length(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
