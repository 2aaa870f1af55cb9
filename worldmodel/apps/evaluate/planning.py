"""A world model and a planner as a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners import CEM, ICEM, MPC, MPPI, Bounds, Cost, GradientDescent, Method, PredictiveSampling
from worldmodel.apps.evaluate.policies import Actor, Scene, Task
from worldmodel.cost import goal_cost
from worldmodel.data import ActionScale
from worldmodel.model import WorldModel

__all__ = ["PLANNERS", "Imagined", "Planner", "PlannerPolicy", "alike"]

Floats = NDArray[np.float32]
PLANNERS = ("cem", "icem", "mppi", "gradient", "predictive-sampling")
"""The planners that `Planner.name` may be."""


class Imagined(NamedTuple):
    """What a chosen plan is expected to lead to.

    Attributes:
        z: [N, H, D], predicted embeddings.
        goal: [N, D].
        last: whether the plan was judged by its end alone.
    """

    z: Tensor
    goal: Tensor
    last: bool


@dataclass(frozen=True)
class Planner:
    """Which planner, with which settings; the defaults are those of the demo.

    Each default spends 384 rollouts a decision, of which "gradient" also takes the gradient.

    Attributes:
        name: one of `PLANNERS`.
        samples: candidates per iteration (for "gradient" starts); None is 64, and 16 there.
        iterations: per decision; None is 6, for "gradient" 24.
        elites: of "cem" and "icem", and the candidates that "mppi" averages.
        std: spread of the first candidates, in units of the training actions' deviation.
        temperature: λ of "mppi", in units of the cost.
        rate: step size of "gradient".
        horizon: blocks planned ahead.
        execute: blocks done before the next plan.
        held: whether a block repeats one raw action. Then a search has A numbers a block and not
            A × frameskip.
        cost: `steps` of `worldmodel.goal_cost`.
        together: problems the model sees in one call, the last call filled up. Which of them stand
            beside a problem must not matter, and rounding depends on how many there are: so their
            number is fixed. None means as many as there are.
    Raises: ValueError on an unknown name or a number out of range.
    """

    name: str = "cem"
    samples: int | None = None
    iterations: int | None = None
    elites: int = 8
    std: float = 1.0
    temperature: float = 1.0
    rate: float = 0.1
    horizon: int = 5
    execute: int = 1
    held: bool = True
    cost: Literal["last", "mean", "nearest"] = "nearest"
    together: int | None = 16

    def __post_init__(self) -> None:
        if self.name not in PLANNERS:
            raise ValueError(f"planner must be one of {', '.join(PLANNERS)}, got {self.name!r}")
        for name in ("samples", "iterations", "horizon", "execute", "together"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("std", "temperature", "rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.execute > self.horizon:
            raise ValueError(
                f"execute must be at most horizon = {self.horizon}, got {self.execute}"
            )
        self.method()

    @property
    def budget(self) -> tuple[int, int]:
        """Candidates per iteration, and iterations."""
        usual = (16, 24) if self.name == "gradient" else (64, 6)
        return self.samples or usual[0], self.iterations or usual[1]

    def method(self) -> Method[Any]:
        """The planner itself."""
        samples = self.budget[0]
        methods: dict[str, Callable[[], Method[Any]]] = {
            "cem": lambda: CEM(samples, self.elites, init_std=self.std),
            # Without decay: as many candidates in every iteration as the others have.
            "icem": lambda: ICEM(samples, self.elites, init_std=self.std, decay=1.0),
            "mppi": lambda: MPPI(
                samples, self.temperature, self.std, top_k=self.elites, adapt_std=True, min_std=0.05
            ),
            "gradient": lambda: GradientDescent(
                lambda tensors: torch.optim.Adam(tensors, lr=self.rate), samples, self.std
            ),
            "predictive-sampling": lambda: PredictiveSampling(samples, self.std),
        }
        return methods[self.name]()


class PlannerPolicy:
    """Looks at the current frame, plans in latent space, executes, looks again.

    Args:
        model: WorldModel in evaluation mode.
        scale: of the actions the model was trained on.
        frameskip: raw actions per block.
        planner: Planner.
        device: where the model lives.
        on_plan: called after each decision with what the plan is expected to lead to.
    """

    def __init__(
        self,
        model: WorldModel,
        scale: ActionScale,
        *,
        frameskip: int = 5,
        planner: Planner = Planner(),
        device: str = "cpu",
        on_plan: Callable[[Imagined], None] | None = None,
    ) -> None:
        self.model, self.scale, self.frameskip = model, scale, frameskip
        self.planner, self.device, self.on_plan = planner, torch.device(device), on_plan

    def begin(self, task: Task) -> Actor:
        """A planner with one stream of noise per pair; sees the goals' pictures, not the states."""
        world, planner, block = task.world, self.planner, self.frameskip
        bounds = Bounds(
            torch.from_numpy(world.action_low), torch.from_numpy(world.action_high),
            mean=self.scale.mean, std=self.scale.std,
        )  # fmt: skip
        mpc = MPC(
            planner.method(),
            horizon=planner.horizon,
            action_dim=world.action_dim * (1 if planner.held else block),
            iterations=planner.budget[1],
            execute=planner.execute,
            bounds=bounds,
            seed=torch.from_numpy(task.seeds),
            batch=len(task.goals),
            block=1 if planner.held else block,
            device=self.device,
        )
        goal = self._tensor(world.draw(task.goals))

        def act(scene: Scene) -> Floats:
            frames = self._tensor(scene.frames())[:, None]
            cost = _cost(self.model, frames, goal, planner)
            if not planner.held:
                actions = mpc.act(cost)
            else:
                actions = mpc.act(lambda plans: cost(plans.repeat(1, 1, 1, block)))
                actions = actions.repeat_interleave(block, dim=1)
            if self.on_plan and mpc.last:
                self.on_plan(self._imagine(frames, goal, mpc.last.actions))
            out: Floats = actions.cpu().numpy()
            return out

        return act

    @torch.no_grad()
    def _imagine(self, frames: Tensor, goal: Tensor, plan: Tensor) -> Imagined:
        if self.planner.held:
            plan = plan.repeat(1, 1, self.frameskip)
        z = self.model.rollout(self.model.encode(frames), plan)
        return Imagined(z, self.model.encode(goal[:, None])[:, 0], self.planner.cost == "last")

    def _tensor(self, frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(frames).to(self.device)


def alike(num: int, together: int, device: torch.device) -> list[Tensor]:
    """Indices of `num` problems in groups of `together`, the last filled up with the last one.

    A model that always sees as many at once rounds alike, whoever stands beside a problem. Of the
    groups' results one behind the other, the first `num` are those of the problems.
    """
    return [
        torch.arange(first, first + together, device=device).clamp_max(num - 1)
        for first in range(0, num, together)
    ]


def _cost(model: WorldModel, frames: Tensor, goal: Tensor, planner: Planner) -> Cost:
    """The cost of all problems, from calls of the model that all hold `together` problems."""
    num = len(goal)
    groups = alike(num, planner.together or num, goal.device)
    costs: Sequence[Cost] = [
        goal_cost(model, frames[group], goal[group], steps=planner.cost) for group in groups
    ]
    if len(groups) == 1 and len(groups[0]) == num:
        return costs[0]

    def cost(plans: Tensor) -> Tensor:
        parts = [one(plans[group]) for one, group in zip(costs, groups, strict=True)]
        return torch.cat(parts)[:num]

    return cost
