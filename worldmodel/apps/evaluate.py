"""Start and goal pairs from unseen episodes, policies that try them, and honest counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners import CEM, MPC, Bounds
from worldmodel.cost import goal_cost
from worldmodel.data import ActionScale
from worldmodel.model import WorldModel
from worldmodel.worlds import TwoRoom, Walks

__all__ = ["Outcome", "Pairs", "PlannerPolicy", "RandomPolicy", "attempt", "make_pairs", "wilson"]

Floats = NDArray[np.float32]
Policy = Callable[[Floats], Floats]
"""States of all pairs [N, 2] -> actions for the next steps [N, steps, 2]."""


class Pairs(NamedTuple):
    """Where to start and where to end, both visited by one episode `offset` steps apart.

    Attributes:
        starts: [N, 2], world units.
        goals: [N, 2].
        dropped: how many drawn pairs were left out, solved before the first step.
    """

    starts: Floats
    goals: Floats
    dropped: int


class Outcome(NamedTuple):
    """What a policy made of the pairs.

    Attributes:
        success: [N], within the success radius after some step of the budget.
        steps: [N], the first such step, or the budget.
        paths: [N, budget + 1, 2], all states.
    """

    success: NDArray[np.bool_]
    steps: NDArray[np.int64]
    paths: Floats


def make_pairs(world: TwoRoom, walks: Walks, num: int, *, offset: int = 25, seed: int) -> Pairs:
    """Draw pairs from the walks without replacement, until `num` are not solved already.

    Raises: ValueError if the walks hold fewer such pairs.
    """
    episodes, length = walks.states.shape[:2]
    if length <= offset:
        raise ValueError(f"offset must be below the episode's {length} states, got {offset}")
    flat = np.random.default_rng(seed).permutation(episodes * (length - offset))
    episode, time = flat // (length - offset), flat % (length - offset)
    starts, goals = walks.states[episode, time], walks.states[episode, time + offset]
    open_ = ~world.success(starts, goals)
    if int(open_.sum()) < num:
        raise ValueError(
            f"num (--pairs) must be at most the {int(open_.sum())} unsolved pairs, got {num}"
        )
    last = int(np.flatnonzero(open_)[num - 1])
    kept = np.flatnonzero(open_)[:num]
    return Pairs(starts[kept], goals[kept], dropped=last + 1 - num)


def attempt(
    world: TwoRoom,
    pairs: Pairs,
    policy: Policy,
    *,
    budget: int = 50,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Let a policy act on all pairs for `budget` steps, calling `on_steps(n)` after n more."""
    paths = [pairs.starts]
    while len(paths) <= budget:
        actions = policy(paths[-1])
        taken = min(actions.shape[1], budget + 1 - len(paths))
        for t in range(taken):
            paths.append(world.step(paths[-1], actions[:, t]))
        on_steps(taken)
    stacked = np.stack(paths, axis=1)
    reached = world.success(stacked[:, 1:], pairs.goals[:, None])
    success: NDArray[np.bool_] = np.any(reached, axis=1)
    return Outcome(success, np.where(success, reached.argmax(1) + 1, budget), stacked)


class RandomPolicy:
    """Actions drawn evenly from the box, one step at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, states: Floats) -> Floats:
        """One action for every state: [N, 2] -> [N, 1, 2]."""
        return self.rng.uniform(-1, 1, (len(states), 1, 2)).astype(np.float32)


class PlannerPolicy:
    """Looks at the current frame, plans in latent space with CEM, executes one block, replans.

    A plan holds each action for a whole block: two numbers a block instead of two a step leave CEM
    a search of ten dimensions instead of fifty.

    Args:
        model: WorldModel in evaluation mode.
        world: draws the frames the model sees.
        goals: [N, 2]; the model sees their picture, never their coordinates.
        scale: of the actions the model was trained on.
        frameskip: raw actions per block.
        horizon: blocks planned ahead.
        num_samples: candidates per iteration.
        num_elites: candidates that shape the next iteration.
        iterations: of CEM per decision.
        seed: of the planner's noise, one stream per pair.
        device: where the model lives.
    """

    def __init__(
        self,
        model: WorldModel,
        world: TwoRoom,
        goals: Floats,
        scale: ActionScale,
        *,
        frameskip: int = 5,
        horizon: int = 5,
        num_samples: int = 64,
        num_elites: int = 8,
        iterations: int = 6,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.model, self.world, self.device = model, world, torch.device(device)
        self.frameskip = frameskip
        self.goal = self._look(goals)
        self.planner = MPC(
            CEM(num_samples=num_samples, num_elites=num_elites),
            horizon=horizon,
            action_dim=2,
            iterations=iterations,
            execute=1,
            bounds=Bounds(-1.0, 1.0, mean=scale.mean, std=scale.std),
            seed=seed,
            batch=len(goals),
            device=self.device,
        )

    def __call__(self, states: Floats) -> Floats:
        """Plan from every state: [N, 2] -> one block of actions [N, frameskip, 2]."""
        cost = goal_cost(self.model, self._look(states)[:, None], self.goal, steps="nearest")
        held = self.frameskip
        actions = self.planner.act(lambda plans: cost(plans.repeat(1, 1, 1, held)))
        out: Floats = actions.repeat_interleave(held, dim=1).cpu().numpy()
        return out

    def _look(self, states: Floats) -> Tensor:
        return torch.from_numpy(self.world.render(states)).to(self.device)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default.

    Source: Wilson (1927).
    """
    rate, z2 = successes / trials, z * z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)
