"""What all our worlds share: actions in a box, checked states, and sessions."""

import importlib.util
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from worldmodel._arguments import checked
from worldmodel._extras import install
from worldmodel.worlds.contract import Floats, Pixels

__all__ = ["BoxSession", "BoxWorld"]


class BoxSession:
    """N agents in their states (`worldmodel.worlds.Session`), actions clipped to [−1, 1]."""

    def __init__(self, world: "BoxWorld", states: Floats) -> None:
        self._world, self.states = world, np.array(states, np.float32)

    @checked(actions="N A")
    def step(self, actions: Floats) -> Floats:
        wanted = (len(self.states), self._world.action_dim)
        if actions.shape != wanted or not np.isfinite(actions).all():
            raise ValueError(f"actions must be finite {list(wanted)}, got {list(actions.shape)}")
        clipped = np.clip(actions, -1, 1).astype(np.float32)
        self.states = self._world.step(self.states, clipped)
        return self.states.copy()

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        return self._world.render(self.states if agents is None else self.states[agents])

    def close(self) -> None:
        """Whatever runs behind it belongs to the world."""


class BoxWorld(ABC):
    """The half of `worldmodel.worlds.World` that needs to know no rules; actions in [−1, 1]^A."""

    name: str
    state_dim: int
    action_dim: int
    smallest = 16  #: side of a frame
    published = -1  #: width of states that are taken too, if there are, what they lack being 0
    package = ""  #: module that the extra of this world's name brings
    distributions: tuple[str, ...] = ("numpy",)  #: whose versions decide, where installed

    def __init__(self, image_size: int) -> None:
        if image_size < self.smallest:
            raise ValueError(f"image_size must be at least {self.smallest}, got {image_size}")
        # Looked for without importing it: that may open an OpenGL context.
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ImportError(f"{self.name} needs the package {self.package}: {install(self.name)}")
        self.image_size = image_size
        self.action_low = np.full(self.action_dim, -1, np.float32)
        self.action_high = np.full(self.action_dim, 1, np.float32)

    @abstractmethod
    def step(self, states: Floats, actions: Floats) -> Floats:
        """Act once everywhere, a function of its arguments alone: [N, S], [N, A] -> [N, S]."""

    @abstractmethod
    def render(self, states: Floats) -> Pixels:
        """[N, S] -> [N, 3, H, W]."""

    @abstractmethod
    def renderer(self) -> str:
        """What draws the pictures."""

    @checked(states="any N S")
    def start(self, states: Floats) -> BoxSession:
        """One agent in each state [N, S]; ValueError for another shape or what is not finite."""
        return BoxSession(self, self._checked(states))

    @checked(states="any N S")
    def draw(self, states: Floats) -> Pixels:
        """Pictures of states, checked as in `start`: [N, S] -> [N, 3, H, W]."""
        return self.render(self._checked(states))

    def idle(self, states: Floats) -> Floats:
        """Zeros: no step, no torque, and springs hold what they hold."""
        return np.zeros((len(states), self.action_dim), np.float32)

    def versions(self) -> dict[str, str]:
        """Each package behind the world, and what draws it."""
        found = {name: _version(name) for name in self.distributions}
        known = {name: number for name, number in found.items() if number}
        return {**known, "rendering": self.renderer()}

    def _checked(self, states: Floats) -> Floats:
        S = self.state_dim
        if states.ndim == 2 and states.shape[1] == self.published:
            states = np.pad(states, ((0, 0), (0, S - self.published)))
        if states.ndim != 2 or states.shape[1] != S or not np.isfinite(states).all():
            found = f"{list(states.shape)}, {(~np.isfinite(states)).sum()} of them NaN or inf"
            raise ValueError(f"states must be finite [N, {S}], got {found}")
        return states.astype(np.float32)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
