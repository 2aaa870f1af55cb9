"""Policies that collect data, by world and name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from worldmodel.worlds.contract import Expert, Floats, World, kind_of
from worldmodel.worlds.cube import CubeCollector
from worldmodel.worlds.push_t_pusher import PushTExplorer, near_block
from worldmodel.worlds.reacher import ReacherReach
from worldmodel.worlds.two_room import TwoRoomExpert

__all__ = ["make_behaviour", "policies"]

# The policies of each world; the first is the default.
_SCRIPTED: dict[str, dict[str, Callable[[Any, int, np.random.Generator], Expert]]] = {
    "two-room": {"expert": lambda world, num, rng: TwoRoomExpert(world, num, rng).act},
    "maze": {"expert": lambda world, num, rng: TwoRoomExpert(world, num, rng).act},
    "push-t": {
        "pusher": lambda _, num, rng: PushTExplorer(num, rng).act,
        # Four levels of noise, one per episode, so that the data also hold near misses.
        "pusher-varied": lambda _, num, rng: PushTExplorer(num, rng, (0.0, 0.1, 0.2, 0.4)).act,
        "near-block": lambda _, _num, rng: partial(near_block, rng),
    },
    "reacher": {"reach": lambda _, num, rng: ReacherReach(num, rng).act},
    "cube": {"picker": lambda _, num, rng: CubeCollector(num, rng).act},
    "gymnasium": {"held": lambda world, num, rng: Held(world, num, rng).act},
}


class Held:
    """Uniform actions of N agents, each held for 1 to 20 steps.

    In small steps a new action every time stays around its start, for it undoes what the last did.
    """

    def __init__(self, world: World, num: int, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.actions = np.zeros((num, world.action_dim), np.float32)
        self.left = np.zeros(num, int)

    def act(self, states: Floats) -> Floats:
        """Actions [N, A] in the world's box, whatever the states [N, S]."""
        low, high, num = self.world.action_low, self.world.action_high, len(states)
        new = self.rng.uniform(low, high, (num, len(low)))
        times = self.rng.integers(20, size=num)
        over = self.left == 0
        self.actions = np.where(over[:, None], new, self.actions).astype(np.float32)
        self.left = np.where(over, times, self.left - 1)
        return self.actions


def policies(world: str) -> tuple[str, ...]:
    """Names of a world's policies; the first is the default."""
    return (*_SCRIPTED.get(kind_of(world), {}), "random")


def make_behaviour(policy: str, world: World, num: int, rng: np.random.Generator) -> Expert:
    """A policy for `num` agents of a world, with noise; `rng` is its only randomness.

    It may have memory, so make one for each batch of episodes. "random" draws uniform actions.

    Raises: ValueError if the world has no policy of that name.
    """
    if policy not in policies(world.name):
        known = ", ".join(policies(world.name))
        raise ValueError(f"policy must be one of {known} for {world.name}, got {policy!r}")
    if policy == "random":
        low, high = world.action_low, world.action_high
        return lambda states: rng.uniform(low, high, (len(states), len(low))).astype(np.float32)
    return _SCRIPTED[kind_of(world.name)][policy](world, num, rng)
