"""Open a world by its name; its packages are imported at that time."""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from worldmodel._arguments import checked
from worldmodel.worlds.contract import World, kind_of

__all__ = ["WORLDS", "open_world"]

WORLDS = ("two-room", "maze", "push-t", "reacher", "cube")
"""Names that `open_world` knows; the first two need no further package. `maze-7` is the maze with
layout 7 only."""


@checked(workers="[0, inf)")
def open_world(name: str, *, image_size: int = 64, workers: int | None = None) -> World:
    """The world of a name, of an environment of Gymnasium, or of your own class.

    "gymnasium:ID" is an environment on MuJoCo that can be set to a state; ID may be module:ID, as
    `gymnasium.make` takes it. Your own class, "package.module:Class", is called as
    `Class(image_size)`, with `workers=…` if given, and must offer all of `worldmodel.worlds.World`.
    Its module is searched on Python's path and in the present folder. Importing a module runs its
    code, so use no name from an untrusted file.

    `workers` simulate and draw in worlds that step one agent at a time; None: the world chooses.

    Raises: ValueError for another name, for workers in Two-Room, or naming what a class or an
        environment lacks; ImportError naming the extra if a package is missing, and what a world
        raises.
    """
    options = {} if workers is None else {"workers": workers}
    if kind_of(name) == "gymnasium":
        from worldmodel.worlds.gymnasium import Gymnasium

        with _here():
            return Gymnasium(name.partition(":")[2], image_size, **options)
    if ":" in name:
        return _own(name, image_size, options)
    kind, _, number = name.partition("-") if name.startswith("maze-") else (name, "", "")
    is_layout = number.isascii() and number.isdecimal() and len(number) < 8
    if kind not in WORLDS or (kind != name and not is_layout):
        known = f"{', '.join(WORLDS)}, gymnasium:ID, or a class of your own as package.module:Class"
        raise ValueError(f"env must be one of {known}, got {name!r}")
    if kind in ("two-room", "maze") and workers is not None:
        raise ValueError(f"{name} is simulated all at once, without workers, got {workers}")
    if number:
        options["layout"] = int(number)
    module, cls = kind.replace("-", "_"), kind.title().replace("-", "")
    make = getattr(importlib.import_module(f"worldmodel.worlds.{module}"), cls)
    world: World = make(image_size, **options)
    return world


@contextmanager
def _here() -> Iterator[None]:
    """Search for modules in the current folder too."""
    folder = os.getcwd()  # noqa: PTH109 - a path as sys.path holds it
    if folder in sys.path:  # `remove` below would take it from its place
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _own(name: str, image_size: int, options: dict[str, Any]) -> World:
    """The world of a class named as package.module:Class."""
    path, _, kind = name.partition(":")
    try:
        with _here():
            found: Any = getattr(importlib.import_module(path), kind, None)
    except ModuleNotFoundError as error:
        # A missing import inside the module is another error.
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"env must name a module, there is none called {error.name!r}") from None
    if not inspect.isclass(found):
        raise ValueError(f"env must be package.module:Class, and {path} has no class {kind!r}")
    make: Any = found
    try:
        world: World = make(image_size, **options)
    except Exception as error:
        call = f"{kind}({', '.join(['image_size', *options])})"
        raise ValueError(f"{name} cannot be made by {call}: {error!r}") from error
    members = {*World.__annotations__, *(n for n in vars(World) if not n.startswith("_"))}
    if missing := sorted(members - set(dir(world))):
        lacks = f"it lacks {', '.join(missing)}"
        raise ValueError(f"{name} must offer what worldmodel.worlds.World asks for, {lacks}")
    return world
