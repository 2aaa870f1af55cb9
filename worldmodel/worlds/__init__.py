"""Worlds: environments that can be reset, stepped and drawn."""

from typing import TYPE_CHECKING

from worldmodel._lazy import lazily

if TYPE_CHECKING:
    from worldmodel.worlds.contract import Expert, Session, World
    from worldmodel.worlds.maze import Maze
    from worldmodel.worlds.opening import WORLDS, open_world
    from worldmodel.worlds.two_room import TwoRoom, TwoRoomEnv, TwoRoomExpert, Walks, collect

__getattr__ = lazily(__name__)

__all__ = [
    "WORLDS", "Expert", "Maze", "Session", "TwoRoom", "TwoRoomEnv", "TwoRoomExpert", "Walks",
    "World", "collect", "open_world",
]  # fmt: skip
