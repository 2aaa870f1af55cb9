"""A trial: who is tried on what, the attempts batch by batch, and the result of them all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from planners.noise import fold_in
from worldmodel.apps.evaluate.manifest import PUBLISHED_PAIRS, Manifest, Pairs
from worldmodel.apps.evaluate.policies import FLOORS, PlannerPolicy, Policy, Scene, Task, policy_of
from worldmodel.apps.evaluate.result import (
    PLANNED,
    Distances,
    Fingerprint,
    Key,
    PlanningSeconds,
    Result,
    Tried,
)
from worldmodel.apps.machine import commit, machine, versions
from worldmodel.apps.progress import Progress
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import TrialSettings
from worldmodel.checkpoint import digest
from worldmodel.study import proportion
from worldmodel.worlds import World, open_world

__all__ = ["Outcome", "Trial", "attempt", "evaluate", "prepare", "result_of", "seeds_of", "tries"]


class Outcome(NamedTuple):
    """What a policy made of N pairs."""

    success: NDArray[np.bool_]  #: [N], the goal reached after some step of the budget
    steps: NDArray[np.int64]  #: [N], the first such step, or the budget
    paths: NDArray[np.float32]  #: [N, budget + 1, S], all states
    at_end: NDArray[np.bool_]  #: [N], the goal reached after the last step
    distance: NDArray[np.float32]  #: [N], to the goal after the last step
    seconds: tuple[float, ...]  #: of each decision for all pairs, drawing the frames left out


def attempt(
    world: World, pairs: Pairs | Manifest, policy: Policy, *, budget: int = 50,
    seeds: NDArray[np.int64] | None = None,
) -> Outcome:  # fmt: skip
    """Let a policy act on all N pairs for `budget` raw steps, where a block of actions is cut.

    `seeds` [N] are the policy's; None counts from 0.

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


class Trial(NamedTuple):
    """Policies and their task."""

    policies: dict[str, Policy]  #: who acts: the one that is measured, and the floors below it
    world: World  #: at the size the model sees
    manifest: Manifest  #: as it is tried; the historical protocol takes its first 50 pairs
    manifest_pairs: int  #: pairs in its file
    settings: TrialSettings
    fingerprint: Fingerprint
    keys: list[Key]  #: what is to be tried


def prepare(
    who: Run | Policy, manifest: Manifest, settings: TrialSettings, world: World | None = None
) -> Trial:
    """Open the manifest's world, unless it is given, and check all that must fit.

    Raises: ValueError if the run is of another world or action width, was trained on an episode
        that the manifest draws from, or plans nothing and is given a planner; if pairs were drawn
        historically without being asked for; ImportError if the world's package is missing.
    """
    run = who if isinstance(who, Run) else None
    if run is not None and run.world not in (None, manifest.env):
        raise ValueError(f"the run was trained on {run.world}, the manifest is of {manifest.env}")
    if settings.protocol == "held-out" and manifest.protocol == "historical":
        raise ValueError(
            "the manifest was drawn by the historical protocol, solved pairs and all; "
            "add --protocol historical to evaluate on it"
        )
    seen = run.trained_on & set(manifest.source_episodes) if run else ()
    if settings.protocol == "held-out" and seen:
        raise ValueError(
            f"the run was trained on {len(seen)} of the {len(set(manifest.source_episodes))} "
            "episodes that the manifest draws from; make one of held-out episodes (manifest "
            "--unseen-by RUN), or add --protocol historical"
        )
    if settings.compile:
        import torch._dynamo  # noqa: F401 - imported after an OpenGL context, it would crash
    # A file may name a class, but only whoever starts the command has it imported.
    if world is None and ":" in manifest.env and manifest.env != settings.env:
        raise ValueError(
            f"the manifest is of {manifest.env}, which is no world of ours: add --env "
            f"{manifest.env} to import and run that class"
        )
    side = run.model.encoder.image_size if run else 64
    world = world or open_world(manifest.env, image_size=side, workers=settings.workers)
    if manifest.starts.shape[1] != world.state_dim:
        raise ValueError(
            f"the manifest's states must have the {world.state_dim} entries of {manifest.env}, "
            f"got {manifest.starts.shape[1]}"
        )
    policy = policy_of(who, world, settings) if isinstance(who, Run) else who
    policies = {PLANNED: policy, **FLOORS}
    if world.expert(manifest.goals[:1]) is None:
        del policies["expert"]
    tried = manifest.take(slice(PUBLISHED_PAIRS if settings.protocol == "historical" else None))
    # Only plans and chance differ from one repeat to the next.
    times = {PLANNED: settings.seeds, "random": settings.seeds}
    keys = [(name, repeat, pair) for name in policies for repeat in range(times.get(name, 1))
            for pair in range(len(tried.seeds))]  # fmt: skip
    planner = policy.planner if isinstance(policy, PlannerPolicy) else None
    fingerprint = Fingerprint(
        run=str(run.folder) if run else type(policy).__name__,
        objective=run.objective if run else None, weights=digest(run.model) if run else None,
        planner=planner.described() if planner else type(policy).__name__,
        rollouts_per_decision=planner.budget[0] * planner.budget[1] if planner else None,
        batch_size=settings.batch_size, frameskip=run.frameskip if run else None,
        image_size=world.image_size, world_versions=world.versions(),
        manifest_versions=manifest.versions, versions=versions(), commit=commit(),
        machine=machine(str(next(run.model.parameters()).device) if run else "cpu"),
    )  # fmt: skip
    return Trial(policies, world, tried, len(manifest.seeds), settings, fingerprint, keys)


