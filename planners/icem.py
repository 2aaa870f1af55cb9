"""iCEM: cross-entropy with coloured noise, kept elites and a shrinking population."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, number, row
from planners._common import as_row, gaussian, lowest, population, shift
from planners.contract import Scored
from planners.correlation import Colored, correlated
from planners.noise import Noise

__all__ = ["ICEM", "ICEMState"]


class ICEMState(NamedTuple):
    """A Gaussian and the elites that are scored again."""

    mean: Tensor  # [B, H, A]
    spread: Tensor  # [B, H, A], σ
    elites: Tensor  # [B, R, H, A], kept candidates, the best first
    known: Tensor  # [B], whether `elites` are candidates that were scored
    cost: Tensor  # [B], cost of the best elite


@dataclass(frozen=True)
class ICEM:
    """Improved cross-entropy method: more from fewer candidates.

        a_s  = μ + σ η_s,  η coloured with exponent β;  a share ξ of the last elites stays in
        S_i  = max(S γ^{−i}, 2K)
        μ, σ ← α (μ, σ) + (1 − α) (mean and standard deviation of the K elites)

    Choose it when cost evaluations are few and good plans push the same way for several steps.
    The plan is the best candidate of the last iteration. The next control step starts around the
    shifted mean, as in the source, and scores the shifted elites again. Where we differ from the
    source: the mean is a candidate in every iteration, not only in the last; a shifted elite ends
    with its last action again, not with a new random one; the first start is the plan given, not
    the middle of the box, and σ is in planning units, not in half widths of the box.

    Args:
        num_samples: S, candidates in the first iteration, at least 2 num_elites.
        num_elites: K, at least 2.
        beta: β, noise exponent; 0 is white. The noise is that of the source, whose standard
            deviation is 1.03 to 1.21, not 1, at 5 to 30 steps; see `Colored`.
        init_std: σ at the start, a number or one per action dim, in planning units.
        momentum: α, in [0, 1).
        keep: ξ, share of the elites kept, in [0, 1].
        decay: γ, at least 1; above 1 each iteration scores fewer candidates, so the cost is called
            with changing shapes.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: Pinneri et al., arXiv:2008.06389, Algorithm 1, and its released code; K, α, ξ, γ, σ as
        there, β of the middle of its task-dependent range.
    """

    num_samples: int = 300
    num_elites: int = 10
    beta: float = 2.0
    init_std: float | tuple[float, ...] = 0.5
    momentum: float = 0.1
    keep: float = 0.3
    decay: float = 1.25

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_elites", self.num_elites, 2)
        integer("num_samples", self.num_samples, 2 * self.num_elites)
        number("beta", self.beta, "[0, inf)")
        row("init_std", self.init_std)
        number("momentum", self.momentum, "[0, 1)")
        number("keep", self.keep, "[0, 1]")
        number("decay", self.decay, "[1, inf)")

    @property
    def _kept(self) -> int:
        return math.ceil(self.keep * self.num_elites)

    def init(self, plan: Tensor, previous: ICEMState | None = None, steps: int = 0) -> ICEMState:
        """The given spread around the start, or around the shifted mean, and the shifted elites."""
        std = as_row(self.init_std, plan, "init_std").expand_as(plan)
        elites = plan.unsqueeze(1).expand(-1, max(self._kept, 1), -1, -1)
        known = torch.zeros_like(plan[:, 0, 0], dtype=torch.bool)
        mean = plan
        if previous is not None:
            elites, known = shift(previous.elites, steps), previous.known
            mean = shift(previous.mean, steps) if steps else plan
        return ICEMState(mean, std, elites, known, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: ICEMState, noise: Noise) -> Tensor:
        """Draw S_i candidates: the mean first, the kept elites last."""
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        candidates = correlated(noise, Colored(self.beta, unit=False), S, state.mean)
        candidates *= state.spread.unsqueeze(1)
        candidates += state.mean.unsqueeze(1)
        candidates[:, 0] = state.mean
        if self._kept:
            drawn = candidates[:, -self._kept :]
            known = state.known[:, None, None, None]
            candidates[:, -self._kept :] = torch.where(known, state.elites, drawn)
        return candidates

    def tell(self, state: ICEMState, scored: Scored) -> ICEMState:
        """Fit the Gaussian to the elites and keep the best of them."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        # The divisor is K, as in the source; CEM's is K − 1, as in LeWM's solver.
        mean, std = gaussian(elites, self.num_elites, state.mean)
        α = self.momentum
        mean, std = α * state.mean + (1 - α) * mean, α * state.spread + (1 - α) * std
        kept = elites[..., : max(self._kept, 1)].transpose(1, 2)
        kept = kept.reshape(len(mean), -1, *mean.shape[1:])
        return ICEMState(mean, std, kept, torch.ones_like(state.known), values[:, 0])

    def plan(self, state: ICEMState) -> Tensor:
        """The best candidate of the last iteration."""
        return state.elites[:, 0]
