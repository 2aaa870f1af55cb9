"""Scripted behaviour in Two-Room: noisy walkers, and the episodes they leave."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds.maze import Maze
from worldmodel.worlds.two_room import TwoRoom

__all__ = ["TwoRoomExpert", "Walks", "collect"]

Floats = NDArray[np.float32]


class TwoRoomExpert:
    """A scripted, noisy walker: to a random target, through the doors if it must.

    Targets lie in another room with probability `cross`; a new one is drawn when the old one is
    reached. The heading is disturbed by Gaussian noise and the last action is repeated with
    probability `repeat`, so that the data holds more than straight lines.

    Args:
        world: the world it walks in, TwoRoom or Maze.
        num: N agents.
        rng: source of all its randomness.
        noise: standard deviation added to each action component, in units of the full step.
        repeat: probability of repeating the last action.
        cross: probability that a new target lies in the other room.
        bump: probability of walking to a new target in a straight line, wall or no wall; a model
            that never saw the wall stop anybody plans through it.
    """

    def __init__(
        self,
        world: TwoRoom | Maze,
        num: int,
        rng: np.random.Generator,
        *,
        noise: float = 0.3,
        repeat: float = 0.05,
        cross: float = 0.6,
        bump: float = 0.0,
    ) -> None:
        self.world, self.rng = world, rng
        self.noise, self.repeat, self.cross, self.bump = noise, repeat, cross, bump
        self.targets = np.full((num, world.state_dim), np.nan, np.float32)
        self.last = np.zeros((num, 2), np.float32)
        self.bumping = np.zeros(num, bool)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, S]."""
        world, rng = self.world, self.rng
        done = ~(world.distance(states, self.targets) >= world.speed)
        # Who runs into the wall gives up after 20 steps on average.
        done |= self.bumping & (rng.random(len(states)) < 0.05)
        if done.any():
            self.targets[done] = world.new_targets(rng, states[done], self.cross)
            self.bumping[done] = rng.random(int(done.sum())) < self.bump
        route = world.waypoint(states, self.targets)
        waypoint = np.where(self.bumping[:, None], self.targets[:, :2], route)
        noise = self.noise * rng.standard_normal((len(states), 2))
        actions = world.steer(states, waypoint) + noise
        again = rng.random(len(states)) < self.repeat
        actions = np.where(again[:, None], self.last, np.clip(actions, -1, 1))
        self.last = actions.astype(np.float32)
        return self.last


class Walks(NamedTuple):
    """Recorded behaviour, equally long: T + 1 states around T actions.

    Attributes:
        states: [E, T + 1, 2], world units.
        actions: [E, T, 2]; `actions[:, t]` leads from `states[:, t]` to `states[:, t + 1]`.
    """

    states: Floats
    actions: Floats


def collect(world: TwoRoom, num: int, length: int, seed: int, *, bump: float = 0.0) -> Walks:
    """Let the noisy expert walk `num` episodes of `length` actions.

    Raises: ValueError if `num` or `length` is not positive.
    """
    if num < 1 or length < 1:
        raise ValueError(f"num and length must be positive, got {num} and {length}")
    rng = np.random.default_rng(seed)
    expert = TwoRoomExpert(world, num, rng, bump=bump)
    states = np.empty((num, length + 1, 2), np.float32)
    actions = np.empty((num, length, 2), np.float32)
    states[:, 0] = world.sample_states(rng, num)
    for t in range(length):
        actions[:, t] = expert.act(states[:, t])
        states[:, t + 1] = world.step(states[:, t], actions[:, t])
    return Walks(states, actions)
