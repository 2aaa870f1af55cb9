"""A trained model as a policy: a world model behind a planner, or a policy that was cloned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from planners import CEM, ICEM, MPC, MPPI, Bounds, Cost, GradientDescent, Method, PredictiveSampling
from worldmodel import goals
from worldmodel.apps.evaluate.policies import Actor, Scene, Task
from worldmodel.apps.settings import PlannerSettings
from worldmodel.data import ActionScale
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel

__all__ = ["GCBCPolicy", "PlannerPolicy", "alike", "method_of", "where"]

Floats = NDArray[np.float32]


def method_of(planner: PlannerSettings) -> Method[Any]:
    """The planner that the settings mean."""
    samples, std = planner.budget[0], planner.std
    if planner.planner == "cem":
        return CEM(samples, planner.elites, init_std=std)
    if planner.planner == "icem":
        # Without decay: as many candidates in every iteration as the others have.
        return ICEM(samples, planner.elites, init_std=std, decay=1.0)
    if planner.planner == "mppi":
        return MPPI(
            samples, planner.temperature, std, top_k=planner.elites, adapt_std=True, min_std=0.05
        )
    if planner.planner == "gradient":
        return GradientDescent(lambda x: torch.optim.Adam(x, lr=planner.rate), samples, std)
    return PredictiveSampling(samples, std)


@dataclass(frozen=True)
class PlannerPolicy:
    """Looks at the current frame, plans in latent space, executes, looks again.

    Attributes:
        model: in evaluation mode; plans where it lives.
        scale: of the actions the model was trained on.
        frameskip: raw actions per block.
        planner: PlannerSettings.
        on_plan: told after each decision the embeddings that the plan is expected to lead to,
            [N, H, D], and those of the goals, [N, D].
    """

    model: WorldModel
    scale: ActionScale
    frameskip: int = 5
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    on_plan: Callable[[Tensor, Tensor], None] | None = None

    def begin(self, task: Task) -> Actor:
        """A planner with one stream of noise per pair; sees the goals' pictures, not the states."""
        world, planner = task.world, self.planner
        # A block that holds one raw action is searched as that action.
        held, free = (1, self.frameskip) if planner.free else (self.frameskip, 1)
        mpc = MPC(
            method_of(planner),
            horizon=planner.horizon,
            action_dim=world.action_dim * free,
            iterations=planner.budget[1],
            execute=planner.execute,
            bounds=Bounds(
                torch.from_numpy(world.action_low), torch.from_numpy(world.action_high),
                mean=self.scale.mean, std=self.scale.std,
            ),
            seed=torch.from_numpy(task.seeds),
            batch=len(task.goals),
            block=free,
            device=where(self.model),
        )  # fmt: skip
        goal = _tensor(world.draw(task.goals), self.model)
        cost_from = self._costs(goal)

        def act(scene: Scene) -> Floats:
            frames = _tensor(scene.frames(), self.model)[:, None]
            cost = cost_from(frames)
            actions = mpc.act(lambda plans: cost(plans.repeat(1, 1, 1, held)))
            if self.on_plan and mpc.last:
                with torch.no_grad():
                    plan = mpc.last.actions.repeat(1, 1, held)
                    z = self.model.rollout(self.model.encode(frames), plan)
                    self.on_plan(z, self.model.encode(goal[:, None])[:, 0])
            out: Floats = actions.repeat_interleave(held, dim=1).cpu().numpy()
            return out

        return act

    def _costs(self, goal: Tensor) -> Callable[[Tensor], Cost]:
        """From frames to the cost of all problems, in calls that hold `together` problems each.

        Weights, goals and what is compiled or recorded are made here, once for all decisions.
        """
        planner, num = self.planner, len(goal)
        groups = alike(num, planner.together or num, goal.device)
        imagination = self.model.imagine(
            getattr(torch, planner.dtype), planner.compile, planner.cuda_graph
        )
        near = [goals.near(imagination.embed(goal[some]), planner.cost) for some in groups]

        def cost_from(frames: Tensor) -> Cost:
            costs = [
                one.of(imagination.look(frames[some]))
                for one, some in zip(near, groups, strict=True)
            ]

            def cost(plans: Tensor) -> Tensor:
                parts = [one(plans[some]) for one, some in zip(costs, groups, strict=True)]
                total = torch.cat(parts)[:num]
                # A new tensor has lost the mark by which the controller warns.
                total.last_step = near[0].last_step  # type: ignore[attr-defined]
                return total

            return cost

        return cost_from


@dataclass(frozen=True)
class GCBCPolicy:
    """Looks at the last frames and the goal, does a whole block of actions, looks again.

    The frames it looks back on are those of its own decisions, `frameskip` steps apart as in
    training. Actions beyond the world's box are cut to it; the model sees `together` pairs in one
    call, or all if None.

    Raises: ValueError if the model's blocks are not `frameskip` actions of `scale`.
    """

    model: GCBC
    scale: ActionScale
    frameskip: int = 5
    together: int | None = 16

    def __post_init__(self) -> None:
        if self.model.action_dim != len(self.scale.mean) * self.frameskip:
            raise ValueError(
                f"model must give {len(self.scale.mean)} × {self.frameskip} action dims, "
                f"it gives {self.model.action_dim}"
            )

    def begin(self, task: Task) -> Actor:
        """Blocks [N, frameskip, A]; sees the goals' pictures, not the states."""
        world, num, past = task.world, len(task.goals), list[Tensor]()
        goal = _tensor(world.draw(task.goals), self.model)
        groups = alike(num, self.together or num, goal.device)

        def act(scene: Scene) -> Floats:
            past.append(_tensor(scene.frames(), self.model))
            del past[: -self.model.trunk.history]
            frames = torch.stack(past, dim=1)
            blocks = torch.cat([self.model.act(frames[some], goal[some]) for some in groups])[:num]
            single = blocks.cpu().unflatten(1, (self.frameskip, -1))
            raw = (single * self.scale.std + self.scale.mean).numpy()
            out: Floats = np.clip(raw, world.action_low, world.action_high)
            return out

        return act


def alike(num: int, together: int, device: torch.device) -> list[Tensor]:
    """Indices of `num` problems in groups of `together`, the last filled up with the last one.

    A model that always sees as many at once rounds alike, whoever stands beside a problem. Of the
    groups' results one behind the other, the first `num` are those of the problems.
    """
    return [
        torch.arange(first, first + together, device=device).clamp_max(num - 1)
        for first in range(0, num, together)
    ]


def where(model: nn.Module) -> torch.device:
    """Where a model lives."""
    return next(model.parameters()).device


def _tensor(frames: NDArray[np.uint8], model: nn.Module) -> Tensor:
    return torch.from_numpy(frames).to(where(model))
