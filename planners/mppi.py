"""Model-predictive path integral control: a softmax-weighted average of the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._common import as_row, require, weighted_mean
from planners.contract import Scored
from planners.correlation import Correlation, correlated
from planners.noise import Noise

__all__ = ["MPPI", "MPPIState"]


class MPPIState(NamedTuple):
    """The nominal plan and the spread around it.

    Attributes:
        mean: [B, H, A].
        std: [B, H, A].
        cost: [B], lowest cost of the last iteration.
    """

    mean: Tensor
    std: Tensor
    cost: Tensor


@dataclass(frozen=True)
class MPPI:
    """Path-integral control: cheap candidates pull the plan, in proportion to e^{−cost/λ}.

        a_s = μ + σ ε_s,  a_0 = μ
        w_s = softmax_s(−cost_s / λ),  over all candidates or the `top_k` cheapest
        μ   ← Σ_s w_s a_s,   and with `adapt_std`  σ² ← Σ_s w_s (a_s − μ)²

    Choose it where the controller must move smoothly between replans: the average of many
    candidates changes less than the best few. λ is in units of the cost, and must be set with it:
    far above the spread of costs nothing is learned, far below only the best candidate counts.
    With `correlation=Integrated()` it is smooth MPPI, with `Kernel(J)` kernel MPPI. An action
    penalty belongs in the cost. With `top_k=64, adapt_std=True, min_std=0.05, temperature=2` it is
    the planner of TD-MPC2 (whose temperature is 1/λ = 0.5) without its policy prior.

    Args:
        num_samples: S, candidates per iteration.
        temperature: λ, positive.
        std: σ, a number or one per action dim, in planning units.
        top_k: how many candidates are averaged, in [1, S]; None means all.
        adapt_std: whether σ follows the weighted candidates.
        min_std: smallest σ if it does.
        correlation: of the noise along the horizon; None means independent steps.
    Raises: ValueError on a value outside these ranges.
    Source: Williams et al., arXiv:1707.02342; λ = 1 and σ = 1: pytorch_mppi.
    """

    num_samples: int = 300
    temperature: float = 1.0
    std: float | tuple[float, ...] = 1.0
    top_k: int | None = None
    adapt_std: bool = False
    min_std: float = 0.0
    correlation: Correlation | None = None

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        require(
            self.top_k is None or 1 <= self.top_k <= self.num_samples,
            f"top_k must be in [1, num_samples = {self.num_samples}], got {self.top_k}",
        )
        require(self.min_std >= 0, f"min_std must be at least 0, got {self.min_std}")
        require(
            self.adapt_std or self.min_std == 0,
            f"min_std must be 0 without adapt_std, got {self.min_std}",
        )

    def init(self, plan: Tensor) -> MPPIState:
        """Nominal plan at the start."""
        std = as_row(self.std, plan, "std").expand_as(plan)
        return MPPIState(plan, std, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: MPPIState, noise: Noise) -> Tensor:
        """Draw S candidates around the nominal plan."""
        candidates = correlated(noise, self.correlation, self.num_samples, state.mean)
        candidates *= state.std.unsqueeze(1)
        candidates += state.mean.unsqueeze(1)
        candidates[:, 0] = state.mean
        return candidates

    def tell(self, state: MPPIState, scored: Scored) -> MPPIState:
        """Average the candidates."""
        costs = scored.costs
        least = costs.amin(1)
        if self.top_k is not None:
            limit = costs.topk(self.top_k, dim=1, largest=False).values[:, -1:]
            costs = costs.masked_fill(costs > limit, torch.inf)
        # Relative to the least cost, so that a constant added to the cost changes nothing.
        relative = (costs - least.unsqueeze(1)).nan_to_num(torch.inf, torch.inf)
        weights = torch.softmax(-relative / self.temperature, 1).to(state.mean.dtype)
        mean = weighted_mean(scored.candidates, weights)
        std = state.std
        if self.adapt_std:
            deviation = scored.candidates - mean.unsqueeze(1)
            std = weighted_mean(deviation * deviation, weights).sqrt().clamp_min(self.min_std)
        return MPPIState(mean, std, least)

    def plan(self, state: MPPIState) -> Tensor:
        """The nominal plan."""
        return state.mean
