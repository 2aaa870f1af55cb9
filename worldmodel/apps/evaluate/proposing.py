"""What a run's learner adds to a planner: plans to begin with, a distance, sub-goals on the way.

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
from worldmodel.learning import Learner, load_learner
from worldmodel.model import WorldModel
from worldmodel.policies import Policy, retrieve, unroll
from worldmodel.subgoals import Graph, warn_beyond
from worldmodel.values import HIQL

__all__ = ["EACH", "Guide", "guide_of"]

EACH = 8  # recorded plans, and variants of the last one
_EDGE = 3.0  # blocks between two landmarks
_LANDMARKS = 200


class Guide(NamedTuple):
    """A learner and what it learned from, for one model and one planner."""

    model: WorldModel
    learner: Learner
    z: Tensor  #: [E, T, D], recorded embeddings, a block apart
    actions: Tensor  #: [E, T − 1, A], done between them
    bounds: Bounds  #: of raw actions, in the model's units
    planner: PlannerSettings
    clone: Run | None  #: that holds a GCBC
    graph: Graph | None

    @property
    def rollouts(self) -> int:
        """Plans imagined for a decision: what is costed, and policies that act in imagination."""
        recipe, planner, sources = self.learner.recipe, self.planner, self.planner.sources
        unrolled = self.horizon > recipe.chunk
        modes = 1 if isinstance(self.learner, HIQL) else recipe.modes
        policy = modes * ("policy" in sources)
        others = EACH * len({*sources} - {"policy"})
        cloned, (samples, iterations) = int(self.clone is not None), planner.budget
        walked = policy * unrolled + cloned * (self.horizon > 1)
        # The rest of the last plan, and rest.
        costed = 2 + policy + others + cloned + (iterations - 1) * samples
        return walked + (0 if planner.check == 0 else costed)

    @property
    def horizon(self) -> int:
        """Blocks of a plan, of what is done unchecked no more than that."""
        return self.planner.execute if self.planner.check == 0 else self.planner.horizon

    def begin(
        self, z_goal: Tensor, goal: Tensor
    ) -> Callable[[Futures, Tensor], tuple[goals.Goal, Tensor, Tensor]]:
        """For goals [N, D], and their pictures: futures and frames to a cost, plans and trust.

        Plans are [N, P, H, A]; where trust [N] is true, the first of them is done unimagined.
        """
        planner, learner, sources = self.planner, self.learner, self.planner.sources
        toward = self._toward(z_goal)
        rest = self.bounds.from_environment(z_goal.new_zeros(self.actions.shape[-1]))

        def propose(z: Tensor, aim: Tensor, frames: Tensor) -> Tensor:
            plans = []
            if self.clone is not None:
                plans.append(self._cloned(z, aim, frames, goal))
            for source in sources:
                if source == "policy":
                    plans.append(unroll(self._decide, self._step, z, aim, self.horizon))
                elif source == "recorded":
                    plans.append(retrieve(self.z, self.actions, z, aim, EACH, self.horizon))
            plans.append(rest.expand(len(z), 1, self.horizon, -1))
            return torch.cat(plans, 1)

        def trusted(z: Tensor) -> Tensor:
            if planner.check == 0 or isinstance(learner, Policy):
                return torch.full_like(z[:, 0], planner.check == 0, dtype=torch.bool)
            return learner.distance(z, z_goal).expm1() > planner.check

        def advise(futures: Futures, frames: Tensor) -> tuple[goals.Goal, Tensor, Tensor]:
            z = futures.z[:, -1].to(z_goal)
            aim = toward(z)
            # Where a count of blocks is blind, near the goal, likeness decides.
            cost = goals.near(aim, planner.cost) * (1 / aim.shape[-1])
            if planner.distance:
                assert not isinstance(learner, Policy)
                cost = cost + planner.distance * goals.temporal(learner.distance, aim, planner.cost)
            return cost, propose(z, aim, frames), trusted(z)

        return advise

    def warn(self, z: Tensor, z_goal: Tensor) -> None:
        """Warn if goals [N, D] are out of sight from z [N, D], and nothing leads there."""
        if self.planner.subgoals == "none" and not isinstance(self.learner, Policy):
            warn_beyond(self.learner.distance(z, z_goal).expm1(), self.planner.horizon)

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
        # A mode that no data asked for lies anywhere.
        low, high = self.actions.flatten(0, 1).aminmax(dim=0)
        out: Tensor = self.learner(z, z_goal).clamp(low, high)
        return out

    def _step(self, z: Tensor, actions: Tensor) -> Tensor:
        return self.model.rollout(z[:, None], actions)[:, -1]

    def _cloned(self, z: Tensor, aim: Tensor, frames: Tensor, goal: Tensor) -> Tensor:
        """A GCBC's next block, which needs pictures, and the learner's behind it: [N, 1, H, A]."""
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


def guide_of(run: Run, bounds: Bounds, planner: PlannerSettings) -> Guide:
    """What `worldmodel train --objective proposals` left in a run's folder.

    Raises: ValueError if it left nothing, or settings ask for what its learner lacks;
        FileNotFoundError or ValueError naming a file at fault.
    """
    path, model = run.folder / LEARNER, run.world_model
    if not path.is_file():
        make = f"worldmodel train --objective proposals --init-from {run.folder} makes one"
        raise ValueError(f"planner proposals needs {LEARNER} in {run.folder}; {make}")
    device = next(model.parameters()).device
    learner = load_learner(path, model=model).to(device)
    kept = {name: part.to(device) for name, part in read_weights(run.folder / RECORDED).items()}
    lacks = {
        "distance": bool(planner.distance) and isinstance(learner, Policy),
        "subgoals": planner.subgoals == "graph" and isinstance(learner, Policy),
        "subgoals hiql": planner.subgoals == "hiql" and not isinstance(learner, HIQL),
    }
    if asked := [name for name, missing in lacks.items() if missing]:
        which = "hiql" if asked[0] == "subgoals hiql" else "a value (gcivl, gciql, hiql)"
        raise ValueError(f"{asked[0]} needs the learner {which}, got {type(learner).__name__}")
    clone = None if planner.cloned is None else open_run(planner.cloned, str(device))
    if clone is not None and not isinstance(clone.model, GCBC):
        raise ValueError(f"cloned must be a run of --objective gcbc, got {planner.cloned}")
    if clone is not None and clone.frameskip != run.frameskip:
        both = f"{clone.frameskip} and {run.frameskip}"
        raise ValueError(f"cloned must be of the run's frameskip, got {both}")
    graph = None
    if planner.subgoals == "graph":
        assert not isinstance(learner, Policy)
        graph = Graph.of(kept["z"], learner.distance, num=_LANDMARKS, edge=_EDGE)
    return Guide(model, learner, **kept, bounds=bounds, planner=planner, clone=clone, graph=graph)
