"""Cross-entropy method: fit a Gaussian to the best candidates, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from planners._common import as_row, lowest, require
from planners.contract import Scored
from planners.noise import Noise

__all__ = ["CEM", "CEMState"]


class CEMState(NamedTuple):
    """A Gaussian with independent coordinates, and the best candidate of the last iteration.

    Attributes:
        mean: [B, H, A].
        std: [B, H, A].
        best: [B, H, A].
        cost: [B], cost of `best`.
    """

    mean: Tensor
    std: Tensor
    best: Tensor
    cost: Tensor


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
    Raises: ValueError on a value outside these ranges.
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

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(
            2 <= self.num_elites <= self.num_samples,
            f"num_elites must be in [2, num_samples = {self.num_samples}], got {self.num_elites}",
        )
        require(self.min_std >= 0, f"min_std must be at least 0, got {self.min_std}")
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        require(
            self.returns in ("mean", "best"),
            f'returns must be "mean" or "best", got {self.returns!r}',
        )

    def init(self, plan: Tensor) -> CEMState:
        """Mean at the start, the given spread around it."""
        std = as_row(self.init_std, plan, "init_std").expand_as(plan)
        return CEMState(plan, std, plan, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: CEMState, noise: Noise) -> Tensor:
        """Draw S candidates."""
        H, A = state.mean.shape[1:]
        z = noise.normal((self.num_samples, H, A), dtype=state.mean.dtype)
        # A product, then a sum: a fused one would round differently at the end of a vector.
        candidates = z * state.std.unsqueeze(1)
        candidates += state.mean.unsqueeze(1)
        if self.keep_mean:
            candidates[:, 0] = state.mean
        return candidates

    def tell(self, state: CEMState, scored: Scored) -> CEMState:
        """Fit the Gaussian to the elites."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        mean = elites.sum(-1) / self.num_elites
        deviation = elites - mean.unsqueeze(-1)
        deviation *= deviation
        std = (deviation.sum(-1) / (self.num_elites - 1)).sqrt_()
        best, shape = elites[..., 0].reshape(state.mean.shape), state.mean.shape
        mean, std = mean.view(shape), std.view(shape)
        if self.momentum:
            mean = self.momentum * state.mean + (1 - self.momentum) * mean
            std = self.momentum * state.std + (1 - self.momentum) * std
        if self.min_std:
            std = std.clamp_min(self.min_std)
        return CEMState(mean, std, best, values[:, 0])

    def plan(self, state: CEMState) -> Tensor:
        """The mean, or the best candidate of the last iteration."""
        return state.mean if self.returns == "mean" else state.best
