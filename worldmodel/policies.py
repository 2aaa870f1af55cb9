"""Policies on frozen embeddings: actions towards a goal, as proposals for a planner.

Letters: B problems, S proposals, H horizon, n blocks of a chunk, A and D dims of actions and
embeddings, K modes.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.goals import exactly, precise
from worldmodel.transitions import Recipe, Transitions, check_recorded

__all__ = ["Actor", "Policy", "Standard", "mlp", "retrieve", "unroll"]


@checked()
class Standard(nn.Module):
    """Embeddings side by side, standardised by the training data.

    Args:
        dim: D.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    def fit(self, z: Tensor) -> None:
        """Take mean and deviation of embeddings [..., D]."""
        self.centre.copy_(z.flatten(0, -2).mean(0))
        self.spread.copy_(z.flatten(0, -2).std(0).clamp_min(1e-8))

    def forward(self, *z: Tensor) -> Tensor:
        """k embeddings [..., D] that broadcast -> [..., k D]."""
        beside = torch.broadcast_tensors(*z)
        return torch.cat([(one - self.centre) / self.spread for one in beside], -1)


@checked()
def mlp(widths: Sequence[int], *, norm: bool = False, last: float = 1.0) -> nn.Sequential:
    """Linear maps with GELU between, and LayerNorm after it where asked for.

    Args:
        widths, norm: from input to output; for values, policies have none.
        last: variance of the last map's first weights, over the usual.
    Returns: the network.
    Source: OGBench, `impls/utils/networks.py`: weights of variance 2 / (a + b), biases 0.
    """
    layers: list[nn.Module] = []
    scales = [1.0] * (len(widths) - 2) + [last]
    for (a, b), scale in zip(pairwise(widths), scales, strict=True):
        linear = nn.Linear(a, b)
        nn.init.xavier_uniform_(linear.weight, gain=math.sqrt(scale))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU("tanh"), *([nn.LayerNorm(b, eps=1e-6)] if norm else [])]
    return nn.Sequential(*layers[: -2 if norm else -1])


