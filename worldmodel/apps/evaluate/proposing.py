"""What a run's learner adds to a planner: proposed plans, a distance, and sub-goals.

Letters: N problems, P proposals, H blocks of a plan, D embedding dims, A action dims of a block.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from planners import Bounds
from worldmodel import Futures, goals
from worldmodel.apps.runs import LEARNER, RECORDED, Run, open_run
from worldmodel.apps.settings import PlannerSettings
from worldmodel.checkpoint import read_weights
from worldmodel.gcbc import GCBC
from worldmodel.heads import Head
from worldmodel.learning import Learner, load_learner
from worldmodel.model import WorldModel
from worldmodel.policies import Policy, retrieve, unroll
from worldmodel.study import embed
from worldmodel.subgoals import Graph, warn_beyond
from worldmodel.values import HIQL
from worldmodel.worlds.contract import Pixels

EACH = 8  # plans from recordings, and variants of the last plan
_EDGE = 3.0  # blocks between two landmarks
_LANDMARKS = 200


class Guide(NamedTuple):
    """A learner and its recorded data, for one model and one planner."""

    model: WorldModel
    learner: Learner
    z: Tensor  #: [E, T, D], recorded embeddings, a block apart
    actions: Tensor  #: [E, T − 1, A], the blocks between them
    bounds: Bounds  #: of raw actions, in the model's units
    planner: PlannerSettings
    clone: Run | None  #: a run with a GCBC policy
    graph: Graph | None
    metric: Head | None = None  #: of the distance to the goal

    @property
    def rollouts(self) -> int:
        """Plans imagined for a decision: those with a cost, and unrolled policies."""
        (modes, chunk, _), sources = self.learner.actor.shape, self.planner.sources
        policy, cloned = modes * ("policy" in sources), int(self.clone is not None)
        walked = policy * (self.horizon > chunk) + cloned * (self.horizon > 1)
        (samples, iterations), others = self.planner.budget, EACH * len({*sources} - {"policy"})
        # The two are the shifted last plan and the no-op plan.
        costed = 2 + policy + others + cloned + (iterations - 1) * samples
        return walked + (0 if self.planner.check == 0 else costed)

    @property
    def horizon(self) -> int:
        """Blocks of a plan; with check 0, only the blocks that are executed."""
        return self.planner.execute if self.planner.check == 0 else self.planner.horizon

    def begin(
        self, z_goal: Tensor, goal: Tensor
    ) -> Callable[[Futures, Tensor], tuple[goals.Goal, Tensor, Tensor]]:
        """For goals [N, D] and their pictures: a function from futures and frames to proposals.

        It returns a cost, plans [N, P, H, A] and trust [N]: if true, plan 0 needs no imagination.
        """
        planner, learner, sources = self.planner, self.learner, self.planner.sources
        toward, H = self._toward(z_goal), self.horizon
        rest = self.bounds.from_environment(z_goal.new_zeros(self.actions.shape[-1]))
        rest = rest.clamp(*self.bounds.box(rest))  # zero may lie outside the bounds

        def advise(futures: Futures, frames: Tensor) -> tuple[goals.Goal, Tensor, Tensor]:
            z = futures.z[:, -1].to(z_goal)
            aim, plans = toward(z), []
            if self.clone is not None:
                plans.append(self._cloned(z, aim, frames, goal))
            for source in sources:
                if source == "policy":
                    plans.append(unroll(self._decide, self._step, z, aim, H))
                elif source == "recorded":
                    plans.append(retrieve(self.z, self.actions, z, aim, EACH, H))
            plans.append(rest.expand(len(z), 1, H, -1))
            # Near the goal the learner's distance is coarse, so the latent distance is added.
            cost = goals.near(aim, planner.cost, metric=self.metric) * (1 / aim.shape[-1])
            trust = torch.full_like(z[:, 0], planner.check == 0, dtype=torch.bool)
            if not isinstance(learner, Policy):
                soon = goals.temporal(learner.distance, aim, planner.cost)
                cost = cost + planner.distance * soon if planner.distance else cost
                trust |= learner.distance(z, z_goal).expm1() > planner.check
            return cost, torch.cat(plans, 1), trust

        return advise

    def warn(self, *ends: Pixels) -> None:
        """Warn if goals are farther than a plan reaches, from pictures of starts and goals."""
        if self.planner.subgoals == "none" and not isinstance(self.learner, Policy):
            z, z_goal = (embed(self.model, torch.from_numpy(frames)) for frames in ends)
            blocks = self.learner.distance(z, z_goal).expm1()
            if len(planned := blocks[blocks <= self.planner.check]):
                warn_beyond(planned, self.planner.horizon)

    def _toward(self, z_goal: Tensor) -> Callable[[Tensor], Tensor]:
        if self.graph is not None:
            return self.graph.toward(z_goal)
        if self.planner.subgoals == "hiql":
            hiql, known = self.learner, self.z.flatten(0, 1)
            assert isinstance(hiql, HIQL)
            known = known[:: max(1, len(known) // _LANDMARKS)]
            return lambda z: hiql.subgoal(z, z_goal, known)
        return lambda _: z_goal

    def _decide(self, z: Tensor, z_goal: Tensor) -> Tensor:
        # A mode without data may lie anywhere.
        low, high = self.actions.flatten(0, 1).aminmax(dim=0)
        out: Tensor = self.learner(z, z_goal).clamp(low, high)
        return out

    def _step(self, z: Tensor, actions: Tensor) -> Tensor:
        return self.model.rollout(z[:, None], actions)[:, -1]

    def _cloned(self, z: Tensor, aim: Tensor, frames: Tensor, goal: Tensor) -> Tensor:
        """A GCBC's next block (from pictures), then blocks of the learner: [N, 1, H, A]."""
        clone = self.clone
        assert clone is not None
        assert isinstance(clone.model, GCBC)
        block = clone.model.act(frames, goal).unflatten(1, (-1, len(clone.scale.mean)))
        raw = block * clone.scale.std.to(block) + clone.scale.mean.to(block)
        first = self.bounds.from_environment(raw.flatten(1))[:, None]
        if self.horizon == 1:
            return first[:, None]
        after = unroll(self._decide, self._step, self._step(z, first), aim, self.horizon - 1)
        return torch.cat([first[:, None], after[:, :1]], 2)


