"""Predictive sampling: perturb the plan, keep the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, row
from planners._common import as_row, best
from planners.contract import Scored
from planners.correlation import Correlation, correlated
from planners.noise import Noise

__all__ = ["PredictiveSampling", "PredictiveSamplingState"]


class PredictiveSamplingState(NamedTuple):
    """The best candidate of the last iteration."""

    nominal: Tensor  # [B, H, A]
    cost: Tensor  # [B], its cost
    spread: float = torch.inf  # inf, because σ never falls: a plan that stays may still be beaten


@dataclass(frozen=True)
class PredictiveSampling:
    """The simplest planner that works: random changes of the plan, the best one stays.

        a_0 = plan,  a_s = plan + σ ε_s
        plan ← the cheapest candidate

    Choose it as the baseline to beat, or when an iteration must be as cheap as possible. The plan
    itself stays a candidate, so its cost never rises. `correlation=Kernel(J)` gives the few
    spline knots of the source.

    Args:
        num_samples: S, at least 2.
        std: σ, a number or one per action dim, in planning units.
        correlation: of the noise along the horizon; None means independent steps.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: Howell et al., arXiv:2212.00541, Section 4. Its default of 10 samples serves a replan
        every few milliseconds; ours serves the same budget as CEM.
    """

    num_samples: int = 300
    std: float | tuple[float, ...] = 0.3
    correlation: Correlation | None = None

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 2)
        row("std", self.std)

    def init(self, plan: Tensor, *_: object) -> PredictiveSamplingState:
        """The start is the plan; nothing is kept."""
        return PredictiveSamplingState(plan, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: PredictiveSamplingState, noise: Noise) -> Tensor:
        """The plan and S − 1 changes of it."""
        candidates = correlated(noise, self.correlation, self.num_samples, state.nominal)
        candidates = candidates * as_row(self.std, state.nominal, "std")
        candidates += state.nominal.unsqueeze(1)
        candidates[:, 0] = state.nominal
        return candidates

    def tell(self, state: PredictiveSamplingState, scored: Scored) -> PredictiveSamplingState:
        """Keep the best."""
        del state
        return PredictiveSamplingState(*best(scored.candidates, scored.costs))

    def plan(self, state: PredictiveSamplingState) -> Tensor:
        """The best candidate."""
        return state.nominal
