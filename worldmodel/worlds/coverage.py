"""Coverage of a set of episodes: visited cells of the state space, and motion in a window."""

from typing import NamedTuple

import numpy as np

from worldmodel.worlds.contract import Floats, World, kind_of

__all__ = ["GRIDS", "Coverage", "Covered", "Grid", "coverage"]

_CELLS = 256  # of every grid: 16 × 16, or 256 along one dim


class Grid(NamedTuple):
    """One or two dims of a state, cut into 256 cells."""

    name: str  #: of the dims
    dims: tuple[int, ...]  #: positions in the state
    low: float  #: lower edge
    high: float  #: upper edge
    period: float = 0.0  #: of an angle, or 0


class Covered(NamedTuple):
    """Coverage of one grid."""

    name: str  #: of the grid
    cells: int  #: cells visited, of 256
    moved: float  #: median distance between the first and the last state of a window


class Coverage(NamedTuple):
    """Coverage of a set of episodes."""

    grids: tuple[Covered, ...]  #: one record per grid of the world
    window: int  #: steps between a start and its goal
    solved: float  #: fraction of windows whose first state already reaches the last one


_TURN = 2 * np.pi
_SQUARE = (Grid("position x, y", (0, 1), 0.0, 224.0),)
GRIDS: dict[str, tuple[Grid, ...]] = {
    "two-room": _SQUARE,
    "maze": _SQUARE,
    "push-t": (
        Grid("agent x, y", (0, 1), 0.0, 512.0),
        Grid("block x, y", (2, 3), 0.0, 512.0),
        Grid("block angle", (4,), 0.0, _TURN, _TURN),
    ),
    "reacher": (
        Grid("shoulder", (0,), -np.pi, np.pi, _TURN),
        Grid("wrist", (1,), -np.pi, np.pi, _TURN),
        Grid("shoulder, wrist", (0, 1), -np.pi, np.pi, _TURN),
        Grid("velocities", (2, 3), -20.0, 20.0),
    ),
    "cube": (
        Grid("cube x, y", (14, 15), -0.4, 0.8),
        Grid("cube height", (16,), 0.0, 0.4),
        Grid("effector x, y", (41, 42), -0.4, 0.8),
        Grid("effector height", (43,), 0.0, 0.4),
    ),
}
"""The grids of each world."""


def coverage(world: World, episodes: list[Floats], window: int = 25) -> Coverage:
    """Visited cells, and windows solved at their start, over episodes of states [L, S].

    Raises: ValueError if no episode is longer than the window.
    """
    pairs = [(e[:-window], e[window:]) for e in episodes if len(e) > window]
    if not pairs:
        raise ValueError(f"some episode must be longer than the window of {window} steps")
    starts, ends = (np.concatenate(side) for side in zip(*pairs, strict=True))
    states = np.concatenate(episodes)
    grids = GRIDS.get(kind_of(world.name), ())
    covered = tuple(_covered(grid, states, ends - starts) for grid in grids)
    return Coverage(covered, window, float(world.success(starts, ends).mean()))


def _covered(grid: Grid, states: Floats, gaps: Floats) -> Covered:
    dims, per_dim = list(grid.dims), 16 if len(grid.dims) == 2 else _CELLS
    values, gap = states[:, dims] - grid.low, gaps[:, dims]
    if grid.period:
        values %= grid.period
        gap = (gap + grid.period / 2) % grid.period - grid.period / 2
    index = np.clip((values / (grid.high - grid.low) * per_dim).astype(int), 0, per_dim - 1)
    cells = len(np.unique(index @ (per_dim ** np.arange(len(dims)))))
    return Covered(grid.name, cells, float(np.median(np.linalg.norm(gap, axis=-1))))
