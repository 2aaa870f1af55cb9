"""Worlds that can be reset, stepped and drawn."""

from worldmodel.worlds.contract import Session, World
from worldmodel.worlds.two_room import TwoRoom, TwoRoomEnv
from worldmodel.worlds.two_room_walks import TwoRoomExpert, Walks, collect

__all__ = ["Session", "TwoRoom", "TwoRoomEnv", "TwoRoomExpert", "Walks", "World", "collect"]
