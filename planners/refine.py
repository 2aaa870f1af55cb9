"""One method after another: a search, then a polish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from planners._common import require
from planners.contract import Method, Scored, State
from planners.noise import Noise

__all__ = ["Refine", "RefineState"]

FirstT = TypeVar("FirstT", bound=State)
SecondT = TypeVar("SecondT", bound=State)


@dataclass(frozen=True)
class RefineState(Generic[FirstT, SecondT]):
    """The state of the phase that runs.

    Attributes:
        iteration: how many iterations are done.
        first: of the first method.
        second: of the second method; None before its first turn.
    """

    iteration: int
    first: FirstT
    second: SecondT | None

    @property
    def cost(self) -> Tensor:
        """[B], of the phase that runs."""
        return self.first.cost if self.second is None else self.second.cost


@dataclass(frozen=True)
class Refine(Generic[FirstT, SecondT]):
    """A first method for `after` iterations, then a second one from where it ended.

    Choose `Refine(CEM(), GradientDescent(), after=…)` where the cost is smooth but has several
    valleys: sampling finds the valley, gradients its floor. Gradients are computed in the second
    phase alone.

    Args:
        first: any method.
        then: any method; it starts at the first one's plan.
        after: iterations of the first, at least 1.
    Raises: ValueError if `after` < 1, or one method is discrete and the other is not.
    Source: CEM then gradient descent: Huang et al., CEM-GD, arXiv:2112.07746.
    """

    first: Method[FirstT]
    then: Method[SecondT]
    after: int

    def __post_init__(self) -> None:
        require(self.after >= 1, f"after must be at least 1, got {self.after}")
        require(
            self.first.discrete == self.then.discrete,
            f"first and then must both be discrete or both not, got {self.first} and {self.then}",
        )

    @property
    def discrete(self) -> bool:
        """As both methods."""
        return self.first.discrete

    def init(self, plan: Tensor) -> RefineState[FirstT, SecondT]:
        """The first method's start."""
        return RefineState(0, self.first.init(plan), None)

    def ask(self, state: RefineState[FirstT, SecondT], noise: Noise) -> Tensor:
        """As the method whose turn it is."""
        if state.iteration < self.after:
            return self.first.ask(state.first, noise)
        return self.then.ask(self._second(state), noise.later(self.after))

    def tell(
        self, state: RefineState[FirstT, SecondT], scored: Scored
    ) -> RefineState[FirstT, SecondT]:
        """As the method whose turn it is."""
        done = state.iteration + 1
        if state.iteration < self.after:
            return RefineState(done, self.first.tell(state.first, scored), None)
        scored = scored._replace(noise=scored.noise.later(self.after))
        return RefineState(done, state.first, self.then.tell(self._second(state), scored))

    def plan(self, state: RefineState[FirstT, SecondT]) -> Tensor:
        """Of the method whose turn it was."""
        if state.second is None:
            return self.first.plan(state.first)
        return self.then.plan(state.second)

    def _second(self, state: RefineState[FirstT, SecondT]) -> SecondT:
        if state.second is None:
            return self.then.init(self.first.plan(state.first))
        return state.second
