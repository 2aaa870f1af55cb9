"""The contract of a world: collection, study and evaluation need nothing else.

Letters: N independent agents, S state dims, A action dims.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Expert", "Flags", "Floats", "Pixels", "Session", "World", "imports_code", "kind_of"]

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Expert = Callable[[Floats], Floats]
"""A scripted policy for given goals: states [N, S] -> actions [N, A], one raw step."""


class Session(Protocol):
    """N agents, started in given states."""

    def step(self, actions: Floats) -> Floats:
        """Act once with every agent: [N, A] in the world's units -> states [N, S]."""

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        """The present frames of all agents, or of those named: [n, 3, H, W]."""

    def close(self) -> None:
        """Release the resources of the session; closing twice is harmless."""


class World(Protocol):
    """The rules of a world: states, starts, and success.

    A state is complete: the same state, actions and versions give the same next states.
    """

    name: str  #: such as "two-room" or "push-t"
    image_size: int  #: side H = W of the frames
    state_dim: int  #: S
    action_dim: int  #: A, of one raw step
    action_low: Floats  #: [A], lowest action
    action_high: Floats  #: [A], highest action
    criterion: str  #: success in one line, with its source

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts of episodes, with all randomness from `rng`: [num, S]."""

    def start(self, states: Floats) -> Session:
        """A session with one agent in each state [N, S]."""

    def draw(self, states: Floats) -> Pixels:
        """Pictures of states, such as goals: [N, S] -> [N, 3, H, W], uint8."""

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether each state reaches its goal: [..., S], [..., S] -> [...]."""

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """How far each state is from its goal, in the unit `success` measures: [...]."""

    def idle(self, states: Floats) -> Floats:
        """The actions [N, A] that change least."""

    def expert(self, goals: Floats) -> Expert | None:
        """A scripted policy without noise for the goals [N, S], or None if there is none.

        It may have memory: make a new one for every attempt.
        """

    def versions(self) -> dict[str, str]:
        """Packages and renderer that determine results and pictures."""


def kind_of(name: str) -> str:
    """The world's name without its layout: `maze-7` is a `maze`, `gymnasium:ID` is `gymnasium`."""
    if name.startswith("gymnasium:"):
        return "gymnasium"
    return "maze" if name.startswith("maze-") else name


def imports_code(name: str) -> bool:
    """Whether `open_world` imports a module that the name itself names."""
    return ":" in name.removeprefix("gymnasium:")
