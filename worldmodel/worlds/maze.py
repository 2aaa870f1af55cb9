"""A maze of rooms and doors for Two-Room's disc, too large for a plan of 25 steps.

Between any two of its nine rooms there is one way through doors. The layout of the doors is a
number in the state; other numbers are layouts that a model was not trained on.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel._arguments import checked
from worldmodel.worlds._discs import BORDER, THICKNESS, DiscWorld, paint_rooms, sample_grid
from worldmodel.worlds.contract import Flags, Floats, Pixels

__all__ = ["Layout", "Maze", "layout_of"]

Whole = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]

_ROOMS = 3  # a side
_LAYOUTS = 2**20  # numbers that float32 keeps exactly
_SHIFTS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])  # columns, rows


class Layout(NamedTuple):
    """The doors of a maze."""

    right: Flags  #: [3, 2], a door from room (row, column) to (row, column + 1)
    down: Flags  #: [2, 3], a door from room (row, column) to (row + 1, column)
    towards: Whole  #: [9, 9], the next room from one room to another
    rooms: Whole  #: [9, 9], doors between two rooms


@lru_cache(maxsize=4096)
def layout_of(number: int) -> Layout:
    """The maze of a number, 0 to 2^20 − 1: a random tree of rooms, by a backtracking walk."""
    num = _ROOMS**2
    rng = np.random.default_rng([number, _ROOMS])
    joined = np.zeros((num, num), bool)
    path = [int(rng.integers(num))]
    seen = set(path)
    while path:
        row, column = divmod(path[-1], _ROOMS)
        around = [(row + dy, column + dx) for dx, dy in _SHIFTS[rng.permutation(4)].tolist()]
        inside = [r * _ROOMS + c for r, c in around if 0 <= r < _ROOMS and 0 <= c < _ROOMS]
        free = [room for room in inside if room not in seen]
        if not free:
            path.pop()
            continue
        joined[path[-1], free[0]] = joined[free[0], path[-1]] = True
        seen.add(free[0])
        path.append(free[0])
    rooms = np.where(joined, 1, num)
    np.fill_diagonal(rooms, 0)
    for via in range(num):
        rooms = np.minimum(rooms, rooms[:, via, None] + rooms[via])
    nearer = joined[:, :, None] & (rooms[None] < rooms[:, None])  # [from, next, to], one next each
    towards = np.where(rooms == 0, np.arange(num)[:, None], nearer.argmax(1))
    at = np.arange(num).reshape(_ROOMS, _ROOMS)
    return Layout(joined[at[:, :-1], at[:, 1:]], joined[at[:-1], at[1:]], towards, rooms)


@checked(layout=f"[0, {_LAYOUTS - 1}]")
class Maze(DiscWorld):
    """The rules and the pictures of the maze.

    A state is [x, y, layout], centre and maze. `layout` fixes the maze; None draws one per start.
    """

    criterion = (
        "centres closer than 16 of 224 units, as in stable-worldmodel's Two-Room, in the same maze"
    )
    door = 16.0  #: half height of a door, in the middle of its wall
    state_dim = 3
    smallest = 32

    def __init__(self, image_size: int = 64, *, layout: int | None = None) -> None:
        super().__init__(image_size)
        self.layout, self.name = layout, "maze" if layout is None else f"maze-{layout}"
        self._cell = self.size / _ROOMS
        self._reach = THICKNESS / 2 + self.radius  # of a wall, as the disc's centre feels it
        self._gap = self.door - self.radius
        self._drawn = lru_cache(maxsize=1024)(self._draw_rooms)

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Positions drawn evenly over all rooms, each in its own maze: [num, 3]."""
        layouts = rng.integers(_LAYOUTS, size=num)
        if self.layout is not None:
            layouts[:] = self.layout
        return np.column_stack([self._places(rng, num), layouts]).astype(np.float32)

    def room(self, states: Floats) -> Whole:
        """Which of the nine rooms, row by row: [..., 3] -> [...]."""
        place = np.clip(states[..., :2] // self._cell, 0, _ROOMS - 1).astype(np.int64)
        return place @ np.array([1, _ROOMS])

    def doors_between(self, states: Floats, goals: Floats) -> Whole:
        """Number of doors on the way: [N, 3], [N, 3] -> [N]."""
        ways = zip(_layouts(states), self.room(states), self.room(goals), strict=True)
        return np.array([layout.rooms[here, there] for layout, here, there in ways], np.int64)

    def waypoint(self, states: Floats, targets: Floats) -> Floats:
        """The target, or a point before, in or after the next door on the way: [N, 2]."""
        here, there = self.room(states), self.room(targets)
        ways = zip(_layouts(states), here, there, strict=True)
        following = np.array([layout.towards[a, b] for layout, a, b in ways])
        middle, ahead = self._middle(here), self._middle(following)
        way = np.sign(ahead - middle)
        # An agent in a wrong door returns to the middle of the room first.
        offset = states[:, :2] - middle
        across = np.where(way == 0, offset, 0.0)
        lined_up = np.abs(across).max(-1) < 0.8 * self._gap
        inside = self._cell / 2 - THICKNESS / 2 - self.radius
        along = np.minimum(inside - 2.0, np.maximum((way * offset).max(-1), 0))
        point = np.where(lined_up[:, None], ahead, middle + way * along[:, None])
        home = np.where(np.abs(offset) > inside, middle, states[:, :2])
        same = here == there
        stuck = (np.abs(offset).max(-1) > inside) & (same | ~lined_up)
        out = np.where(same[:, None], targets[:, :2], point)
        return np.where(stuck[:, None], home, out).astype(np.float32)

    def new_targets(self, rng: np.random.Generator, states: Floats, cross: float) -> Floats:
        """Targets from `states`, in any room with probability `cross`: [N, 3]."""
        places = self._places(rng, len(states))
        stay = rng.random(len(states)) >= cross
        here = self.room(states)
        corner = np.stack([here % _ROOMS, here // _ROOMS], -1) * self._cell
        places = np.where(stay[:, None], corner + places % self._cell, places)
        return np.column_stack([places, states[:, 2]]).astype(np.float32)

    def _checked(self, states: Floats) -> Floats:
        states = super()._checked(states)
        number = states[:, 2]
        if ((number != np.floor(number)) | (number < 0) | (number >= _LAYOUTS)).any():
            raise ValueError(f"layouts (states[:, 2]) must be whole, from 0 to {_LAYOUTS - 1}")
        return states

    def _places(self, rng: np.random.Generator, num: int) -> NDArray[np.float64]:
        room = rng.integers(_ROOMS, size=(num, 2))
        return room * self._cell + rng.uniform(self._reach, self._cell - self._reach, (num, 2))

    def _middle(self, room: Whole) -> Numbers:
        return (np.stack([room % _ROOMS, room // _ROOMS], -1) + 0.5) * self._cell

    def _moved(self, states: Floats, delta: Floats) -> Floats:
        right = np.stack([layout.right for layout in _layouts(states)])
        down = np.stack([layout.down for layout in _layouts(states)])
        x = self._along(states[:, 0], states[:, 1], delta[:, 0], right)
        y = self._along(states[:, 1], x, delta[:, 1], down.transpose(0, 2, 1))
        return np.column_stack([x, y, states[:, 2]]).astype(np.float32)

    def _along(self, at: Numbers, beside: Numbers, move: Numbers, doors: Flags) -> Numbers:
        """The end of a move along one axis: [N]; doors [N, rooms beside, walls on the way]."""
        cell, reach, gap, low = self._cell, self._reach, self._gap, BORDER + self.radius
        to = np.clip(at + move, low, self.size - low).astype(np.float64)
        wall = np.clip(np.rint(to / cell).astype(np.int64), 1, _ROOMS - 1)
        lane = np.clip((beside // cell).astype(np.int64), 0, _ROOMS - 1)
        middle = (lane + 0.5) * cell
        through = doors[np.arange(len(at)), lane, wall - 1] & (np.abs(beside - middle) <= gap)
        blocked = (np.abs(to - wall * cell) < reach) & ~through
        edge = np.where(at < wall * cell, wall * cell - reach, wall * cell + reach)
        to = np.where(blocked, edge, to)
        # In a door of the other direction the agent can only move within the door's width.
        nearest = np.clip(np.rint(beside / cell), 1, _ROOMS - 1) * cell
        in_door = np.abs(beside - nearest) < reach
        mine = (np.clip(at // cell, 0, _ROOMS - 1) + 0.5) * cell
        return np.where(in_door, np.clip(to, mine - gap, mine + gap), to)

    def _empty(self, states: Floats) -> Pixels:
        return np.stack([self._drawn(int(number)) for number in states[:, 2]])

    def _draw_rooms(self, number: int) -> Pixels:
        grid, cell, layout = sample_grid(self.image_size, self.size), self._cell, layout_of(number)

        def span(middle: float, half: float) -> slice:
            first, last = np.searchsorted(grid, [middle - half, middle + half])
            return slice(int(first), int(last))

        edge = span(self.size / 2, self.size / 2 - BORDER)
        solid = np.ones((len(grid), len(grid)), bool)
        solid[edge, edge] = False
        walls = [span(k * cell, THICKNESS / 2) for k in range(1, _ROOMS)]
        for wall in walls:
            solid[:, wall] = solid[wall] = True
        for k, wall in enumerate(walls):
            for lane in range(_ROOMS):
                opening = span((lane + 0.5) * cell, self.door)
                if layout.right[lane, k]:
                    solid[opening, wall] = False
                if layout.down[k, lane]:
                    solid[wall, opening] = False
        return paint_rooms(solid)


def _layouts(states: Floats) -> list[Layout]:
    return [layout_of(int(number)) for number in states[:, 2]]
