"""Model-predictive path integral control: a softmax-weighted average of the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, number, one_of, require, row
from planners._common import as_row, population, shift, weighted_mean
from planners.contract import Scored
from planners.correlation import Correlation, correlated
from planners.noise import Noise

__all__ = ["MPPI", "MPPIState"]


class MPPIState(NamedTuple):
    """The nominal plan and the spread around it."""

    mean: Tensor  # [B, H, A]
    spread: Tensor  # [B, H, A], σ
    taken: Tensor  # [B, H, A], the mean or the candidate that is executed
    cost: Tensor  # [B], lowest cost of the last iteration


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
    penalty belongs in the cost.

    The planner of TD-MPC2, without its policy prior and its noise while training, is
    `MPPI(512, 2.0, 2.0, top_k=64, adapt_std=True, min_std=0.05, returns="sample")` with 6
    iterations under `MPC(horizon=3, …)`; its temperature of 0.5 is 1/λ. It executes a candidate
    that it draws with the weights, and starts the next step from the mean.

    Args:
        num_samples: S, candidates per iteration.
        temperature: λ, positive.
        std: σ, a number or one per action dim, in planning units.
        top_k: how many candidates are averaged, in [1, S]; None means all.
        adapt_std: whether σ follows the weighted candidates.
        min_std: smallest σ if it does.
        correlation: of the noise along the horizon; None means independent steps.
        returns: "mean", or "sample" for a candidate drawn with the weights.
        decay: γ, at least 1; above 1, which needs `top_k`, iteration i has max(S γ^−i, 2 top_k)
            candidates.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: Williams et al., arXiv:1707.02342; λ = 1 and σ = 1: pytorch_mppi. TD-MPC2:
        arXiv:2310.16828 and its released code.
    """

    num_samples: int = 300
    temperature: float = 1.0
    std: float | tuple[float, ...] = 1.0
    top_k: int | None = None
    adapt_std: bool = False
    min_std: float = 0.0
    correlation: Correlation | None = None
    returns: Literal["mean", "sample"] = "mean"
    decay: float = 1.0

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 1)
        number("temperature", self.temperature, "(0, inf)")
        row("std", self.std)
        if self.top_k is not None:
            integer("top_k", self.top_k, 1, self.num_samples)
        number("min_std", self.min_std, "[0, inf)")
        one_of("returns", self.returns, ("mean", "sample"))
        number("decay", self.decay, "[1, inf)")
        alone = "must be {} without {}, got {}".format
        require(
            self.adapt_std or self.min_std == 0, "min_std " + alone(0, "adapt_std", self.min_std)
        )
        require(self.top_k is not None or self.decay == 1, "decay " + alone(1, "top_k", self.decay))

    def init(self, plan: Tensor, previous: MPPIState | None = None, steps: int = 0) -> MPPIState:
        """The nominal plan at the start, or at the mean so far where a candidate was executed."""
        std = as_row(self.std, plan, "std").expand_as(plan)
        mean = plan
        if previous is not None and steps and self.returns == "sample":
            mean = shift(previous.mean, steps, plan)
        return MPPIState(mean, std, mean, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: MPPIState, noise: Noise) -> Tensor:
        """Draw S candidates around the nominal plan."""
        S = population(self.num_samples, self.decay, noise.iteration, 2 * (self.top_k or 1))
        candidates = correlated(noise, self.correlation, S, state.mean)
        candidates = candidates * state.spread.unsqueeze(1)
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
        std, taken = state.spread, mean
        if self.adapt_std:
            deviation = scored.candidates - mean.unsqueeze(1)
            std = weighted_mean(deviation * deviation, weights).sqrt().clamp_min(self.min_std)
        if self.returns == "sample":
            # The largest log w − log(−log u) is a candidate with the probability of its weight.
            u = scored.noise.uniform((weights.shape[1],), dtype=weights.dtype, lane=1)
            index = (weights.log() - (-u.log()).log()).argmax(1)[:, None, None, None]
            shape = (-1, 1, *mean.shape[1:])
            taken = scored.candidates.gather(1, index.expand(shape))[:, 0]
        return MPPIState(mean, std, taken, least)

    def plan(self, state: MPPIState) -> Tensor:
        """The nominal plan, or the candidate drawn in the last iteration."""
        return state.taken
