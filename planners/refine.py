"""One method after another: a search, then a polish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from planners._arguments import instance, integer, require
from planners.contract import Method, Scored
from planners.noise import Noise

__all__ = ["Refine", "RefineState"]


class RefineState(NamedTuple):
    """Both methods' states, and whose turn it is."""

    iteration: int  # how many are done
    first: Any
    second: Any  # before its first turn what it keeps of an earlier search
    begun: bool = False  # whether the second method has had a turn

    @property
    def cost(self) -> Tensor:
        """[B], of the phase that runs."""
        cost: Tensor = (self.second if self.begun else self.first).cost
        return cost

    @property
    def spread(self) -> Tensor | float:
        """Of the second method; a search does not end before its turn."""
        spread: Tensor | float = self.second.spread if self.begun else float("inf")
        return spread


@dataclass(frozen=True)
class Refine:
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

    first: Method[Any]
    then: Method[Any]
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
        self, plan: Tensor, previous: RefineState | None = None, steps: int = 0
    ) -> RefineState:
        """Both methods' starts; each keeps of its own last search what it keeps."""
        first = self.first.init(plan, previous and previous.first, steps)
        return RefineState(0, first, self.then.init(plan, previous and previous.second, steps))

    def ask(self, state: RefineState, noise: Noise) -> Tensor:
        """As the method whose turn it is."""
        if state.iteration < self.after:
            return self.first.ask(state.first, noise)
        return self.then.ask(self._second(state), noise.later(self.after))

    def tell(self, state: RefineState, scored: Scored) -> RefineState:
        """As the method whose turn it is."""
        done = state.iteration + 1
        if done <= self.after:
            return state._replace(iteration=done, first=self.first.tell(state.first, scored))
        scored = scored._replace(noise=scored.noise.later(self.after))
        second = self.then.tell(self._second(state), scored)
        return RefineState(done, state.first, second, begun=True)

    def plan(self, state: RefineState) -> Tensor:
        """Of the method whose turn it was."""
        return self.then.plan(state.second) if state.begun else self.first.plan(state.first)

    def _second(self, state: RefineState) -> Any:
        """The second method starts at the first one's plan."""
        if state.begun:
            return state.second
        return self.then.init(self.first.plan(state.first), state.second)
