"""What a world must offer to be collected from, studied and evaluated on.

Letters: N agents side by side that do not see each other, S state dims, A action dims.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Expert", "Flags", "Floats", "Pixels", "Session", "World", "kind_of"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Expert = Callable[[Floats], Floats]
"""A scripted way to goals it was told: states [N, S] -> actions [N, A], one raw step."""


class Session(Protocol):
    """N agents on their way, from the states they were started in."""

    def step(self, actions: Floats) -> Floats:
        """Act once everywhere: [N, A] in the world's units -> states [N, S]."""

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        """Frames as they are now, of all agents or of those named: [n, 3, H, W]."""

    def close(self) -> None:
        """Give back whatever runs behind the session; closing twice is harmless."""


class World(Protocol):
    """The rules of a world: what a state is, where it may start, and what counts as arrived.

    A state is all there is: the same state, actions and versions give the same states again.
    """

    name: str  #: what people call it, "two-room", "push-t", …
    image_size: int  #: side H = W of the frames
    state_dim: int  #: S
    action_dim: int  #: A, of one raw step
    action_low: Floats  #: [A], lowest action
    action_high: Floats  #: [A], highest action
    criterion: str  #: success in one line, with its source

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Where episodes may begin, all randomness from `rng`: [num, S]."""

    def start(self, states: Floats) -> Session:
        """Put one agent into each state [N, S]."""

    def draw(self, states: Floats) -> Pixels:
        """Pictures of states, of a goal for instance: [N, S] -> [N, 3, H, W], uint8."""

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether each state counts as its goal reached: [..., S], [..., S] -> [...]."""

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """How far each state is from its goal, in the unit `success` measures: [...]."""

    def idle(self, states: Floats) -> Floats:
        """The actions [N, A] that change least: what doing nothing means here."""

    def expert(self, goals: Floats) -> Expert | None:
        """A scripted, noiseless way to the goals [N, S], or None where nobody has written one.

        It may remember things from step to step: make a new one for every attempt.
        """

    def versions(self) -> dict[str, str]:
        """Packages and rendering backend that decide what happens and how it looks."""


def kind_of(name: str) -> str:
    """The rules behind a world's name: `maze-7` is a `maze`."""
    return "maze" if name.startswith("maze-") else name
