"""Planners that draw candidates around a plan: CEM, iCEM, MPPI and predictive sampling."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, numbers, one_of, require, row
from planners._common import as_std, best, gaussian, lowest, pick, population, shift, unscored
from planners.contract import Scored, Std
from planners.noise import Colored, Correlation, Noise, correlated

__all__ = ["CEM", "ICEM", "MPPI", "Best", "Gaussian", "ICEMState", "PredictiveSampling"]


def _around(
    plan: Tensor, σ: Tensor, S: int, noise: Noise, by: Correlation | None = None, keep: bool = True
) -> Tensor:
    """S candidates [B, S, H, A] around a plan [B, H, A], which is the first of them if kept."""
    # A product, then a sum: a fused one would round differently at the end of a vector.
    candidates = correlated(noise, by, S, plan) * σ.unsqueeze(1)
    candidates += plan.unsqueeze(1)
    if keep:
        candidates[:, 0] = plan
    return candidates


def _weighted_mean(candidates: Tensor, weights: Tensor) -> Tensor:
    """Σ_s w_s a_s, [B, H, A] from [B, S, H, A] and [B, S]; the samples are last, as in `lowest`."""
    flat = candidates.flatten(2).transpose(1, 2).contiguous()
    return (flat * weights.unsqueeze(1)).sum(-1).view(candidates.shape[0], *candidates.shape[2:])


class Gaussian(NamedTuple):
    """A Gaussian with independent coordinates, and the plan to execute."""

    mean: Tensor  #: [B, H, A]
    spread: Tensor  #: [B, H, A], σ
    taken: Tensor  #: [B, H, A], the mean or a candidate of the last iteration
    cost: Tensor  #: [B], lowest cost of the last iteration


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method: fit a Gaussian to the best candidates, again and again.

        a_s  = μ + σ ε_s,  ε_s ~ N(0, I),  a_0 = μ
        μ, σ ← mean and standard deviation (divisor K − 1) of the K candidates of least cost

    Choose it first: it needs no gradient, has few settings, and tolerates rough costs.

    Source: Rubinstein & Kroese, The Cross-Entropy Method (2004); defaults: LeWM, arXiv:2603.19312,
        and its released solver.
    """

    num_samples: int = 300  #: S, candidates per iteration.
    num_elites: int = 30  #: K, in [2, S].
    init_std: Std = 1.0  #: σ at the start, a number or one per action dim, in planning units.
    min_std: float = 0.0  #: Smallest σ; above 0 the search goes on when elites agree early.
    momentum: float = 0.0  #: Weight of the old μ and σ in the new ones, in [0, 1).
    keep_mean: bool = True  #: Whether candidate 0 is the mean itself.
    returns: Literal["mean", "best"] = "mean"  #: Or the best candidate of the last iteration.
    decay: float = 1.0  #: γ, at least 1; iteration i scores max(S γ^−i, 2K) candidates.
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 2)
        integer("num_elites", self.num_elites, 2, self.num_samples)
        row("init_std", self.init_std)
        numbers(self, min_std="[0, inf)", momentum="[0, 1)", decay="[1, inf)")
        one_of("returns", self.returns, ("mean", "best"))

    def init(self, plan: Tensor, *_: object) -> Gaussian:
        """Mean at the start, the given spread around it; nothing is kept."""
        return Gaussian(plan, as_std(self.init_std, plan, "init_std"), plan, unscored(plan))

    def ask(self, state: Gaussian, noise: Noise) -> Tensor:
        """Draw S candidates."""
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        return _around(state.mean, state.spread, S, noise, keep=self.keep_mean)

    def tell(self, state: Gaussian, scored: Scored) -> Gaussian:
        """Fit the Gaussian to the elites."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        mean, std = gaussian(elites, self.num_elites - 1, state.mean)
        if self.momentum:
            mean = self.momentum * state.mean + (1 - self.momentum) * mean
            std = self.momentum * state.spread + (1 - self.momentum) * std
        if self.min_std:
            std = std.clamp_min(self.min_std)
        taken = mean if self.returns == "mean" else elites[..., 0].view(mean.shape)
        return Gaussian(mean, std, taken, values[:, 0])

    def plan(self, state: Gaussian) -> Tensor:
        """The mean, or the best candidate of the last iteration."""
        return state.taken


class ICEMState(NamedTuple):
    """A Gaussian and the elites that are scored again."""

    mean: Tensor  #: [B, H, A]
    spread: Tensor  #: [B, H, A], σ
    elites: Tensor  #: [B, R, H, A], kept candidates, the best first
    known: Tensor  #: [B], whether `elites` are candidates that were scored
    cost: Tensor  #: [B], cost of the best elite


@dataclass(frozen=True)
class ICEM:
    """Improved cross-entropy method: better plans from fewer candidates.

        a_s  = μ + σ η_s,  η coloured with exponent β;  a share ξ of the last elites stays in
        S_i  = max(S γ^{−i}, 2K)
        μ, σ ← α (μ, σ) + (1 − α) (mean and standard deviation of the K elites)

    Choose it when you can afford few cost evaluations and good plans go the same way for several
    steps. The plan is the best candidate of the last iteration. The next control step starts around
    the shifted mean and scores the shifted elites again. It differs from the source: the mean is a
    candidate in every iteration, a shifted elite ends with its last action again, not with a random
    one, the first start is the given plan, and σ is in planning units, not half widths of the box.

    Source: Pinneri et al., arXiv:2008.06389, Algorithm 1, and its released code; K, α, ξ, γ, σ as
        there, β of the middle of its task-dependent range.
    """

    num_samples: int = 300  #: S, candidates in the first iteration, at least 2K.
    num_elites: int = 10  #: K, at least 2.
    beta: float = 2.0  #: β, noise exponent; 0 is white. As strong as the source's; see `Colored`.
    init_std: Std = 0.5  #: As in `CEM`.
    momentum: float = 0.1  #: α, in [0, 1).
    keep: float = 0.3  #: ξ, share of the elites kept, in [0, 1].
    decay: float = 1.25  #: γ, at least 1; as in `CEM`.
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_elites", self.num_elites, 2)
        integer("num_samples", self.num_samples, 2 * self.num_elites)
        row("init_std", self.init_std)
        numbers(self, beta="[0, inf)", momentum="[0, 1)", keep="[0, 1]", decay="[1, inf)")

    def init(self, plan: Tensor, previous: ICEMState | None = None, steps: int = 0) -> ICEMState:
        """The given spread around the start, or around the shifted mean, and the shifted elites."""
        std, mean = as_std(self.init_std, plan, "init_std"), plan
        R = max(math.ceil(self.keep * self.num_elites), 1)
        elites = plan.unsqueeze(1).expand(-1, R, -1, -1)
        known = torch.zeros_like(plan[:, 0, 0], dtype=torch.bool)
        if previous is not None:
            elites, known = shift(previous.elites, steps), previous.known
            mean = shift(previous.mean, steps) if steps else plan
        return ICEMState(mean, std, elites, known, unscored(plan))

    def ask(self, state: ICEMState, noise: Noise) -> Tensor:
        """Draw S_i candidates: the mean first, the kept elites last."""
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        colour = Colored(self.beta, unit=False)
        candidates = _around(state.mean, state.spread, S, noise, colour)
        if self.keep:
            last = candidates[:, -state.elites.shape[1] :]
            last.copy_(torch.where(state.known[:, None, None, None], state.elites, last))
        return candidates

    def tell(self, state: ICEMState, scored: Scored) -> ICEMState:
        """Fit the Gaussian to the elites and keep the best of them."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        # The divisor is K, as in the source; CEM's is K − 1, as in LeWM's solver.
        mean, std = gaussian(elites, self.num_elites, state.mean)
        α = self.momentum
        mean, std = α * state.mean + (1 - α) * mean, α * state.spread + (1 - α) * std
        kept = elites[..., : state.elites.shape[1]].transpose(1, 2).reshape(state.elites.shape)
        return ICEMState(mean, std, kept, torch.ones_like(state.known), values[:, 0])

    def plan(self, state: ICEMState) -> Tensor:
        """The best candidate of the last iteration."""
        return state.elites[:, 0]


