"""Let a policy try pairs, and write down what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps.evaluate.pairs import Pairs
from worldmodel.apps.evaluate.policies import Policy, Scene, Task
from worldmodel.worlds import World

__all__ = ["Outcome", "attempt"]

Floats = NDArray[np.float32]


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
    paths: Floats
    at_end: NDArray[np.bool_]
    distance: Floats
    seconds: tuple[float, ...]


def attempt(
    world: World,
    pairs: Pairs,
    policy: Policy,
    *,
    budget: int = 50,
    seeds: NDArray[np.int64] | None = None,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Let a policy act on all pairs for `budget` steps.

    Args:
        world: where.
        pairs: N of them.
        policy: who.
        budget: raw steps; a block of actions is cut there.
        seeds: [N], of the policy; None counts from 0.
        on_steps: called with n after n more steps.
    Returns: Outcome.
    Raises: ValueError if the policy's actions are not [N, steps, A].
    """
    if seeds is None:
        seeds = np.arange(len(pairs.starts))
    actor = policy.begin(Task(world, pairs.goals, seeds))
    session = world.start(pairs.starts)
    drawing = [0.0]

    def frames() -> NDArray[np.uint8]:
        began = time.perf_counter()
        drawn = session.render()
        drawing[0] += time.perf_counter() - began
        return drawn

    paths, seconds = [pairs.starts], []
    try:
        while len(paths) <= budget:
            began, drawing[0] = time.perf_counter(), 0.0
            actions = actor(Scene(paths[-1], frames))
            seconds.append(time.perf_counter() - began - drawing[0])
            if actions.ndim != 3 or actions.shape[::2] != (len(pairs.starts), world.action_dim):
                raise ValueError(
                    f"a policy's actions must be [{len(pairs.starts)}, steps, "
                    f"{world.action_dim}], got {list(actions.shape)}"
                )
            taken = min(actions.shape[1], budget + 1 - len(paths))
            paths.extend(session.step(actions[:, t]) for t in range(taken))
            on_steps(taken)
    finally:
        session.close()
    stacked = np.stack(paths, axis=1)
    reached = world.success(stacked[:, 1:], np.repeat(pairs.goals[:, None], budget, axis=1))
    success: NDArray[np.bool_] = np.any(reached, axis=1)
    return Outcome(
        success,
        np.where(success, reached.argmax(1) + 1, budget),
        stacked,
        reached[:, -1],
        world.distance(stacked[:, -1], pairs.goals),
        tuple(seconds),
    )
