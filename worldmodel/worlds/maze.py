"""A maze of rooms and doors: Two-Room's disc, where a plan of 25 steps cannot see the way.

Nine rooms, joined by doors so that between any two there is one way. Which doors there are is the
layout, a number that belongs to the state; layouts that nobody trained on are other numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds._discs import paint_discs, paint_rooms, sample_grid
from worldmodel.worlds.contract import Expert
from worldmodel.worlds.two_room import TwoRoomSession

__all__ = ["Layout", "Maze", "layout_of"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Whole = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]

_ROOMS = 3  # a side
_LAYOUTS = 2**20  # numbers that float32 keeps exactly
_BORDER, _THICKNESS = 4.0, 10.0
_SHIFTS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])  # columns, rows


class Layout(NamedTuple):
    """Which doors a maze has.

    Attributes:
        right: [3, 2], a door from room (row, column) to (row, column + 1).
        down: [2, 3], a door from room (row, column) to (row + 1, column).
        towards: [9, 9], the next room on the way from one room to another.
        rooms: [9, 9], how many doors lie between two rooms.
    """

    right: NDArray[np.bool_]
    down: NDArray[np.bool_]
    towards: Whole
    rooms: Whole


@lru_cache(maxsize=4096)
def layout_of(number: int) -> Layout:
    """The maze of that number: a random tree of rooms, by a walk that never turns back into one.

    Args:
        number: from 0 to 2^20 − 1.
    """
    rng = np.random.default_rng([number, _ROOMS])
    right = np.zeros((_ROOMS, _ROOMS - 1), bool)
    down = np.zeros((_ROOMS - 1, _ROOMS), bool)
    joined: list[set[int]] = [set() for _ in range(_ROOMS**2)]
    path, seen = [int(rng.integers(_ROOMS**2))], set[int]()
    seen.add(path[0])
    while path:
        row, column = divmod(path[-1], _ROOMS)
        around = [(row + dy, column + dx) for dx, dy in _SHIFTS[rng.permutation(4)].tolist()]
        free = [
            r * _ROOMS + c
            for r, c in around
            if 0 <= r < _ROOMS and 0 <= c < _ROOMS and r * _ROOMS + c not in seen
        ]
        if not free:
            path.pop()
            continue
        r, c = divmod(free[0], _ROOMS)
        if r == row:
            right[row, min(c, column)] = True
        else:
            down[min(r, row), column] = True
        joined[path[-1]].add(free[0])
        joined[free[0]].add(path[-1])
        seen.add(free[0])
        path.append(free[0])
    towards, rooms = np.zeros((2, _ROOMS**2, _ROOMS**2), np.int64)
    for target in range(_ROOMS**2):
        towards[target, target], ring, known = target, [target], {target}
        while ring:
            following = [
                (new, old) for old in ring for new in sorted(joined[old]) if new not in known
            ]
            for new, old in following:
                towards[new, target], rooms[new, target] = old, rooms[old, target] + 1
            ring = [new for new, _ in following]
            known |= set(ring)
    return Layout(right, down, towards, rooms)


class Maze:
    """The rules and the pictures of the maze, for N agents that do not see each other.

    A state is [x, y, layout]: the centre of a disc, y downwards, and the number of its maze. An
    action in [−1, 1]² moves the disc by `speed` × action, first along x, then along y, and walls
    stop it; doors let it through. There is no randomness.

    Args:
        image_size: side of the frames.
        layout: number of the only maze there is; None draws another for every start.

    Attributes:
        size: side of the world, 224.
        radius: of the disc, 7.
        speed: largest step along each axis, 8.
        success_radius: 16; a goal is reached when the centres are closer than this.
        door: half height of a door, 16, in the middle of its wall.
    """

    criterion = (
        "centres closer than 16 of 224 units, as in stable-worldmodel's Two-Room, in the same maze"
    )
    size = 224.0
    radius = 7.0
    speed = 8.0
    success_radius = 16.0
    door = 16.0
    state_dim = 3
    action_dim = 2
    action_low = np.full(2, -1, np.float32)
    action_high = np.full(2, 1, np.float32)

    def __init__(self, image_size: int = 64, *, layout: int | None = None) -> None:
        if image_size < 32:
            raise ValueError(f"image_size must be at least 32, got {image_size}")
        if layout is not None and not 0 <= layout < _LAYOUTS:
            raise ValueError(f"layout must be from 0 to {_LAYOUTS - 1}, got {layout}")
        self.image_size, self.layout = image_size, layout
        self.name = "maze" if layout is None else f"maze-{layout}"
        self._empty = lru_cache(maxsize=1024)(self._draw_rooms)

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Places drawn evenly over all rooms, each in a maze of its own: [num, 3]."""
        layouts = rng.integers(_LAYOUTS, size=num)
        if self.layout is not None:
            layouts[:] = self.layout
        return np.column_stack([self._places(rng, num), layouts]).astype(np.float32)

    def step(self, states: Floats, actions: Floats) -> Floats:
        """Move every agent once: [N, 3], [N, 2] -> [N, 3].

        Raises: ValueError if the shapes disagree or an action is not finite.
        """
        if states.shape[1:] != (3,) or actions.shape != (len(states), 2):
            raise ValueError(
                f"states and actions must be [N, 3] and [N, 2], got {states.shape} and "
                f"{actions.shape}"
            )
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite, got NaN or inf")
        right, down = self._doors(states)
        delta = self.speed * np.clip(actions, -1.0, 1.0)
        x = self._along(states[:, 0], states[:, 1], delta[:, 0], right)
        y = self._along(states[:, 1], x, delta[:, 1], down.transpose(0, 2, 1))
        return np.column_stack([x, y, states[:, 2]]).astype(np.float32)

    def render(self, states: Floats) -> Pixels:
        """Draw every agent in its own frame: [N, 3] -> [N, 3, H, W], uint8."""
        frames = np.stack([self._empty(int(n)) for n in states[:, 2]])
        return paint_discs(frames, states[:, :2], self.radius, self.size)

    def start(self, states: Floats) -> TwoRoomSession:
        """One agent in each state [N, 3].

        Raises: ValueError if the shape is another, a state is not finite, or a layout is none.
        """
        if states.ndim != 2 or states.shape[1] != 3 or not np.isfinite(states).all():
            raise ValueError(f"states must be finite [N, 3], got {list(states.shape)}")
        number = states[:, 2]
        if (number != np.floor(number)).any() or number.min() < 0 or number.max() >= _LAYOUTS:
            raise ValueError(f"layouts (states[:, 2]) must be whole, from 0 to {_LAYOUTS - 1}")
        return TwoRoomSession(self, states)

    def draw(self, states: Floats) -> Pixels:
        """`render`, by the name that every world gives it."""
        return self.render(states)

    def idle(self, states: Floats) -> Floats:
        """Zeros: the disc has no momentum."""
        return np.zeros((len(states), 2), np.float32)

    def expert(self, goals: Floats) -> Expert:
        """The way through the doors to the goals."""
        return lambda states: self.steer(states, self.waypoint(states, goals)).astype(np.float32)

    def versions(self) -> dict[str, str]:
        """numpy alone decides: it lays the mazes out, moves and draws."""
        return {"numpy": np.__version__, "rendering": "numpy"}

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """Distance between centres as the crow flies, in world units; inf between two mazes."""
        straight = np.linalg.norm(states[..., :2] - goals[..., :2], axis=-1)
        other = np.where(states[..., 2] == goals[..., 2], 0.0, np.inf)
        out: Floats = (straight + other).astype(np.float32)
        return out

    def success(self, states: Floats, goals: Floats) -> NDArray[np.bool_]:
        """Whether each state is within the success radius of its goal."""
        return self.distance(states, goals) < self.success_radius

    def room(self, states: Floats) -> Whole:
        """Which of the nine rooms, row by row: [..., 3] -> [...]."""
        place = np.clip(states[..., :2] // (self.size / _ROOMS), 0, _ROOMS - 1).astype(np.int64)
        out: Whole = place[..., 1] * _ROOMS + place[..., 0]
        return out

    def doors_between(self, states: Floats, goals: Floats) -> Whole:
        """How many doors lie on the way: [N, 3], [N, 3] -> [N]."""
        here, there = self.room(states), self.room(goals)
        tables = [layout_of(int(n)).rooms for n in states[:, 2]]
        return np.array([t[a, b] for t, a, b in zip(tables, here, there, strict=True)], np.int64)

    def waypoint(self, states: Floats, targets: Floats) -> Floats:
        """The target, or a point before, in or behind the next door on the way to it: [N, 2]."""
        cell, gap = self.size / _ROOMS, self.door - self.radius
        here, there = self.room(states), self.room(targets)
        tables = [layout_of(int(n)).towards for n in states[:, 2]]
        following = np.array([t[a, b] for t, a, b in zip(tables, here, there, strict=True)])
        middle = (np.stack([here % _ROOMS, here // _ROOMS], -1) + 0.5) * cell
        ahead = (np.stack([following % _ROOMS, following // _ROOMS], -1) + 0.5) * cell
        way = np.sign(ahead - middle)
        # Who stands in a door of another way than the one to go leaves it through the middle.
        offset = states[:, :2] - middle
        across = np.where(way == 0, offset, 0.0)
        lined_up = np.abs(across).max(-1) < 0.8 * gap
        beyond = cell / 2 - _THICKNESS / 2 - self.radius - 2.0
        before = middle + way * np.minimum(beyond, np.maximum((way * offset).max(-1), 0))[:, None]
        point = np.where(lined_up[:, None], ahead, before)
        inside = cell / 2 - _THICKNESS / 2 - self.radius
        in_door = np.abs(offset).max(-1) > inside
        home = np.where(np.abs(offset) > inside, middle, states[:, :2])
        same = here == there
        stuck = in_door & np.where(same, True, ~lined_up)
        out = np.where(same[:, None], targets[:, :2], point)
        return np.where(stuck[:, None], home, out).astype(np.float32)

    def steer(self, states: Floats, waypoints: Floats) -> Floats:
        """Actions straight towards points [N, 2], at full speed until they are a step away."""
        heading = waypoints[:, :2] - states[:, :2]
        length = np.maximum(np.abs(heading).max(-1, keepdims=True), 1e-6)
        out: Floats = heading / length * np.minimum(length / self.speed, 1.0)
        return out

    def new_targets(self, rng: np.random.Generator, states: Floats, cross: float) -> Floats:
        """Places to go to from `states`, in any room with probability `cross`: [N, 3]."""
        places = self._places(rng, len(states))
        cell = self.size / _ROOMS
        here = self.room(states)
        stay = rng.random(len(states)) >= cross
        corner = np.stack([here % _ROOMS, here // _ROOMS], -1) * cell
        places = np.where(stay[:, None], corner + places % cell, places)
        return np.column_stack([places, states[:, 2]]).astype(np.float32)

    def _places(self, rng: np.random.Generator, num: int) -> NDArray[np.float64]:
        cell, reach = self.size / _ROOMS, _THICKNESS / 2 + self.radius
        room = rng.integers(_ROOMS, size=(num, 2))
        out: NDArray[np.float64] = room * cell + rng.uniform(reach, cell - reach, (num, 2))
        return out

    def _doors(self, states: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        numbers, which = np.unique(states[:, 2].astype(np.int64), return_inverse=True)
        layouts = [layout_of(int(n)) for n in numbers]
        which = which.reshape(-1)
        right = np.stack([layout.right for layout in layouts])
        return right[which], np.stack([layout.down for layout in layouts])[which]

    def _along(
        self, at: Numbers, beside: Numbers, move: Numbers, doors: NDArray[np.bool_]
    ) -> Numbers:
        """Where a move along one axis ends: [N]; doors [N, rooms beside, walls on the way]."""
        cell, reach = self.size / _ROOMS, _THICKNESS / 2 + self.radius
        gap, low = self.door - self.radius, _BORDER + self.radius
        each = np.arange(len(at))
        to = np.clip(at + move, low, self.size - low).astype(np.float64)
        wall = np.clip(np.rint(to / cell).astype(np.int64), 1, _ROOMS - 1)
        lane = np.clip((beside // cell).astype(np.int64), 0, _ROOMS - 1)
        middle = (lane + 0.5) * cell
        through = doors[each, lane, wall - 1] & (np.abs(beside - middle) <= gap)
        blocked = (np.abs(to - wall * cell) < reach) & ~through
        edge = np.where(at < wall * cell, wall * cell - reach, wall * cell + reach)
        to = np.where(blocked, edge, to)
        # In a door of the other direction there is only the door's width to move in.
        nearest = np.clip(np.rint(beside / cell), 1, _ROOMS - 1) * cell
        in_door = np.abs(beside - nearest) < reach
        mine = (np.clip(at // cell, 0, _ROOMS - 1) + 0.5) * cell
        out: Numbers = np.where(in_door, np.clip(to, mine - gap, mine + gap), to)
        return out

    def _draw_rooms(self, number: int) -> Pixels:
        """A maze without an agent, each pixel the mean over its area: [3, H, W]."""
        grid, cell = sample_grid(self.image_size, self.size), self.size / _ROOMS
        layout = layout_of(number)
        solid = np.zeros((len(grid), len(grid)), bool)
        for k in range(1, _ROOMS):
            wall = _span(grid, k * cell, _THICKNESS / 2)
            solid[:, wall] = solid[wall] = True
        for k in range(1, _ROOMS):
            wall = _span(grid, k * cell, _THICKNESS / 2)
            for lane in range(_ROOMS):
                opening = _span(grid, (lane + 0.5) * cell, self.door)
                if layout.right[lane, k - 1]:
                    solid[opening, wall] = False
                if layout.down[k - 1, lane]:
                    solid[wall, opening] = False
        edge = _span(grid, self.size / 2, self.size / 2 - _BORDER)
        border = np.ones_like(solid)
        border[edge, edge] = False
        return paint_rooms(solid | border)


def _span(grid: NDArray[np.float64], middle: float, half: float) -> slice:
    """The samples within `half` of `middle`."""
    first, last = np.searchsorted(grid, [middle - half, middle + half])
    return slice(int(first), int(last))
