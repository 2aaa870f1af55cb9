"""Worlds that can be reset, stepped and drawn."""

from worldmodel.worlds.two_room import TwoRoom, TwoRoomEnv
from worldmodel.worlds.two_room_walks import TwoRoomExpert, Walks, collect

__all__ = ["TwoRoom", "TwoRoomEnv", "TwoRoomExpert", "Walks", "collect"]
