"""What a set of episodes covers: cells of the state space, and how much happens in a window."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds.contract import World

__all__ = ["GRIDS", "Coverage", "Covered", "Grid", "coverage"]

Floats = NDArray[np.float32]

_CELLS = 256  # of every grid: 16 × 16, or 256 along one dim


class Grid(NamedTuple):
    """One or two dims of a state, cut into 256 cells.

    Attributes:
        name: of what they say.
        dims: positions in the state, one or two.
        low: lower edge of the grid.
        high: upper edge.
        period: of an angle, or 0; also the range then.
    """

    name: str
    dims: tuple[int, ...]
    low: float
    high: float
    period: float = 0.0


class Covered(NamedTuple):
    """What was seen of one grid.

    Attributes:
        name: of the grid.
        cells: cells visited, of 256.
        moved: median path from the first to the last state of a window, as the crow flies.
    """

    name: str
    cells: int
    moved: float


class Coverage(NamedTuple):
    """What episodes cover.

    Attributes:
        grids: one record per grid of the world.
        window: steps between a start and its goal.
        solved: fraction of windows whose first state already counts as the last one reached.
    """

    grids: tuple[Covered, ...]
    window: int
    solved: float


_TURN = 2 * np.pi
GRIDS: dict[str, tuple[Grid, ...]] = {
    "two-room": (Grid("position x, y", (0, 1), 0.0, 224.0),),
    "maze": (Grid("position x, y", (0, 1), 0.0, 224.0),),
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
"""What is counted in each world."""


def coverage(world: World, episodes: list[Floats], window: int = 25) -> Coverage:
    """Cells visited and windows solved at the start, over episodes of states [L, S] each.

    Raises: ValueError if no episode is longer than the window.
    """
    pairs = [(e[:-window], e[window:]) for e in episodes if len(e) > window]
    if not pairs:
        raise ValueError(f"some episode must be longer than the window of {window} steps")
    starts, ends = (np.concatenate(side) for side in zip(*pairs, strict=True))
    states = np.concatenate(episodes)
    covered = []
    for grid in GRIDS.get(world.name, ()):
        dims = list(grid.dims)
        per_dim = 16 if len(dims) == 2 else _CELLS
        values = states[:, dims] - grid.low
        span = grid.high - grid.low
        if grid.period:
            values %= grid.period
        index = np.clip((values / span * per_dim).astype(int), 0, per_dim - 1)
        cells = len(np.unique(index @ (per_dim ** np.arange(len(dims)))))
        gap = ends[:, dims] - starts[:, dims]
        if grid.period:
            gap = (gap + grid.period / 2) % grid.period - grid.period / 2
        moved = float(np.median(np.linalg.norm(gap, axis=-1)))
        covered.append(Covered(grid.name, cells, moved))
    return Coverage(tuple(covered), window, float(world.success(starts, ends).mean()))
