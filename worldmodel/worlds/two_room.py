"""Two-Room: a disc, two rooms, a wall and a door, simulated and drawn for many agents at once.

Lengths are in the published world's units, a square of 224; a frame of any size shows all of it.
The core is vectorised: states [N, 2] in, states [N, 2] out. `start` puts the contract of
`worldmodel.worlds.World` around it, `TwoRoomEnv` the interface of gymnasium.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds._discs import paint_discs, paint_rooms, sample_grid
from worldmodel.worlds.contract import Expert

__all__ = ["Rooms", "TwoRoom", "TwoRoomSession"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_BORDER, _THICKNESS = 4.0, 10.0


class TwoRoom:
    """The rules and the pictures of Two-Room, for N agents that do not see each other.

    A state is the centre (x, y) of a disc, y downwards. An action in [−1, 1]² moves it by
    `speed` × action, first along x, then along y, and the wall stops it; only the door lets it
    through. There is no randomness.

    Attributes:
        size: side of the world, 224.
        radius: of the disc, 7.
        speed: largest step along each axis, 8.
        success_radius: 16; a goal is reached when the centres are closer than this.
        door: (centre, half height) of the door along y.
    Source: world size, disc and success radius as in stable-worldmodel's Two-Room
        (LeWM, arXiv:2603.19312, Section 4); rules and pictures are our own.
    """

    name = "two-room"
    criterion = (
        "centres closer than 16 of 224 units, as in stable-worldmodel's Two-Room (LeWM, "
        "arXiv:2603.19312, Section 4)"
    )
    size = 224.0
    radius = 7.0
    speed = 8.0
    success_radius = 16.0
    door = (112.0, 20.0)
    state_dim = 2
    action_dim = 2
    action_low = np.full(2, -1, np.float32)
    action_high = np.full(2, 1, np.float32)

    def __init__(self, image_size: int = 64) -> None:
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, got {image_size}")
        self.image_size = image_size
        self._empty = self._draw_rooms()

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Positions drawn evenly over both rooms, clear of the walls: [num, 2]."""
        low, high, left, right = self.limits()
        states = rng.uniform(low, high, (num, 2))
        inside = (states[:, 0] > left) & (states[:, 0] < right)
        states[inside, 0] = np.where(
            rng.random(inside.sum()) < 0.5,
            rng.uniform(low, left, inside.sum()),
            rng.uniform(right, high, inside.sum()),
        )
        return states.astype(np.float32)

    def step(self, states: Floats, actions: Floats) -> Floats:
        """Move every agent once: [N, 2], [N, 2] -> [N, 2].

        Raises: ValueError if the shapes disagree or an action is not finite.
        """
        if states.shape != actions.shape or states.shape[-1] != 2:
            raise ValueError(
                f"states and actions must both be [N, 2], got {states.shape} and {actions.shape}"
            )
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite, got NaN or inf")
        low, high, left, right = self.limits()
        centre, half = self.door
        x, y = states[:, 0], states[:, 1]
        delta = self.speed * np.clip(actions, -1.0, 1.0)

        to_x = np.clip(x + delta[:, 0], low, high)
        in_gap = np.abs(y - centre) <= half - self.radius
        in_wall = (to_x > left) & (to_x < right) & ~in_gap
        to_x = np.where(in_wall, np.where(x <= left, left, right), to_x)

        to_y = np.clip(y + delta[:, 1], low, high)
        in_door = (to_x > left) & (to_x < right)
        gap = half - self.radius
        to_y = np.where(in_door, np.clip(to_y, centre - gap, centre + gap), to_y)
        return np.stack([to_x, to_y], axis=-1).astype(np.float32)

    def render(self, states: Floats) -> Pixels:
        """Draw every agent in its own frame: [N, 2] -> [N, 3, H, W], uint8."""
        frames = np.repeat(self._empty[None], len(states), axis=0)
        return paint_discs(frames, states, self.radius, self.size)

    def start(self, states: Floats) -> TwoRoomSession:
        """One agent in each state [N, 2].

        Raises: ValueError if the shape is another or a state is not finite.
        """
        if states.ndim != 2 or states.shape[1] != 2 or not np.isfinite(states).all():
            raise ValueError(f"states must be finite [N, 2], got {list(states.shape)}")
        return TwoRoomSession(self, states)

    def draw(self, states: Floats) -> Pixels:
        """`render`, by the name that every world gives it."""
        return self.render(states)

    def idle(self, states: Floats) -> Floats:
        """Zeros: the disc has no momentum."""
        return np.zeros((len(states), 2), np.float32)

    def expert(self, goals: Floats) -> Expert:
        """Straight to the goals, through the door where it must."""
        return lambda states: self.steer(states, self.waypoint(states, goals)).astype(np.float32)

    def versions(self) -> dict[str, str]:
        """numpy alone decides: it moves and it draws."""
        return {"numpy": np.__version__, "rendering": "numpy"}

    def waypoint(self, states: Floats, targets: Floats) -> Floats:
        """The target, or the near or far mouth of the door while the wall is in between."""
        _, _, left, right = self.limits()
        centre, half = self.door
        side, target_side = self.room(states), self.room(targets)
        x, y = states[:, 0], states[:, 1]
        near = np.where(side == 0, left - 2.0, right + 2.0)
        far = np.where(target_side == 0, left - 2.0, right + 2.0)
        lined_up = np.abs(y - centre) < 0.8 * (half - self.radius)
        in_door = (x > left) & (x < right)
        door_x = np.where(lined_up | in_door, far, near)
        door = np.stack([door_x, np.full_like(door_x, centre)], axis=-1)
        blocked = (side != target_side) | (in_door & (np.abs(targets[:, 1] - centre) > half))
        return np.where(blocked[:, None], door, targets).astype(np.float32)

    def steer(self, states: Floats, waypoints: Floats) -> Floats:
        """Actions straight towards points, at full speed until they are a step away: [N, 2]."""
        heading = waypoints - states
        length = np.maximum(np.abs(heading).max(-1, keepdims=True), 1e-6)
        out: Floats = heading / length * np.minimum(length / self.speed, 1.0)
        return out

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """Distance between centres, in world units: [..., 2], [..., 2] -> [...]."""
        out: Floats = np.linalg.norm(states - goals, axis=-1).astype(np.float32)
        return out

    def success(self, states: Floats, goals: Floats) -> NDArray[np.bool_]:
        """Whether each state is within the success radius of its goal."""
        return self.distance(states, goals) < self.success_radius

    def room(self, states: Floats) -> NDArray[np.int64]:
        """0 for the left room, 1 for the right one."""
        return (states[..., 0] > self.size / 2).astype(np.int64)

    def new_targets(self, rng: np.random.Generator, states: Floats, cross: float) -> Floats:
        """Places to go to from `states`, in the other room with probability `cross`: [N, 2]."""
        targets = self.sample_states(rng, len(states))
        room = self.room(states)
        wanted = np.where(rng.random(len(states)) < cross, 1 - room, room)
        mirror = self.room(targets) != wanted
        targets[mirror, 0] = self.size - targets[mirror, 0]
        return targets

    def limits(self) -> tuple[float, float, float, float]:
        """Lowest and highest centre along an axis, and the centre's two edges at the wall."""
        low = _BORDER + self.radius
        reach = _THICKNESS / 2 + self.radius
        return low, self.size - low, self.size / 2 - reach, self.size / 2 + reach

    def _draw_rooms(self) -> Pixels:
        """Rooms without an agent, each pixel the average over its area: [3, H, W]."""
        grid = sample_grid(self.image_size, self.size)
        x, y = grid[None, :], grid[:, None]
        centre, half = self.door
        border = (np.minimum(x, self.size - x) < _BORDER) | (np.minimum(y, self.size - y) < _BORDER)
        wall = (np.abs(x - self.size / 2) < _THICKNESS / 2) & (np.abs(y - centre) > half)
        return paint_rooms(border | wall)


class Rooms(Protocol):
    """A world whose steps and pictures are functions of states alone."""

    def step(self, states: Floats, actions: Floats) -> Floats:
        """Move every agent once."""

    def render(self, states: Floats) -> Pixels:
        """Draw every agent in its own frame."""


class TwoRoomSession:
    """Agents on their way through rooms; see `TwoRoom.start`."""

    def __init__(self, world: Rooms, states: Floats) -> None:
        self.world, self.states = world, states

    def step(self, actions: Floats) -> Floats:
        """Act once everywhere: [N, 2] -> states [N, 2]."""
        self.states = self.world.step(self.states, actions)
        return self.states

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        """Frames as they are now, of all agents or of those named."""
        return self.world.render(self.states if agents is None else self.states[agents])

    def close(self) -> None:
        """Nothing runs behind it."""
