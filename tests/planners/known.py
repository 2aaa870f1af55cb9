"""Costs whose minimum is known: to test a planner, and to compare planners.

Every problem is a batch of B different ones. A candidate's cost is computed the same way bit for
bit in any batch, so a method that is batch-invariant stays so on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planners.contract import Bounds
from planners.noise import Noise, Stream

__all__ = [
    "Problem",
    "active_bounds",
    "chain",
    "constrained",
    "far_box",
    "linear_quadratic",
    "quadratic",
    "reach",
    "two_basins",
    "valley",
]


@dataclass(frozen=True, eq=False)
class Problem:
    """B problems with known minima.

    Attributes:
        score: (candidates [B, S, H, A], *parameters) -> [B, S].
        parameters: tensors [B, …], what differs from problem to problem.
        start: [B, H, A], where a search begins.
        minimum: [B], the least possible cost (subject to the bounds and constraints, if any).
        minimiser: [B, H, A], one plan that costs so.
        bounds: the box the minimum is meant for; None means no box.
        constraint: like `score`, to [B, S, C]; the minimum is meant for values ≤ 0.
        multiplier: [B, C], of the constraints at the minimum.
    """

    score: Callable[..., Tensor]
    parameters: tuple[Tensor, ...]
    start: Tensor
    minimum: Tensor
    minimiser: Tensor
    bounds: Bounds | None = None
    constraint: Callable[..., Tensor] | None = None
    multiplier: Tensor | None = None

    def cost(self, candidates: Tensor) -> Tensor:
        """[B, S, H, A] -> [B, S]."""
        return self.score(candidates, *self.parameters)

    def limit(self, candidates: Tensor) -> Tensor:
        """[B, S, H, A] -> [B, S, C], the constraint."""
        if self.constraint is None:
            raise ValueError("limit must be asked of a problem with a constraint")
        return self.constraint(candidates, *self.parameters)

    def regret(self, actions: Tensor) -> Tensor:
        """[B], how much a plan [B, H, A] costs above the minimum."""
        return self.cost(actions.unsqueeze(1))[:, 0] - self.minimum

    def take(self, index: Tensor) -> Problem:
        """The problems of the given indices, in that order."""
        return replace(
            self,
            parameters=tuple(parameter[index] for parameter in self.parameters),
            start=self.start[index],
            minimum=self.minimum[index],
            minimiser=self.minimiser[index],
            multiplier=None if self.multiplier is None else self.multiplier[index],
        )


def _draw(B: int, *size: int, lane: int) -> Tensor:
    """Parameters: standard normal, of a fixed seed; problem b does not depend on B."""
    return Noise(Stream(torch.arange(B)), 0).normal(size, lane=100 + lane)


def _sum(x: Tensor, dims: int) -> Tensor:
    """Sum over the last dims, along memory: the same order of additions in any batch."""
    return x.flatten(-dims).contiguous().sum(-1)


def quadratic(B: int = 8, H: int = 5, A: int = 2, condition: float = 10.0) -> Problem:
    """Σ_i w_i (a_i − t_i)², a bowl with curvatures from 1 to `condition`; minimum 0 at t."""
    target = 0.7 * _draw(B, H, A, lane=0)
    weight = torch.logspace(0, torch.tensor(condition).log10().item(), H * A).view(H, A)

    def score(a: Tensor, t: Tensor) -> Tensor:
        return _sum(weight * (a - t.unsqueeze(1)).square(), 2)

    return Problem(score, (target,), torch.zeros(B, H, A), torch.zeros(B), target)


def active_bounds(B: int = 8, H: int = 5, A: int = 2) -> Problem:
    """The same bowl where the box [−1, 1]^A cuts the target off: the minimiser is t clamped."""
    target = 1.5 * _draw(B, H, A, lane=1)
    nearest = target.clamp(-1, 1)

    def score(a: Tensor, t: Tensor) -> Tensor:
        return _sum((a - t.unsqueeze(1)).square(), 2)

    return Problem(
        score,
        (target,),
        torch.zeros(B, H, A),
        _sum((nearest - target).square(), 2),
        nearest,
        bounds=Bounds(-1.0, 1.0),
    )


def constrained(B: int = 8, H: int = 3, A: int = 2) -> Problem:
    """|a − t|² subject to Σ a ≤ 0, which t breaks: the price of the sum is 2 Σt / HA."""
    target = 0.5 + 0.3 * _draw(B, H, A, lane=2).abs()
    excess = _sum(target, 2) / (H * A)

    def score(a: Tensor, t: Tensor) -> Tensor:
        return _sum((a - t.unsqueeze(1)).square(), 2)

    def limit(a: Tensor, t: Tensor) -> Tensor:
        del t
        return _sum(a, 2).unsqueeze(-1)

    return Problem(
        score,
        (target,),
        torch.zeros(B, H, A),
        excess.square() * (H * A),
        target - excess[:, None, None],
        constraint=limit,
        multiplier=2 * excess[:, None],
    )


def valley(B: int = 8, H: int = 2, A: int = 2, steepness: float = 20.0) -> Problem:
    """A narrow curved valley (Rosenbrock): Σ_i k (x_{i+1} − x_i²)² + (1 − x_i)², x = a + shift."""
    shift = 0.2 * _draw(B, H, A, lane=3)

    def score(a: Tensor, shift: Tensor) -> Tensor:
        x = (a + shift.unsqueeze(1)).flatten(2)
        now, following = x[..., :-1], x[..., 1:]
        return _sum(steepness * (following - now.square()).square() + (1 - now).square(), 1)

    return Problem(score, (shift,), torch.zeros(B, H, A), torch.zeros(B), 1 - shift)


def two_basins(B: int = 8, H: int = 2, A: int = 1, gap: float = 1.0) -> Problem:
    """min(|a − t|², |a + t|² + gap), |t| = 1: the search begins in the worse basin, at −t."""
    t = _draw(B, H, A, lane=4)
    t = t / _sum(t.square(), 2).sqrt()[:, None, None]

    def score(a: Tensor, t: Tensor) -> Tensor:
        better = _sum((a - t.unsqueeze(1)).square(), 2)
        worse = _sum((a + t.unsqueeze(1)).square(), 2)
        return torch.minimum(better, worse + gap)

    return Problem(score, (t,), -t, torch.zeros(B), t)


def linear_quadratic(B: int = 8, H: int = 6) -> Problem:
    """A mass on a line pushed to rest at 0 (LQR); minimum and minimiser by Riccati's recursion.

    s' = F s + G a,  cost = Σ_h s_{h+1}ᵀ Q s_{h+1} + r a_h²,  s = (position, velocity)
    """
    dt, r = 0.5, 0.1
    F = torch.tensor([[1.0, dt], [0.0, 1.0]], dtype=torch.float64)
    G = torch.tensor([[0.5 * dt * dt], [dt]], dtype=torch.float64)
    Q = torch.tensor([1.0, 0.2], dtype=torch.float64).diag()
    # Value after h steps to go: sᵀ P s; gains from the last step backwards.
    P, gains = torch.zeros_like(Q), []
    for _ in range(H):
        ahead = Q + P
        K = torch.linalg.solve(r * torch.eye(1, dtype=F.dtype) + G.T @ ahead @ G, G.T @ ahead @ F)
        P = F.T @ ahead @ (F - G @ K)
        gains.append(K)
    first = _draw(B, 2, lane=5)
    s, actions = first.double(), []
    minimum = (s @ P * s).sum(-1)
    for K in reversed(gains):
        actions.append(-s @ K.T)
        s = s @ F.T + actions[-1] @ G.T

    def score(a: Tensor, s: Tensor) -> Tensor:
        position, velocity = s[:, :1], s[:, 1:]
        total = torch.zeros_like(a[:, :, 0, 0])
        for h in range(H):
            push = a[:, :, h, 0]
            position = position + dt * velocity + 0.5 * dt * dt * push
            velocity = velocity + dt * push
            total = total + position.square() + 0.2 * velocity.square() + r * push.square()
        return total

    return Problem(
        score, (first,), torch.zeros(B, H, 1), minimum.float(), torch.stack(actions, 1).float()
    )


def reach(B: int = 8, H: int = 5, A: int = 2) -> Problem:
    """|Σ_h a_h − g|²: steps that add up to a goal; many minimisers, one is H equal steps.

    Its dynamics are `s + a` from s = 0, for planners that need some; `parameters` is (g,).
    """
    goal = 2.0 * _draw(B, A, lane=6)

    def score(a: Tensor, g: Tensor) -> Tensor:
        end = _sum(a.transpose(2, 3), 1)
        return _sum((end - g.unsqueeze(1)).square(), 1)

    steps = (goal / H).unsqueeze(1).expand(B, H, A)
    return Problem(score, (goal,), torch.zeros(B, H, A), torch.zeros(B), steps)


def far_box(B: int = 4, H: int = 3, A: int = 1) -> Problem:
    """`reach` in a box without zero, [5, 10], with goals off its middle; Σ a ≤ g may be asked too.

    The regret is 137 at 5, 18 in the middle.
    """
    goal = torch.full((B, A), 8.9 * H)
    near = reach(B, H, A)
    return replace(
        near,
        parameters=(goal,),
        minimiser=torch.full((B, H, A), 8.9),
        bounds=Bounds(5.0, 10.0),
        constraint=lambda a, g: _sum(a, 2).unsqueeze(-1) - g.sum(-1)[:, None, None],
    )


def chain(B: int = 8, H: int = 4, C: int = 4) -> Problem:
    """Discrete: Σ_h u[h, c_h] + Σ_h w[c_h, c_{h+1}], minimum by trying all C^H sequences.

    For relaxed actions it is the same with expectations, linear in each action's distribution.
    """
    unary, pairs = _draw(B, H, C, lane=7), _draw(B, C, C, lane=8)

    def score(a: Tensor, u: Tensor, w: Tensor) -> Tensor:
        alone = _sum(a * u.unsqueeze(1), 2)
        joint = a[:, :, :-1, :, None] * a[:, :, 1:, None, :] * w[:, None, None]
        return alone + _sum(joint, 3)

    options = [torch.arange(C)] * H
    every = torch.nn.functional.one_hot(torch.cartesian_prod(*options), C).float()
    costs = score(every.expand(B, -1, -1, -1), unary, pairs)
    minimum, index = costs.min(1)
    return Problem(score, (unary, pairs), torch.zeros(B, H, C), minimum, every[index])