@dataclass(frozen=True)
class MPPI:
    """Path-integral control: average the candidates, weighted by e^{−cost/λ}.

        a_s = μ + σ ε_s,  a_0 = μ
        w_s = softmax_s(−cost_s / λ),  over all candidates or the `top_k` cheapest
        μ   ← Σ_s w_s a_s,   and with `adapt_std`  σ² ← Σ_s w_s (a_s − μ)²

    Choose it where plans must change smoothly from step to step: the average of many candidates
    changes less than the best few. λ is in units of the cost: far above the spread of costs nothing
    is learned, far below only the best candidate counts. With `correlation=Integrated()` it is
    smooth MPPI, with `Kernel(J)` kernel MPPI.

    TD-MPC2's planner, without its policy prior and its noise while training, is `MPPI(512, 2.0,
    2.0, top_k=64, adapt_std=True, min_std=0.05, returns="sample")` with 6 iterations under
    `MPC(horizon=3, …)`; its temperature of 0.5 is 1/λ. The next step starts from the mean.

    Source: Williams et al., arXiv:1707.02342; λ = 1 and σ = 1: pytorch_mppi. TD-MPC2:
        arXiv:2310.16828 and its released code.
    """

    num_samples: int = 300  #: S, candidates per iteration.
    temperature: float = 1.0  #: λ, positive.
    std: Std = 1.0  #: σ, a number or one per action dim, in planning units.
    top_k: int | None = None  #: How many candidates are averaged, in [1, S]; None means all.
    adapt_std: bool = False  #: Whether σ follows the weighted candidates.
    min_std: float = 0.0  #: Smallest σ if it does.
    correlation: Correlation | None = None  #: Of the noise along the horizon; None: independent.
    returns: Literal["mean", "sample"] = "mean"  #: Or a candidate drawn with the weights.
    decay: float = 1.0  #: γ; above 1, which needs `top_k`, iteration i has max(S γ^−i, 2 top_k).
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 1)
        row("std", self.std)
        integer("top_k", 1 if self.top_k is None else self.top_k, 1, self.num_samples)
        numbers(self, temperature="(0, inf)", min_std="[0, inf)", decay="[1, inf)")
        one_of("returns", self.returns, ("mean", "sample"))
        fixed = self.adapt_std or self.min_std == 0
        require(fixed, f"min_std must be 0 without adapt_std, got {self.min_std}")
        whole = self.top_k is not None or self.decay == 1
        require(whole, f"decay must be 1 without top_k, got {self.decay}")

    def init(self, plan: Tensor, previous: Gaussian | None = None, steps: int = 0) -> Gaussian:
        """The nominal plan: the start, or the shifted mean if a candidate was executed."""
        mean = plan
        if previous is not None and steps and self.returns == "sample":
            mean = shift(previous.mean, steps, plan)
        return Gaussian(mean, as_std(self.std, plan, "std"), mean, unscored(plan))

    def ask(self, state: Gaussian, noise: Noise) -> Tensor:
        """Draw S candidates around the nominal plan."""
        S = population(self.num_samples, self.decay, noise.iteration, 2 * (self.top_k or 1))
        return _around(state.mean, state.spread, S, noise, self.correlation)

    def tell(self, state: Gaussian, scored: Scored) -> Gaussian:
        """Average the candidates."""
        costs = scored.costs
        least = costs.amin(1)
        if self.top_k is not None:
            limit = costs.topk(self.top_k, dim=1, largest=False).values[:, -1:]
            costs = costs.masked_fill(costs > limit, torch.inf)
        # Relative to the least cost, so that a constant added to the cost changes nothing.
        relative = (costs - least.unsqueeze(1)).nan_to_num(torch.inf, torch.inf)
        weights = torch.softmax(-relative / self.temperature, 1).to(state.mean.dtype)
        mean = _weighted_mean(scored.candidates, weights)
        std, taken = state.spread, mean
        if self.adapt_std:
            deviation = scored.candidates - mean.unsqueeze(1)
            std = _weighted_mean(deviation * deviation, weights).sqrt().clamp_min(self.min_std)
        if self.returns == "sample":
            # The largest log w − log(−log u) is a candidate with the probability of its weight.
            wide = torch.promote_types(weights.dtype, torch.float32)  # below, u rounds to 1
            u = scored.noise.uniform((weights.shape[1],), dtype=wide, lane=1)
            taken = pick(scored.candidates, (weights.log() - (-u.log()).log()).argmax(1))
        return Gaussian(mean, std, taken, least)

    def plan(self, state: Gaussian) -> Tensor:
        """The nominal plan, or the candidate drawn in the last iteration."""
        return state.taken