def guide_of(
    run: Run, bounds: Bounds, planner: PlannerSettings, metric: Head | None = None
) -> Guide:
    """Read what `worldmodel train --objective proposals` wrote into a run folder.

    Raises: ValueError if there is no learner, or the settings need another learner;
        FileNotFoundError or ValueError naming the file at fault.
    """
    path, model = run.folder / LEARNER, run.world_model
    if not path.is_file():
        make = f"worldmodel train --objective proposals --init-from {run.folder} makes one"
        raise ValueError(f"planner proposals needs {LEARNER} in {run.folder}; {make}")
    device = next(model.parameters()).device
    learner = load_learner(path, model=model).to(device)
    parts = read_weights(run.folder / RECORDED).items()
    kept = {name: part.to(device, torch.float32) for name, part in parts}
    graph, clone, which = None, None, type(learner).__name__
    if planner.subgoals == "hiql" and not isinstance(learner, HIQL):
        raise ValueError(f"subgoals hiql needs the learner hiql, got {which}")
    if isinstance(learner, Policy) and (planner.distance or planner.subgoals == "graph"):
        raise ValueError(f"distance and subgoals need a value (gcivl, gciql, hiql), got {which}")
    if planner.cloned is not None:
        clone = open_run(planner.cloned, str(device))
        if not isinstance(clone.model, GCBC) or clone.frameskip != run.frameskip:
            rule = f"a run of --objective gcbc at frameskip {run.frameskip}"
            raise ValueError(f"cloned must be {rule}, got {planner.cloned}")
    if planner.subgoals == "graph" and not isinstance(learner, Policy):
        graph = Graph.of(kept["z"], learner.distance, num=_LANDMARKS, edge=_EDGE)
    z, actions = kept["z"], kept["actions"]
    return Guide(model, learner, z, actions, bounds, planner, clone, graph, metric)
