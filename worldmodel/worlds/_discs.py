"""Worlds of a disc among walls: rules and pictures for any position of the walls."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from worldmodel._arguments import checked
from worldmodel.worlds._box import BoxWorld
from worldmodel.worlds.contract import Expert, Flags, Floats, Pixels

__all__ = ["BORDER", "THICKNESS", "DiscWorld", "paint_rooms", "sample_grid"]

BORDER, THICKNESS = 4.0, 10.0  # of the square's edge, and of walls inside it

_FLOOR, _WALL, _AGENT = ((244, 241, 234), (62, 68, 84), (222, 73, 55))
_FINE = 8  # samples per side of a pixel, for walls that end between pixels


class DiscWorld(BoxWorld):
    """A disc in a square of 224, simulated and drawn for N independent agents.

    A state begins with the disc's centre x, y, y downwards. An action moves it by `speed` × action,
    first along x, then along y; walls stop it, doors let it through. A frame shows the square.
    """

    size = 224.0  #: side of the world
    radius = 7.0  #: of the disc
    speed = 8.0  #: largest step along each axis
    success_radius = 16.0  #: a goal is reached when the centres are closer than this
    action_dim = 2

    @checked(states="N state_dim", actions="N action_dim")
    def step(self, states: Floats, actions: Floats) -> Floats:
        """Move every agent once: [N, S], [N, 2] -> [N, S]."""
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite, got NaN or inf")
        return self._moved(states, self.speed * np.clip(actions, -1.0, 1.0))

    def render(self, states: Floats) -> Pixels:
        """Draw every agent in its own frame: [N, S] -> [N, 3, H, W], uint8."""
        return _paint_discs(self._empty(states), states[:, :2], self.radius, self.size)

    def renderer(self) -> str:
        return "numpy"

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """Straight distance between centres, in world units; inf between different mazes."""
        straight = np.linalg.norm(states[..., :2] - goals[..., :2], axis=-1)
        same = (states[..., 2:] == goals[..., 2:]).all(-1)
        return (straight + np.where(same, 0.0, np.inf)).astype(np.float32)

    @checked(states="* S", goals="* S")
    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether each state is within the success radius of its goal."""
        return self.distance(states, goals) < self.success_radius

    def expert(self, goals: Floats) -> Expert:
        """Walk to the goals [N, S], through doors if needed."""
        return lambda states: self.steer(states, self.waypoint(states, goals)).astype(np.float32)

    def steer(self, states: Floats, waypoints: Floats) -> Floats:
        """Actions [N, 2] straight towards points, at full speed until one step away."""
        heading = waypoints[:, :2] - states[:, :2]
        length = np.maximum(np.abs(heading).max(-1, keepdims=True), 1e-6)
        return heading / length * np.minimum(length / self.speed, 1.0)

    @abstractmethod
    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Positions of a disc clear of the walls: [num, S]."""

    @abstractmethod
    def waypoint(self, states: Floats, targets: Floats) -> Floats:
        """The targets, or points [N, 2] on the way through the next door."""

    @abstractmethod
    def new_targets(self, rng: np.random.Generator, states: Floats, cross: float) -> Floats:
        """Targets [N, S] from `states`, in another room with probability `cross`."""

    @abstractmethod
    def _moved(self, states: Floats, delta: Floats) -> Floats:
        """States after moves [N, 2], stopped by walls."""

    @abstractmethod
    def _empty(self, states: Floats) -> Pixels:
        """A frame without an agent for each state."""


def _paint_discs(frames: Pixels, centres: Floats, radius: float, size: float) -> Pixels:
    """Paint a disc at each centre [N, 2], in place; its soft edge shows small moves."""
    side = frames.shape[-1]
    scale = side / size
    reach = int(np.ceil(radius * scale + 1))
    centre = centres * scale - 0.5
    offsets = np.arange(-reach, reach + 1)
    nearest = np.rint(centre).astype(np.int64)
    columns = np.clip(nearest[:, 0, None] + offsets, 0, side - 1)
    rows = np.clip(nearest[:, 1, None] + offsets, 0, side - 1)
    down = rows[:, :, None] - centre[:, 1, None, None]
    across = columns[:, None, :] - centre[:, 0, None, None]
    distance = np.hypot(down, across)
    cover = np.clip(radius * scale + 0.5 - distance, 0.0, 1.0)[..., None]
    each = np.arange(len(centres))[:, None, None]
    where = (each, slice(None), rows[:, :, None], columns[:, None, :])
    under = frames[where]
    frames[where] = np.rint(under + cover * (np.asarray(_AGENT, np.float32) - under))
    return frames


def sample_grid(image_size: int, size: float) -> NDArray[np.float64]:
    """Coordinates of the samples along one side, for `paint_rooms`: [image_size × 8]."""
    return (np.arange(image_size * _FINE) + 0.5) * size / (image_size * _FINE)


def paint_rooms(solid: Flags) -> Pixels:
    """Walls on a floor; a pixel is the mean of its samples: [8 H, 8 H] -> [3, H, H]."""
    side = len(solid) // _FINE
    cover = solid.astype(np.float32).reshape(side, _FINE, side, _FINE).mean((1, 3))
    floor, wall = (np.asarray(colour)[:, None, None] for colour in (_FLOOR, _WALL))
    return np.rint(floor * (1 - cover) + wall * cover).astype(np.uint8)
