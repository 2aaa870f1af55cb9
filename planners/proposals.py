"""Proposed plans, scored by the cost: the best is executed or refined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planners._arguments import instance, require, shown
from planners._common import unscored
from planners.contract import Bounds, Method, Scored
from planners.noise import Noise
from planners.sampling import Best

__all__ = ["Proposals"]

Source = Tensor | Callable[[Tensor, Noise], Tensor] | Method[Any]
"""Plans [B, P, H, A] in planning units, or a function of the start [B, H, A] and noise, or a method
whose first candidates are taken, such as `PredictiveSampling(8, 0.3)` for variants of the start."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """The cheapest of several proposed plans, refined by a method.

        first iteration     cost(start), cost(proposal_1), …, cost(proposal_P)
        later iterations    `method`, begun at the cheapest of them
        plan                the cheapest candidate ever scored

    Choose it where a policy, a record or the last plan knows roughly what to do: a few proposals
    replace hundreds of random candidates. Proposals are never averaged, so two ways around a wall
    do not become one into it, and the plan never costs more than the best proposal. The start is
    one of them; under `MPC` it is the rest of the last plan. Proposals belong to one moment: pass
    new ones at each step, `mpc.act(cost, method=Proposals(method, plans, bounds))`.

    Raises: ValueError if more than a quarter of the proposed numbers lie outside of `bounds`, or
        one by more than their width; later, if proposals are not [B, P, H, A]. TypeError on others.
    Source: best of N, LeWAM, arXiv:2610.12818; a small search around a proposal with a floor on σ,
        PRISM, arXiv:2606.07974.
    """

    #: Refines the cheapest, with a narrow spread that has a floor, such as
    #: `CEM(16, 4, init_std=0.3, min_std=0.05)`; None does not search further.
    method: Method[Any] | None
    candidates: Source | tuple[Source, ...] = ()  #: A `Source`, or a tuple of them; () for none.
    #: Those of the search, which clamps to them; proposals in other units are refused.
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()", optional=True)
        instance("bounds", self.bounds, Bounds, "Bounds(-1, 1)", optional=True)
        for source in self._sources:
            if isinstance(source, Tensor):
                self._check(source)
            elif not callable(source):
                instance("candidates", source, Method, "plans [B, P, H, A]")

    @property
    def discrete(self) -> bool:
        """As the method; proposals alone are free actions."""
        return self.method is not None and self.method.discrete

    def init(self, plan: Tensor, previous: Best | None = None, steps: int = 0) -> Best:
        """The start; the method keeps what it keeps of its own last search."""
        kept = self.method and self.method.init(plan, previous and previous.inner, steps)
        return Best(plan, unscored(plan), torch.inf, kept)

    def ask(self, state: Best, noise: Noise) -> Tensor:
        """The start and the proposals, then as the method."""
        if self.method is None or not noise.iteration:
            return self._proposed(state.nominal, noise)
        return self.method.ask(state.inner, noise.later(1))

    def tell(self, state: Best, scored: Scored) -> Best:
        """Keep the cheapest; the method begins there."""
        found = state.improved(scored)
        if self.method is None:
            return found
        if scored.noise.iteration:
            inner = self.method.tell(state.inner, scored._replace(noise=scored.noise.later(1)))
        else:
            inner = self.method.init(found.nominal, state.inner)
        return found._replace(spread=inner.spread, inner=inner)

    def plan(self, state: Best) -> Tensor:
        """The cheapest so far."""
        return state.nominal

    @property
    def _sources(self) -> tuple[Source, ...]:
        return self.candidates if isinstance(self.candidates, tuple) else (self.candidates,)

    def _proposed(self, plan: Tensor, noise: Noise) -> Tensor:
        """The start and the proposals of all sources: [B, 1 + P, H, A]."""
        found, (B, H, A) = [plan.unsqueeze(1)], plan.shape
        for source in self._sources:
            if isinstance(source, Tensor):
                plans = source
            elif isinstance(source, Method):
                plans = source.ask(source.init(plan), noise)
            else:
                plans = source(plan, noise)
                self._check(plans)
            require(
                plans.ndim == 4 and (plans.shape[0], *plans.shape[2:]) == (B, H, A),
                f"candidates must be [B, P, H, A] = [{B}, P, {H}, {A}], got {shown(plans)}",
            )
            found.append(plans.detach().to(plan))
        return torch.cat(found, 1)

    def _check(self, plans: Tensor) -> None:
        """Refuse proposals in other units; checked once, if there are bounds."""
        if self.bounds is None or torch.compiler.is_compiling() or not plans.numel():
            return
        low, high = self.bounds.box(plans)
        beyond = torch.maximum(low - plans, plans - high).clamp_min(0)
        # A recorded action on the edge may be rounded over it.
        share = (beyond > 1e-4 * (high - low)).float().mean()
        far = (beyond > high - low).any()
        if bool(far) or float(share) > 0.25 or not bool(plans.isfinite().all()):
            box = [[round(x, 3) for x in side.reshape(-1).tolist()] for side in (low, high)]
            raise ValueError(
                f"candidates must be in planning units, inside {box[0]} to {box[1]}: "
                f"{float(share):.0%} of their numbers lie outside, up to "
                f"{float(plans.abs().max()):.3g}; Bounds.from_environment converts"
            )