def evaluate(
    who: Run | Policy, manifest: Manifest, settings: TrialSettings, *,
    world: World | None = None, title: str = "evaluate",
) -> Result:  # fmt: skip
    """Try a run or a policy on a manifest, beside chance, idleness and the scripted expert.

    Of a Run the model stands behind the planner of `settings`. `world` None opens the manifest's.

    Raises: as `prepare`.
    """
    trial = prepare(who, manifest, settings, world)
    with Progress(title, len(trial.keys), unit="attempt") as bar:
        return result_of(trial, [one for some in tries(trial, trial.keys, bar) for one in some])


def tries(trial: Trial, keys: Iterable[Key], bar: Progress) -> Iterator[list[Tried]]:
    """What comes of each batch of `keys`, which stand in the order of `trial.keys`.

    Neither the size of a batch nor the order of the pairs changes an outcome.
    """
    manifest, size = trial.manifest, trial.settings.batch_size
    for (name, repeat), group in groupby(keys, lambda key: key[:2]):
        pairs, seeds = np.asarray([pair for _, _, pair in group]), seeds_of(manifest, repeat)
        for some in np.split(pairs, range(size, len(pairs), size)):
            mine, acting = manifest.take(some), trial.policies[name]
            found = attempt(trial.world, mine, acting, budget=manifest.budget, seeds=seeds[some])
            yield [
                Tried(
                    pair=pair, repeat=repeat, policy=name,
                    success=bool(found.success[n]), success_at_end=bool(found.at_end[n]),
                    steps=int(found.steps[n]) if found.success[n] else None,
                    final_distance=float(found.distance[n]),
                    together=0 if n else len(some), seconds=() if n else found.seconds,
                )
                for n, pair in enumerate(some.tolist())
            ]  # fmt: skip
            bar.update(len(some))


def seeds_of(manifest: Manifest, repeat: int) -> NDArray[np.int64]:
    """[N], not negative; a function of the pair's own seed and of which repeat it is."""
    mixed = fold_in(torch.from_numpy(manifest.seeds), repeat)
    out: NDArray[np.int64] = (mixed & (2**63 - 1)).numpy()
    return out


def result_of(trial: Trial, tried: Sequence[Tried]) -> Result:
    """The result, of all keys of a trial in whatever order."""
    manifest, pairs = trial.manifest, len(trial.manifest.seeds)
    planned = sorted((one for one in tried if one.policy == PLANNED), key=lambda one: one.key)
    by_repeat = np.asarray([one.success for one in planned]).reshape(-1, pairs).mean(1)
    steps = [one.steps for one in planned if one.steps is not None]
    distance, far = np.quantile([one.final_distance for one in planned], [0.5, 0.95]).tolist()
    seconds = [s for one in planned for s in one.seconds]
    median, slow = np.quantile(seconds, [0.5, 0.95]).tolist()
    together = max(one.together for one in planned)
    rates: dict[str, Any] = {"expert_success_rate": None, "expert_success_interval": None}
    for policy in trial.policies:
        name = "" if policy == PLANNED else f"{policy}_"
        mine = [one for one in tried if one.policy == policy]
        for end, flags in (
            ("", [one.success for one in mine]), ("_at_end", [one.success_at_end for one in mine]),
        ):  # fmt: skip
            rates[f"{name}success_rate{end}"] = round(sum(flags) / len(mine), 4)
            if not (name and end):
                # Repeats of a pair narrow no interval.
                ends = proportion(sum(flags) * pairs / len(mine), pairs)[1:3]
                rates[f"{name}success_interval{end}"] = tuple(round(bound, 4) for bound in ends)
    return Result(
        env=manifest.env, protocol=trial.settings.protocol, manifest_protocol=manifest.protocol,
        manifest_pairs=trial.manifest_pairs, manifest_hash=manifest.sha256,
        criterion=manifest.criterion, offset=manifest.offset, budget=manifest.budget,
        pairs_dropped_as_solved=manifest.dropped_as_solved, fingerprint=trial.fingerprint, **rates,
        success_rate_by_repeat=tuple(round(float(rate), 4) for rate in by_repeat),
        pairs=pairs, repeats=len(by_repeat),
        mean_steps_to_goal=round(float(np.mean(steps)), 2) if steps else None,
        final_distance=Distances(median=round(distance, 4), p95=round(far, 4)),
        planning_seconds=PlanningSeconds(
            median=round(median, 5), p95=round(slow, 5), pairs_per_decision=together,
            median_per_pair=round(median / together, 6), decisions=len(seconds),
        ),
        outcomes=tuple(
            one.model_copy(update={"final_distance": round(one.final_distance, 4)})
            for one in planned
        ),
    )  # fmt: skip
