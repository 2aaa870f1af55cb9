"""Policies: each gets its goals once, and gives actions until the budget ends.

Letters: N pairs side by side, S state dims, A action dims of one raw step.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import planners
from planners import MPC, Bounds, Cost, Method
from worldmodel import goals
from worldmodel.apps.evaluate.manifest import Manifest, Pairs
from worldmodel.apps.evaluate.proposing import EACH, Guide, guide_of
from worldmodel.apps.runs import Run, metric_of
from worldmodel.apps.settings import PlannerSettings
from worldmodel.data import ActionScale
from worldmodel.gcbc import GCBC
from worldmodel.heads import Head
from worldmodel.model import WorldModel
from worldmodel.worlds import World
from worldmodel.worlds.rules import Rule, rules_of

Floats = NDArray[np.float32]
_LEAST_STD = 0.05  # least standard deviation of a search that narrows


class Task(NamedTuple):
    """What a policy gets before the first step."""

    world: World  #: `world.draw(goals)` gives the pictures of the goals
    goals: Floats  #: [N, S]
    seeds: NDArray[np.int64]  #: [N], one for each pair, so that pairs are independent


class Scene(NamedTuple):
    """What a policy gets at a step."""

    states: Floats  #: [N, S], for scripted policies; learned ones use the frames
    #: draws [N, 3, H, W] when called; `frames(n)`: as they were n steps ago
    frames: Callable[..., NDArray[np.uint8]]


Actor = Callable[[Scene], Floats]
"""Scene of all pairs -> actions for the next steps [N, steps, A], in the world's units."""


class Policy(Protocol):
    """Makes an actor for each batch of pairs; the actor may have memory, the policy has none.

    The actions for a pair must depend only on that pair and its seed.
    """

    def begin(self, task: Task) -> Actor:
        """An actor for the pairs of `task`."""


class RandomPolicy:
    """Uniform actions in the world's bounds, one step at a time, from each pair's own seed."""

    def begin(self, task: Task) -> Actor:
        """Draws [N, 1, A] in [action_low, action_high]."""
        low, high = task.world.action_low, task.world.action_high
        rngs = [np.random.default_rng(seed) for seed in task.seeds.tolist()]
        size = (1, task.world.action_dim)
        return lambda _: np.stack([rng.uniform(low, high, size) for rng in rngs]).astype(np.float32)


class IdlePolicy:
    """The no-op policy: a pair that it solves needs no policy."""

    def begin(self, task: Task) -> Actor:
        """The world's no-op action, [N, 1, A]."""
        return lambda scene: task.world.idle(scene.states)[:, None]


class ExpertPolicy:
    """The world's scripted expert, which sees states."""

    def begin(self, task: Task) -> Actor:
        """The expert's action, [N, 1, A]; ValueError if the world has none."""
        act = task.world.expert(task.goals)
        if act is None:
            raise ValueError(f"{task.world.name} has no scripted expert")
        return lambda scene: act(scene.states)[:, None]


FLOORS: dict[str, Policy] = {
    "random": RandomPolicy(), "noop": IdlePolicy(), "expert": ExpertPolicy(),
}  # fmt: skip
"""The baselines that try the same pairs as the evaluated policy."""


