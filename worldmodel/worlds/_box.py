"""Shared by all our worlds: actions in a box, checked states, and sessions."""

import importlib.util
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from worldmodel._arguments import checked
from worldmodel._extras import install
from worldmodel.worlds.contract import Floats, Pixels

__all__ = ["BoxSession", "BoxWorld"]


class BoxSession:
    """N agents in their states (`worldmodel.worlds.Session`), actions clipped to its box."""

    def __init__(self, world: "BoxWorld", states: Floats) -> None:
        self._world, self.states = world, np.array(states, np.float32)

    @checked(actions="N A")
    def step(self, actions: Floats) -> Floats:
        wanted = (len(self.states), self._world.action_dim)
        if actions.shape != wanted or not np.isfinite(actions).all():
            raise ValueError(f"actions must be finite {list(wanted)}, got {list(actions.shape)}")
        clipped = np.clip(actions, self._world.action_low, self._world.action_high)
        self.states = self._world.step(self.states, clipped.astype(np.float32))
        return self.states.copy()

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        return self._world.render(self.states if agents is None else self.states[agents])

    def close(self) -> None:
        """Nothing to close: simulators belong to the world."""


class BoxWorld(ABC):
    """The part of `worldmodel.worlds.World` shared by our worlds; actions in [−1, 1]^A."""

    name: str
    state_dim: int
    action_dim: int
    smallest = 16  #: side of a frame
    published = -1  #: width of shorter states, which are filled up with 0; -1 for none
    package = ""  #: module that this world's extra installs
    distributions: tuple[str, ...] = ("numpy",)  #: packages whose versions matter, if installed

    def __init__(self, image_size: int) -> None:
        if image_size < self.smallest:
            raise ValueError(f"image_size must be at least {self.smallest}, got {image_size}")
        # Looked for, not imported: an import may open an OpenGL context.
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ImportError(f"{self.name} needs the package {self.package}: {install(self.name)}")
        self.image_size = image_size
        self.action_low = np.full(self.action_dim, -1, np.float32)
        self.action_high = np.full(self.action_dim, 1, np.float32)

    @abstractmethod
    def step(self, states: Floats, actions: Floats) -> Floats:
        """Act once in every state: [N, S], [N, A] -> [N, S], a pure function."""

    @abstractmethod
    def render(self, states: Floats) -> Pixels:
        """[N, S] -> [N, 3, H, W]."""

    @abstractmethod
    def renderer(self) -> str:
        """Name of the renderer."""

    @checked(states="any N S")
    def start(self, states: Floats) -> BoxSession:
        """One agent in each state [N, S]; ValueError for another shape or non-finite values."""
        return BoxSession(self, self._checked(states))

    @checked(states="any N S")
    def draw(self, states: Floats) -> Pixels:
        """Pictures of states, checked as in `start`: [N, S] -> [N, 3, H, W]."""
        return self.render(self._checked(states))

    def idle(self, states: Floats) -> Floats:
        """Zeros, no step, no torque, no force, or the bounds that are nearest."""
        zeros = np.zeros((len(states), self.action_dim), np.float32)
        return zeros.clip(self.action_low, self.action_high)

    def versions(self) -> dict[str, str]:
        """Versions of the packages of the world, and its renderer."""
        found = {}
        for name in self.distributions:
            with suppress(PackageNotFoundError):
                found[name] = version(name)
        return {**found, "rendering": self.renderer()}

    def _checked(self, states: Floats) -> Floats:
        S = self.state_dim
        if states.ndim == 2 and states.shape[1] == self.published:
            states = np.pad(states, ((0, 0), (0, S - self.published)))
        if states.ndim != 2 or states.shape[1] != S or not np.isfinite(states).all():
            found = f"{list(states.shape)}, {(~np.isfinite(states)).sum()} of them NaN or inf"
            raise ValueError(f"states must be finite [N, {S}], got {found}")
        return states.astype(np.float32)
