"""One method after another: a search, then a polish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from torch import Tensor

from planners._arguments import instance, integer, require
from planners.contract import Method, Scored, State
from planners.noise import Noise

__all__ = ["Refine", "RefineState"]

FirstT = TypeVar("FirstT", bound=State)
SecondT = TypeVar("SecondT", bound=State)


@dataclass(frozen=True)
class RefineState(Generic[FirstT, SecondT]):
    """Both methods' states, and whose turn it is.

    Attributes:
        iteration: how many iterations are done.
        first: of the first method.
        second: of the second method; before its first turn what it keeps of an earlier search.
        begun: whether the second method has had a turn.
    """

    iteration: int
    first: FirstT
    second: SecondT
    begun: bool = False

    @property
    def cost(self) -> Tensor:
        """[B], of the phase that runs."""
        return self.second.cost if self.begun else self.first.cost

    @property
    def spread(self) -> Tensor | float:
        """Of the second method; a search does not end before its turn."""
        return self.second.spread if self.begun else float("inf")


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
    Raises: ValueError if `after` < 1, or one method is discrete and the other is not; TypeError on
        an argument of another kind.
    Source: CEM then gradient descent: Huang et al., CEM-GD, arXiv:2112.07746.
    """

    first: Method[FirstT]
    then: Method[SecondT]
    after: int

    def __post_init__(self) -> None:
        instance("first", self.first, Method, "CEM()")
        instance("then", self.then, Method, "GradientDescent()")
        integer("after", self.after, 1)
        require(
            self.first.discrete == self.then.discrete,
            f"first and then must both be discrete or both not, got {self.first} and {self.then}",
        )

    @property
    def discrete(self) -> bool:
        """As both methods."""
        return self.first.discrete

    def init(
        self,
        plan: Tensor,
        previous: RefineState[FirstT, SecondT] | None = None,
        steps: int = 0,
    ) -> RefineState[FirstT, SecondT]:
        """Both methods' starts; each keeps of its own last search what it keeps."""
        before = (None, None) if previous is None else (previous.first, previous.second)
        first = self.first.init(plan, before[0], steps)
        return RefineState(0, first, self.then.init(plan, before[1], steps))

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
            return replace(state, iteration=done, first=self.first.tell(state.first, scored))
        scored = scored._replace(noise=scored.noise.later(self.after))
        second = self.then.tell(self._second(state), scored)
        return RefineState(done, state.first, second, begun=True)

    def plan(self, state: RefineState[FirstT, SecondT]) -> Tensor:
        """Of the method whose turn it was."""
        return self.then.plan(state.second) if state.begun else self.first.plan(state.first)

    def _second(self, state: RefineState[FirstT, SecondT]) -> SecondT:
        """The second method starts at the first one's plan."""
        if state.begun:
            return state.second
        return self.then.init(self.first.plan(state.first), state.second)