@checked()
class Actor(nn.Module):
    """A mixture of K Gaussians over chunks of actions, given inputs.

        p(a | x) = Σ_k w_k(x) N(a; μ_k(x), σ² I)

    K = 1 with σ = 1 is squared error, the actor of OGBench. If the data goes left or right, one
    Gaussian goes straight between them; several have one mean for each way.

    Args:
        dim, action_dim, recipe: width of x; A; n, K and widths.
    """

    def __init__(self, dim: int, action_dim: int, recipe: Recipe) -> None:
        super().__init__()
        self.shape = (recipe.modes, recipe.chunk, action_dim)
        self.net = mlp([dim, *recipe.hidden, recipe.modes + math.prod(self.shape)], last=1e-2)
        # One σ for all. With K = 1 it would only scale the gradient.
        self.log_std = nn.Parameter(torch.zeros(()), requires_grad=recipe.modes > 1)
        if recipe.modes > 1:  # equal modes would stay equal
            nn.init.normal_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means [N, K, n, A] and log w [N, K] for inputs [N, dim]."""
        weights, means = self.net(x).split([self.shape[0], math.prod(self.shape)], -1)
        return means.unflatten(-1, self.shape), weights.log_softmax(-1)

    def ranked(self, x: Tensor) -> Tensor:
        """The means, likeliest mode first: [N, K, n, A]."""
        means, weights = self(x)
        rows = torch.arange(len(means), device=means.device)[:, None]
        return means[rows, weights.argsort(-1, descending=True)]

    def log_likelihood(self, x: Tensor, actions: Tensor, until: Tensor | None = None) -> Tensor:
        """log p(a | x) up to a constant: [N], for [N, n, A]; of blocks before `until` alone."""
        means, weights = self(x)
        error = (means - actions.unsqueeze(1)).square().sum(-1)
        counted = torch.ones_like(error[:, :1])
        if until is not None:
            block = torch.arange(self.shape[1], device=error.device)
            counted = (block < until[:, None]).to(error).unsqueeze(1)
        # Without a floor on σ the density could grow without limit.
        log_std = self.log_std.clamp_min(-4.0)
        scale = counted.sum(-1) * self.shape[2] * log_std
        each = -(error * counted).sum(-1) / (2 * (2 * log_std).exp()) - scale
        return torch.logsumexp(weights + each, -1)


@checked()
class Policy(nn.Module):
    """What the data did on the way to an embedding: inverse dynamics over any distance.

        max log p(a_t … a_{t+n−1} | z_t, z_g),   g uniform in t + 1 … T − 1

    K = 1 is deterministic; K modes are K proposals. Blocks after the goal do not count. The inputs
    are the two embeddings alone, without past actions: see `draw`.

    Args:
        dim, action_dim, recipe: D; A; n, a planner's horizon, or less and `unroll`; K; widths.
    Shapes: z [B, D], z_goal [B, D] -> [B, K, n, A], the likeliest mode first.
    Source: GC-IDM, arXiv:2605.08732, without its input of the remaining time; mixture: Bishop,
        Mixture Density Networks (1994).
    """

    recipe = Recipe(chunk=5)

    def __init__(self, dim: int, action_dim: int, recipe: Recipe = recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.standard = Standard(dim)
        self.actor = Actor(2 * dim, action_dim, recipe)

    @checked(z="B D", z_goal="B D")
    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """Proposals."""
        return self.actor.ranked(self.standard(z, z_goal))

    def loss(self, batch: Transitions) -> Tensor:
        """Mean negative log-likelihood."""
        x = self.standard(batch.z, batch.goal)
        return -self.actor.log_likelihood(x, batch.actions, batch.until).mean()


@torch.no_grad()
@checked(z="B D", z_goal="B D")
def unroll(
    decide: Callable[[Tensor, Tensor], Tensor],
    step: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    z_goal: Tensor,
    horizon: int,
) -> Tensor:
    """Extend a policy's proposals to a planner's horizon by acting in imagination.

    Where a proposal ends, the policy decides again at the imagined embedding, by its first
    proposal. A GCBC on the same embeddings works with `lambda z, g: gcbc.decide(torch.stack([z, g],
    1))[:, None, None]`.

    Args:
        decide: z [N, D], z_goal [N, D] -> [N, S, n, A].
        step: z [N, D], actions [N, n, A] -> [N, D]; of a model `lambda z, a: model.rollout(z[:,
            None], a)[:, -1]`.
        z, z_goal, horizon: [B, D], now and wanted; H.
    Returns: [B, S, H, A].
    """
    parts = [decide(z, z_goal)]
    B, S, n, _ = parts[0].shape
    goal = z_goal.repeat_interleave(S, 0)
    at = z.repeat_interleave(S, 0)
    for _ in range(n, horizon, n):
        at = step(at, parts[-1].flatten(0, 1))
        parts.append(decide(at, goal)[:, 0].unflatten(0, (B, S)))
    return torch.cat(parts, 2)[:, :, :horizon]


@torch.no_grad()
@checked(z="E T D", actions="E S A", now="B D", z_goal="B D", reach="[0, inf)")
def retrieve(
    z: Tensor, actions: Tensor, now: Tensor, z_goal: Tensor, num: int, horizon: int, reach: int = 0
) -> Tensor:
    """Recorded actions that led from similar embeddings to embeddings near the goal.

        ‖z_t − z‖² + min_{1 ≤ h ≤ reach} ‖z_{t+h} − z_goal‖²,   the `num` least

    Args:
        z, actions: [E, T, D], recorded, and [E, T − 1, A] between them.
        now, z_goal: [B, D].
        num, horizon, reach: S; H, length of a plan; most blocks until the goal, 0 is H.
    Returns: [B, S, H, A].
    Raises: ValueError if episodes are shorter than a plan.
    Source: a retrieved demonstration as a search's mean, IMWM, arXiv:2606.01626.
    """
    T, starts = z.shape[1], check_recorded(z, actions, "horizon", horizon)

    def apart(to: Tensor) -> Tensor:
        return torch.cdist(precise(to), precise(z.flatten(0, 1))).square().unflatten(1, (-1, T))

    with exactly(z):
        goal = apart(z_goal)[:, :, 1:]
        # Near the end of an episode fewer embeddings follow.
        ahead = F.pad(goal, (0, max(reach or horizon, horizon) - 1), value=torch.inf)
        nearest = ahead.unfold(2, reach or horizon, 1).amin(-1)[:, :, :starts]
        score = (apart(now)[:, :, :starts] + nearest).flatten(1)
        found = score.topk(num, largest=False).indices
    block = torch.arange(horizon, device=z.device)
    return actions[(found // starts).unsqueeze(-1), (found % starts).unsqueeze(-1) + block]
