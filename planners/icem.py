"""iCEM: cross-entropy with coloured noise, kept elites and a shrinking population."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._common import as_row, lowest, require, shift
from planners.contract import Carried, Scored
from planners.correlation import Colored, correlated
from planners.noise import Noise

__all__ = ["ICEM", "ICEMState"]


class ICEMState(NamedTuple):
    """A Gaussian and the elites that are scored again.

    Attributes:
        mean: [B, H, A].
        std: [B, H, A].
        elites: [B, R, H, A], kept candidates, the best first.
        known: [B], whether `elites` are candidates that were scored.
        cost: [B], cost of the best elite.
    """

    mean: Tensor
    std: Tensor
    elites: Tensor
    known: Tensor
    cost: Tensor


@dataclass(frozen=True)
class ICEM(Carried):
    """Improved cross-entropy method: more from fewer candidates.

        a_s  = μ + σ η_s,  η coloured with exponent β;  a share ξ of the last elites stays in
        S_i  = max(S γ^{−i}, 2K)
        μ, σ ← α (μ, σ) + (1 − α) (mean and standard deviation of the K elites)

    Choose it when cost evaluations are few and good plans push the same way for several steps.
    The plan is the best candidate of the last iteration. Under `MPC` the kept elites are shifted
    into the next control step. Where we differ from the source: the mean is a candidate in every
    iteration, not only in the last, and a shifted elite ends with its last action again, not with
    a new random one.

    Args:
        num_samples: S, candidates in the first iteration, at least 2 num_elites.
        num_elites: K, at least 2.
        beta: β, noise exponent; 0 is white.
        init_std: σ at the start, a number or one per action dim, in planning units.
        momentum: α, in [0, 1).
        keep: ξ, share of the elites kept, in [0, 1].
        decay: γ, at least 1; above 1 each iteration scores fewer candidates, so the cost is called
            with changing shapes.
    Raises: ValueError on a value outside these ranges.
    Source: Pinneri et al., arXiv:2008.06389, Algorithm 1; K, α, ξ, γ, σ as there, β of the middle
        of its task-dependent range.
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
        require(self.num_elites >= 2, f"num_elites must be at least 2, got {self.num_elites}")
        require(
            self.num_samples >= 2 * self.num_elites,
            f"num_samples must be at least 2 num_elites = {2 * self.num_elites}, "
            f"got {self.num_samples}",
        )
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        require(0 <= self.keep <= 1, f"keep must be in [0, 1], got {self.keep}")
        require(self.decay >= 1, f"decay must be at least 1, got {self.decay}")
        Colored(self.beta)

    @property
    def _kept(self) -> int:
        return math.ceil(self.keep * self.num_elites)

    def init(self, plan: Tensor) -> ICEMState:
        """Mean at the start; no elites yet."""
        std = as_row(self.init_std, plan, "init_std").expand_as(plan)
        elites = plan.unsqueeze(1).expand(-1, max(self._kept, 1), -1, -1)
        known = torch.zeros_like(plan[:, 0, 0], dtype=torch.bool)
        return ICEMState(plan, std, elites, known, plan.new_full(plan.shape[:1], torch.inf))

    def carry(self, state: ICEMState, start: Tensor, steps: int, fresh: Tensor) -> ICEMState:
        """The shifted elites join a new search around the shifted plan."""
        begun = self.init(start)
        return begun._replace(elites=shift(state.elites, steps, repeat=True), known=~fresh)

    def ask(self, state: ICEMState, noise: Noise) -> Tensor:
        """Draw S_i candidates: the mean first, the kept elites last."""
        S = max(int(self.num_samples * self.decay**-noise.iteration), 2 * self.num_elites)
        candidates = correlated(noise, Colored(self.beta), S, state.mean)
        candidates *= state.std.unsqueeze(1)
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
        mean = elites.sum(-1) / self.num_elites
        deviation = elites - mean.unsqueeze(-1)
        deviation *= deviation
        # The divisor is K, as in the source; CEM's is K − 1, as in LeWM's solver.
        std = (deviation.sum(-1) / self.num_elites).sqrt_()
        shape, α = state.mean.shape, self.momentum
        mean = α * state.mean + (1 - α) * mean.view(shape)
        std = α * state.std + (1 - α) * std.view(shape)
        kept = elites[..., : max(self._kept, 1)].transpose(1, 2)
        kept = kept.reshape(shape[0], -1, *shape[1:])
        return ICEMState(mean, std, kept, torch.ones_like(state.known), values[:, 0])

    def plan(self, state: ICEMState) -> Tensor:
        """The best candidate of the last iteration."""
        return state.elites[:, 0]
