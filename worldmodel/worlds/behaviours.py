"""Who collects data: the policies of each world, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from worldmodel.worlds.contract import Floats, World, kind_of
from worldmodel.worlds.cube import CubeCollector
from worldmodel.worlds.push_t_pusher import PushTExplorer, PushTNearBlock
from worldmodel.worlds.reacher import ReacherReach
from worldmodel.worlds.two_room import TwoRoomExpert

__all__ = ["Behaviour", "RandomBehaviour", "make_behaviour", "policies"]


class Behaviour(Protocol):
    """N agents' policy, noise included; it may remember: one batch of episodes each."""

    def act(self, states: Floats) -> Floats:
        """Actions [N, A] for the states [N, S]."""


class RandomBehaviour:
    """Actions drawn evenly from the world's box, anew at every step."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.low, self.high, self.rng = world.action_low, world.action_high, rng

    def act(self, states: Floats) -> Floats:
        """One action for every state: [N, S] -> [N, A]."""
        shape = (len(states), len(self.low))
        return self.rng.uniform(self.low, self.high, shape).astype(np.float32)


# What each world is explored with; the first is the one its data are usually collected with.
_SCRIPTED: dict[str, dict[str, Callable[[Any, int, np.random.Generator], Behaviour]]] = {
    "two-room": {"expert": TwoRoomExpert},
    "maze": {"expert": TwoRoomExpert},
    "push-t": {
        "pusher": lambda _, num, rng: PushTExplorer(num, rng),
        "near-block": lambda _, num, rng: PushTNearBlock(num, rng),
    },
    "reacher": {"reach": lambda _, num, rng: ReacherReach(num, rng)},
    "cube": {"picker": lambda _, num, rng: CubeCollector(num, rng)},
}


def policies(world: str) -> tuple[str, ...]:
    """Names of the policies that a world is collected with; the first is its default."""
    return (*_SCRIPTED.get(kind_of(world), {}), "random")


def make_behaviour(policy: str, world: World, num: int, rng: np.random.Generator) -> Behaviour:
    """A policy for `num` agents of a world, with all its randomness from `rng`.

    Raises: ValueError if the world has no policy of that name.
    """
    if policy not in policies(world.name):
        known = ", ".join(policies(world.name))
        raise ValueError(f"policy must be one of {known} for {world.name}, got {policy!r}")
    if policy == "random":
        return RandomBehaviour(world, rng)
    return _SCRIPTED[kind_of(world.name)][policy](world, num, rng)
