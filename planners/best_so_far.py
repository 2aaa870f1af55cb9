"""Wraps any method: the plan is the best candidate of all iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planners._arguments import instance
from planners._common import best
from planners.contract import Method, Scored
from planners.noise import Noise

__all__ = ["BestSoFar", "BestSoFarState"]


class BestSoFarState(NamedTuple):
    """The wrapped method's state, and the best candidate."""

    inner: Any
    nominal: Tensor  # [B, H, A]
    cost: Tensor  # [B], its cost

    @property
    def spread(self) -> Tensor | float:
        """As the wrapped method."""
        spread: Tensor | float = self.inner.spread
        return spread


@dataclass(frozen=True)
class BestSoFar:
    """The cheapest candidate ever scored, whatever the method makes of it.

    Choose it when the plan is executed as it is and the cost can be trusted: the result has a
    scored cost, which never rises. An average (CEM's mean, MPPI) is the safer choice where the
    cost has errors that a search finds and exploits.

    Args:
        method: any method.
    Raises: TypeError if `method` is none.
    """

    method: Method[Any]

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")

    @property
    def discrete(self) -> bool:
        """As the wrapped method."""
        return self.method.discrete

    def init(
        self, plan: Tensor, previous: BestSoFarState | None = None, steps: int = 0
    ) -> BestSoFarState:
        """Nothing is scored yet: the start stands in. The wrapped method keeps what it keeps."""
        inner = self.method.init(plan, previous and previous.inner, steps)
        return BestSoFarState(inner, plan, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: BestSoFarState, noise: Noise) -> Tensor:
        """As the wrapped method."""
        return self.method.ask(state.inner, noise)

    def tell(self, state: BestSoFarState, scored: Scored) -> BestSoFarState:
        """Compare this iteration's best candidate with the best so far."""
        candidate, cost = best(scored.candidates, scored.costs)
        better = cost < state.cost
        nominal = torch.where(better[:, None, None], candidate, state.nominal)
        inner = self.method.tell(state.inner, scored)
        return BestSoFarState(inner, nominal, torch.where(better, cost, state.cost))

    def plan(self, state: BestSoFarState) -> Tensor:
        """The best candidate so far."""
        return state.nominal
