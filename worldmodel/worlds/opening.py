"""A world by its name; what a world needs is imported when it is asked for."""

from __future__ import annotations

import importlib

from worldmodel.worlds.contract import World
from worldmodel.worlds.maze import Maze
from worldmodel.worlds.two_room import TwoRoom

__all__ = ["WORLDS", "open_world"]

_ADAPTERS = {
    "push-t": ("worldmodel.worlds.push_t", "PushT"),
    "reacher": ("worldmodel.worlds.reacher", "Reacher"),
    "cube": ("worldmodel.worlds.cube", "Cube"),
}
WORLDS = ("two-room", "maze", *_ADAPTERS)
"""Names that `open_world` knows; the first two need no package of their own. `maze-7` is the maze
whose only layout is number 7."""


def open_world(name: str, *, image_size: int = 64, workers: int | None = None) -> World:
    """The world of that name.

    Args:
        name: one of `WORLDS`.
        image_size: side of its frames.
        workers: processes that simulate and draw, for worlds that go one agent at a time; None
            leaves the number to the world.
    Returns: World.
    Raises: ValueError for another name, or for workers in Two-Room; ImportError naming the extra if
        its package is missing, and whatever the world raises where it cannot draw.
    """
    kind, _, number = name.partition("-") if name.startswith("maze") else (name, "", "")
    if kind in (TwoRoom.name, "maze"):
        if workers is not None:
            raise ValueError(f"{name} is simulated all at once, without workers, got {workers}")
        if kind == TwoRoom.name:
            return TwoRoom(image_size)
        if number.isascii() and number.isdecimal() and len(number) < 8:
            return Maze(image_size, layout=int(number))
        if name == "maze":
            return Maze(image_size)
    if name not in _ADAPTERS:
        raise ValueError(f"env must be one of {', '.join(WORLDS)}, got {name!r}")
    module, kind = _ADAPTERS[name]
    options = {} if workers is None else {"workers": workers}
    try:
        world: World = getattr(importlib.import_module(module), kind)(image_size, **options)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{name} needs the package {error.name}: pip install "sigreg[envs]"'
        ) from error
    return world
