"""Whoever acts: a policy is told its goals once, and then asked for actions again and again.

Letters: N pairs side by side, S state dims, A action dims of one raw step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds import World

__all__ = ["Actor", "ExpertPolicy", "IdlePolicy", "Policy", "RandomPolicy", "Scene", "Task"]

Floats = NDArray[np.float32]


class Task(NamedTuple):
    """What a policy is told before the first step.

    Attributes:
        world: where it acts; `world.draw(goals)` are the pictures of the goals.
        goals: [N, S].
        seeds: [N], one stream of random numbers per pair, so that none depends on its neighbours.
    """

    world: World
    goals: Floats
    seeds: NDArray[np.int64]


class Scene(NamedTuple):
    """What there is to see now.

    Attributes:
        states: [N, S]; for scripted policies, a learned one looks at the frames.
        frames: draws them when called, [N, 3, H, W], uint8.
    """

    states: Floats
    frames: Callable[[], NDArray[np.uint8]]


Actor = Callable[[Scene], Floats]
"""Scene of all pairs -> actions for the next steps [N, steps, A], in the world's units."""


class Policy(Protocol):
    """Makes an actor for each batch of pairs; the actor may remember, the policy does not.

    What it does for one pair must depend on that pair and its seed alone.
    """

    def begin(self, task: Task) -> Actor:
        """An actor for the pairs of `task`."""


class RandomPolicy:
    """Actions drawn evenly from the box, one step at a time, each pair's from its own seed."""

    def begin(self, task: Task) -> Actor:
        """Draws [N, 1, A] in [action_low, action_high]."""
        low, high = task.world.action_low, task.world.action_high
        rngs = [np.random.default_rng(seed) for seed in task.seeds.tolist()]
        size = (1, task.world.action_dim)

        def act(_: Scene) -> Floats:
            return np.stack([rng.uniform(low, high, size) for rng in rngs]).astype(np.float32)

        return act


class IdlePolicy:
    """Does nothing: what is solved under it needed no policy."""

    def begin(self, task: Task) -> Actor:
        """The world's idle action, [N, 1, A]."""
        return lambda scene: task.world.idle(scene.states)[:, None]


class ExpertPolicy:
    """The world's scripted expert, which sees states."""

    def begin(self, task: Task) -> Actor:
        """The expert's action, [N, 1, A].

        Raises: ValueError if the world has none.
        """
        act = task.world.expert(task.goals)
        if act is None:
            raise ValueError(f"{task.world.name} has no scripted expert")
        return lambda scene: act(scene.states)[:, None]