class Best(NamedTuple):
    """The best candidate of a method, or of the one that a wrapper holds."""

    nominal: Tensor  #: [B, H, A]
    cost: Tensor  #: [B], its cost
    spread: Tensor | float
    inner: Any = None  #: state of the wrapped method

    def improved(self, scored: Scored) -> "Best":
        """With the cheapest of the scored candidates, where it costs less."""
        candidate, cost = best(scored.candidates, scored.costs)
        better = cost < self.cost
        nominal = torch.where(better[:, None, None], candidate, self.nominal)
        return self._replace(nominal=nominal, cost=torch.where(better, cost, self.cost))


@dataclass(frozen=True)
class PredictiveSampling:
    """The simplest planner that works: change the plan at random and keep the cheapest.

        a_0 = plan,  a_s = plan + σ ε_s
        plan ← the cheapest candidate

    Choose it as a baseline, or when an iteration must be as cheap as possible. Its cost never
    rises. `correlation=Kernel(J)` gives the few spline knots of the source.

    Source: Howell et al., arXiv:2212.00541, Section 4; S as in `CEM`, not the source's 10.
    """

    num_samples: int = 300  #: S, at least 2.
    std: Std = 0.3  #: σ, a number or one per action dim, in planning units.
    correlation: Correlation | None = None  #: Of the noise along the horizon; None: independent.
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 2)
        row("std", self.std)

    def init(self, plan: Tensor, *_: object) -> Best:
        """The start is the plan. σ stays constant, so the search never settles."""
        return Best(plan, unscored(plan), spread=torch.inf)

    def ask(self, state: Best, noise: Noise) -> Tensor:
        """The plan and S − 1 changes of it."""
        std = as_std(self.std, state.nominal, "std")
        return _around(state.nominal, std, self.num_samples, noise, self.correlation)

    def tell(self, state: Best, scored: Scored) -> Best:
        """Keep the best."""
        nominal, cost = best(scored.candidates, scored.costs)
        return state._replace(nominal=nominal, cost=cost)

    def plan(self, state: Best) -> Tensor:
        """The best candidate."""
        return state.nominal
