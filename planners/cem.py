"""Cross-entropy method: fit a Gaussian to the best candidates, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, number, one_of, row
from planners._common import as_row, gaussian, lowest, population
from planners.contract import Scored
from planners.noise import Noise

__all__ = ["CEM", "CEMState"]


class CEMState(NamedTuple):
    """A Gaussian with independent coordinates, and the best candidate of the last iteration."""

    mean: Tensor  # [B, H, A]
    spread: Tensor  # [B, H, A], σ
    best: Tensor  # [B, H, A]
    cost: Tensor  # [B], cost of `best`


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method with a diagonal Gaussian.

        a_s  = μ + σ ε_s,  ε_s ~ N(0, I),  a_0 = μ
        μ, σ ← mean and standard deviation (divisor K − 1) of the K candidates of least cost

    Choose it first: it needs no gradient, few settings, and forgives rough costs. Defaults are
    the published planner of LeWM; there the result is the last mean.

    Args:
        num_samples: S, candidates per iteration.
        num_elites: K, at least 2 and at most S.
        init_std: σ at the start, a number or one per action dim, in planning units.
        min_std: smallest σ; above 0 it keeps the search alive when elites agree too early.
        momentum: weight of the old μ and σ in the new ones, in [0, 1).
        keep_mean: whether candidate 0 is the mean itself.
        returns: "mean", or "best" for the best candidate of the last iteration.
        decay: γ, at least 1; above 1 iteration i scores max(S γ^−i, 2K) candidates, so the cost is
            called with changing shapes.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: Rubinstein & Kroese, The Cross-Entropy Method (2004); defaults: LeWM,
        arXiv:2603.19312, and its released solver.
    """

    num_samples: int = 300
    num_elites: int = 30
    init_std: float | tuple[float, ...] = 1.0
    min_std: float = 0.0
    momentum: float = 0.0
    keep_mean: bool = True
    returns: Literal["mean", "best"] = "mean"
    decay: float = 1.0

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 2)
        integer("num_elites", self.num_elites, 2, self.num_samples)
        row("init_std", self.init_std)
        number("min_std", self.min_std, "[0, inf)")
        number("momentum", self.momentum, "[0, 1)")
        one_of("returns", self.returns, ("mean", "best"))
        number("decay", self.decay, "[1, inf)")

    def init(self, plan: Tensor, *_: object) -> CEMState:
        """Mean at the start, the given spread around it; nothing is kept."""
        std = as_row(self.init_std, plan, "init_std").expand_as(plan)
        return CEMState(plan, std, plan, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: CEMState, noise: Noise) -> Tensor:
        """Draw S candidates."""
        H, A = state.mean.shape[1:]
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        z = noise.normal((S, H, A), dtype=state.mean.dtype)
        # A product, then a sum: a fused one would round differently at the end of a vector.
        candidates = z * state.spread.unsqueeze(1)
        candidates += state.mean.unsqueeze(1)
        if self.keep_mean:
            candidates[:, 0] = state.mean
        return candidates

    def tell(self, state: CEMState, scored: Scored) -> CEMState:
        """Fit the Gaussian to the elites."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        mean, std = gaussian(elites, self.num_elites - 1, state.mean)
        if self.momentum:
            mean = self.momentum * state.mean + (1 - self.momentum) * mean
            std = self.momentum * state.spread + (1 - self.momentum) * std
        if self.min_std:
            std = std.clamp_min(self.min_std)
        return CEMState(mean, std, elites[..., 0].view(mean.shape), values[:, 0])

    def plan(self, state: CEMState) -> Tensor:
        """The mean, or the best candidate of the last iteration."""
        return state.mean if self.returns == "mean" else state.best