@dataclass(frozen=True)
class PlannerPolicy:
    """Encodes the last frames, plans in latent space, executes, and begins again.

    The frames are a block apart, as in training, with the executed actions between them.
    """

    model: WorldModel  #: in evaluation mode; the planner uses its device
    scale: ActionScale  #: of the actions the model was trained on
    frameskip: int = 5  #: raw actions per block
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    guide: Guide | None = None  #: its proposals replace the search
    metric: Head | None = None  #: of the distance to the goal
    on_plan: Callable[[Tensor, Tensor], None] | None = None
    """Called after each decision with the predicted embeddings of the plan, [N, H, D], and those
    of the goals, [N, D]."""

    def begin(self, task: Task) -> Actor:
        """A planner with one noise stream per pair; it gets pictures of the goals, not states."""
        world, planner = task.world, self.planner
        # If one raw action is held for a block, the planner searches that action.
        free = self.frameskip if planner.free or self.guide else 1
        held = self.frameskip // free
        goal = _tensor(world.draw(task.goals), self.model)
        length = planner.history or self.model.predictor.history
        mpc = MPC(
            method_of(planner), horizon=self.guide.horizon if self.guide else planner.horizon,
            action_dim=world.action_dim * free, iterations=planner.budget[1],
            execute=planner.execute, bounds=bounds_of(world, self.scale),
            seed=torch.from_numpy(task.seeds), batch=len(task.goals), block=free,
            history=length, device=goal.device,
        )  # fmt: skip
        look = self._looks(goal)

        def act(scene: Scene) -> Floats:
            unseen = planner.execute if length > 1 and mpc.record.calls else 1
            for blocks in reversed(range(unseen)):
                mpc.see(_tensor(scene.frames(blocks * self.frameskip), self.model))
            frames, past = mpc.observations, mpc.past_actions
            assert isinstance(frames, Tensor)
            past = None if past is None else past.repeat(1, 1, held)
            cost, method = look(frames, past)
            with warnings.catch_warnings():
                if method is not None:  # actions at a bound are usual here
                    warnings.filterwarnings("ignore", "most candidates", RuntimeWarning)
                actions = mpc.act(lambda plans: cost(plans.repeat(1, 1, 1, held)), method=method)
            if self.on_plan and mpc.last:
                with torch.no_grad():
                    plan = mpc.last.actions.repeat(1, 1, held)
                    known = plan if past is None else torch.cat([past, plan], dim=1)
                    z = self.model.rollout(self.model.encode(frames), known)
                    self.on_plan(z, self.model.encode(goal[:, None])[:, 0])
            out: Floats = actions.repeat_interleave(held, dim=1).cpu().numpy()
            return out

        return act

    @property
    def rollouts(self) -> int:
        """Number of plans imagined for one decision."""
        samples, iterations = self.planner.budget
        return self.guide.rollouts if self.guide else samples * iterations

    def _looks(
        self, goal: Tensor
    ) -> Callable[[Tensor, Tensor | None], tuple[Cost, Method[Any] | None]]:
        """Map frames, and actions between them, to the cost of all problems.

        With a guide, also return the planning method of this step, which holds its proposals.
        """
        planner, guide, num = self.planner, self.guide, len(goal)
        groups = _alike(num, planner.together, goal.device)
        # Weights, goals, compiled code and graphs are made once for all decisions.
        dtype: torch.dtype = getattr(torch, planner.dtype)
        imagination = self.model.imagine(dtype, planner.compile, planner.cuda_graph)
        aims = [imagination.embed(goal[some]) for some in groups]
        near = [goals.near(z, planner.cost, metric=self.metric) for z in aims]
        pairs = list(zip(aims, groups, strict=True))
        guided = [guide.begin(z, goal[some]) for z, some in pairs] if guide else []

        def look(frames: Tensor, past: Tensor | None) -> tuple[Cost, Method[Any] | None]:
            done = [None if past is None else past[some] for some in groups]
            seen = zip(groups, done, strict=True)
            views = [imagination.look(frames[some], between) for some, between in seen]
            costs, method = near, None
            if guide:
                told = [
                    advise(view, frames[some, -1:])
                    for advise, view, some in zip(guided, views, groups, strict=True)
                ]
                costs = [cost for cost, _, _ in told]
                trust = torch.cat([some for _, _, some in told])[:num]
                plans = torch.cat([plans for _, plans, _ in told])[:num]
                method = method_of(planner, (plans,), guide.bounds)

            def cost(plans: Tensor) -> Tensor:
                # Candidate 0 is the start of the search, candidate 1 the first proposal.
                order = (torch.arange(plans.shape[1], device=plans.device) - 1) % plans.shape[1]
                if planner.check == 0:
                    return order.to(plans).expand(len(plans), -1)
                scored = [
                    one(view(plans[some]))
                    for one, view, some in zip(costs, views, groups, strict=True)
                ]
                total = torch.cat(scored)[:num]
                if guide:
                    total = torch.where(trust[:, None], order.to(total), total)
                # The new tensor needs the mark by which the controller warns.
                total.last_step = costs[0].last_step  # type: ignore[attr-defined]
                return total

            return cost, method

        return look


