"""Let a policy try pairs, and write down what happened."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps.evaluate.pairs import Pairs
from worldmodel.apps.evaluate.policies import Policy, Scene, Task
from worldmodel.worlds import World

__all__ = ["Outcome", "attempt"]


class Outcome(NamedTuple):
    """What a policy made of N pairs.

    Attributes:
        success: [N], the goal reached after some step of the budget.
        steps: [N], the first such step, or the budget.
        paths: [N, budget + 1, S], all states.
        at_end: [N], the goal reached after the last step.
        distance: [N], to the goal after the last step.
        seconds: of each decision for the N pairs together, drawing the frames left out.
    """

    success: NDArray[np.bool_]
    steps: NDArray[np.int64]
    paths: NDArray[np.float32]
    at_end: NDArray[np.bool_]
    distance: NDArray[np.float32]
    seconds: tuple[float, ...]


def attempt(
    world: World,
    pairs: Pairs,
    policy: Policy,
    *,
    budget: int = 50,
    seeds: NDArray[np.int64] | None = None,
) -> Outcome:
    """Let a policy act on all pairs for `budget` steps.

    Args:
        world: where.
        pairs: N of them.
        policy: who.
        budget: raw steps; a block of actions is cut there.
        seeds: [N], of the policy; None counts from 0.
    Returns: Outcome.
    Raises: ValueError if the policy's actions are not [N, steps, A].
    """
    num, drawing = len(pairs.starts), 0.0
    actor = policy.begin(Task(world, pairs.goals, np.arange(num) if seeds is None else seeds))
    session = world.start(pairs.starts)

    def frames() -> NDArray[np.uint8]:
        nonlocal drawing
        began = time.perf_counter()
        drawn = session.render()
        drawing += time.perf_counter() - began
        return drawn

    paths, seconds = [pairs.starts], []
    try:
        while len(paths) <= budget:
            began, drawing = time.perf_counter(), 0.0
            actions = actor(Scene(paths[-1], frames))
            seconds.append(time.perf_counter() - began - drawing)
            shape = actions.shape
            if len(shape) != 3 or shape[::2] != (num, world.action_dim) or not shape[1]:
                raise ValueError(
                    f"a policy's actions must be [{num}, steps, {world.action_dim}], "
                    f"got {list(shape)}"
                )
            taken = min(shape[1], budget + 1 - len(paths))
            paths.extend(session.step(actions[:, t]) for t in range(taken))
    finally:
        session.close()
    states = np.stack(paths, axis=1)
    reached = world.success(states[:, 1:], np.repeat(pairs.goals[:, None], budget, axis=1))
    success: NDArray[np.bool_] = np.any(reached, axis=1)
    steps = np.where(success, reached.argmax(1) + 1, budget)
    distance = world.distance(states[:, -1], pairs.goals)
    return Outcome(success, steps, states, reached[:, -1], distance, tuple(seconds))