def bounds_of(world: World, scale: ActionScale) -> Bounds:
    """The box of the world's raw actions, for a search in the model's units."""
    low, high = torch.from_numpy(world.action_low), torch.from_numpy(world.action_high)
    return Bounds(low, high, mean=scale.mean, std=scale.std)


def method_of(
    told: PlannerSettings, plans: tuple[Tensor, ...] = (), bounds: Bounds | None = None
) -> Method[Any]:
    """The planning method of the settings; `plans` and `bounds` are those of proposals."""
    (samples, iterations), elites, std, least = told.budget, told.elites, told.std, _LEAST_STD
    if told.planner == "cem":
        return planners.CEM(samples, elites, init_std=std)
    if told.planner == "proposals":
        refine = planners.CEM(samples, elites, init_std=std, min_std=least)
        varied = (planners.PredictiveSampling(EACH, std),) if "variants" in told.sources else ()
        return planners.Proposals(refine if iterations > 1 else None, (*plans, *varied), bounds)
    if told.planner == "icem":
        # No decay, so that every iteration has as many candidates as with other planners.
        return planners.ICEM(samples, elites, init_std=std, decay=1.0)
    if told.planner == "mppi":
        return planners.MPPI(samples, told.temperature, std, elites, adapt_std=True, min_std=least)
    if told.planner == "gradient":
        return planners.GradientDescent(lambda x: torch.optim.Adam(x, lr=told.rate), samples, std)
    return planners.PredictiveSampling(samples, std)


@dataclass(frozen=True)
class GCBCPolicy:
    """Maps the last frames and the goal to a block of actions, executes it, and begins again.

    The frames are those of its own decisions, `frameskip` steps apart as in training. Actions are
    clipped to the world's bounds.

    Raises: ValueError if the model's blocks are not `frameskip` actions of `scale`.
    """

    model: GCBC
    scale: ActionScale
    frameskip: int = 5
    together: int | None = 16  #: pairs per call of the model; None: all

    def __post_init__(self) -> None:
        if self.model.action_dim != len(self.scale.mean) * self.frameskip:
            raise ValueError(
                f"model must give {len(self.scale.mean)} × {self.frameskip} action dims, "
                f"it gives {self.model.action_dim}"
            )

    def begin(self, task: Task) -> Actor:
        """Blocks [N, frameskip, A]; it gets pictures of the goals, not states."""
        world, num, past = task.world, len(task.goals), list[Tensor]()
        goal = _tensor(world.draw(task.goals), self.model)
        groups = _alike(num, self.together, goal.device)

        def act(scene: Scene) -> Floats:
            past.append(_tensor(scene.frames(), self.model))
            del past[: -self.model.trunk.history]
            frames = torch.stack(past, dim=1)
            blocks = torch.cat([self.model.act(frames[some], goal[some]) for some in groups])[:num]
            single = blocks.cpu().unflatten(1, (self.frameskip, -1))
            raw: Floats = (single * self.scale.std + self.scale.mean).numpy()
            return np.clip(raw, world.action_low, world.action_high)

        return act


def policy_of(run: Run, world: World, settings: PlannerSettings) -> PlannerPolicy | GCBCPolicy:
    """The run's world model with the planner of the settings, or the run's GCBC policy.

    Raises: ValueError if the model has other actions or takes fewer frames than `history`, or a
        GCBC policy is given a planner.
    """
    model, width = run.model, world.action_dim * run.frameskip
    takes = model.action_dim if isinstance(model, GCBC) else model.action_encoder.action_dim
    if takes != width or len(run.scale.mean) != world.action_dim:
        raise ValueError(
            f"the run's model must take {world.action_dim} × {run.frameskip} action dims of "
            f"{world.name}, it takes {takes}"
        )
    if run.scale.held:
        warnings.warn(run.scale.held_in_words, RuntimeWarning, stacklevel=2)
    if not isinstance(model, GCBC):
        most = model.predictor.history
        if (settings.history or 1) > most:
            rule = f"at most {most}, the frames that the predictor takes"
            raise ValueError(f"history must be {rule}, got {settings.history}")
        guided = settings.planner == "proposals"
        metric = metric_of(run) if settings.metric == "mahalanobis" else None
        guide = guide_of(run, bounds_of(world, run.scale), settings, metric) if guided else None
        return PlannerPolicy(model, run.scale, run.frameskip, settings, guide, metric)
    if settings.described() != PlannerSettings(together=settings.together).described():
        raise ValueError(
            f"{run.folder} holds a policy trained for {run.objective}, which does not plan: "
            "leave out --planner and its settings"
        )
    return GCBCPolicy(model, run.scale, run.frameskip, settings.together)


def _alike(num: int, together: int | None, device: torch.device) -> list[Tensor]:
    """Indices of `num` problems in groups of `together`; the last index fills up the last group."""
    # A fixed size of the call makes the rounding of a problem independent of the other problems.
    every, size = torch.arange(num, device=device), together or num
    return list(torch.cat([every, every[-1:].expand(-num % size)]).split(size))


def _tensor(frames: NDArray[np.uint8], model: nn.Module) -> Tensor:
    return torch.from_numpy(frames).to(next(model.parameters()).device)


class Outcome(NamedTuple):
    """The outcome of N attempts."""

    success: NDArray[np.bool_]  #: [N], whether the goal was reached at any step
    steps: NDArray[np.int64]  #: [N], the first such step, or the budget
    paths: Floats  #: [N, budget + 1, S], all states
    at_end: NDArray[np.bool_]  #: [N], whether it was reached after the last step
    distance: Floats  #: [N], to the goal after the last step
    seconds: tuple[float, ...]  #: of each decision for all pairs, without drawing frames
    roughness: Floats  #: [N], mean squared difference of successive actions


def attempt(
    world: World, pairs: Pairs | Manifest, policy: Policy, *, budget: int = 50,
    seeds: NDArray[np.int64] | None = None, rule: Rule | None = None,
) -> Outcome:  # fmt: skip
    """Let a policy act on all N pairs for `budget` raw steps; the last block may be cut.

    `seeds` [N] are the policy's; None: 0, 1, …. `rule` None is the world's own.

    Raises: ValueError if the policy's actions are not [N, steps, A].
    """
    num, seconds, paths, done = len(pairs.starts), list[float](), [pairs.starts], list[Floats]()
    actor = policy.begin(Task(world, pairs.goals, np.arange(num) if seeds is None else seeds))

    def frames(ago: int = 0) -> NDArray[np.uint8]:
        began = time.perf_counter()
        drawn = world.draw(paths[-1 - ago]) if ago else session.render()
        seconds[-1] -= time.perf_counter() - began
        return drawn

    with closing(world.start(pairs.starts)) as session:
        while len(paths) <= budget:
            began = time.perf_counter()
            seconds.append(0.0)
            actions = actor(Scene(paths[-1], frames))
            seconds[-1] += time.perf_counter() - began
            shape, wanted = actions.shape, f"[{num}, steps, {world.action_dim}]"
            if len(shape) != 3 or shape[::2] != (num, world.action_dim) or not shape[1]:
                raise ValueError(f"a policy's actions must be {wanted}, got {list(shape)}")
            actions = actions[:, : budget + 1 - len(paths)]
            paths.extend(session.step(action) for action in actions.swapaxes(0, 1))
            done.append(actions)
    states = np.stack(paths, axis=1)
    reached = (rule or rules_of(world)["own"]).met(states[:, 1:], pairs.goals)
    success: NDArray[np.bool_] = np.any(reached, axis=1)
    steps = np.where(success, reached.argmax(1) + 1, budget)
    distance = world.distance(states[:, -1], pairs.goals)
    jumps = np.square(np.diff(np.concatenate(done, axis=1), axis=1))
    rough: Floats = jumps.mean((1, 2)) if budget > 1 else np.zeros(num, np.float32)
    return Outcome(success, steps, states, reached[:, -1], distance, tuple(seconds), rough)
