"""Who is tried on what: everything that must fit is checked here, before the first attempt."""

from __future__ import annotations

from typing import NamedTuple

from worldmodel.apps.evaluate.manifest import PUBLISHED_PAIRS, Manifest
from worldmodel.apps.evaluate.planning import GCBCPolicy, PlannerPolicy, where
from worldmodel.apps.evaluate.policies import ExpertPolicy, IdlePolicy, Policy, RandomPolicy
from worldmodel.apps.evaluate.result import PLANNED, Fingerprint, Key
from worldmodel.apps.machine import commit, machine, versions
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import PlannerSettings, TrialSettings
from worldmodel.checkpoint import digest
from worldmodel.gcbc import GCBC
from worldmodel.worlds import World, open_world

__all__ = ["Trial", "prepare"]


class Trial(NamedTuple):
    """A policy and its task.

    Attributes:
        policies: who acts, by name: the one that is measured, and the floors below it.
        world: at the size the model sees.
        manifest: as it is tried; the historical protocol takes its first 50 pairs.
        manifest_pairs: pairs in its file.
        settings: TrialSettings.
        fingerprint: whose the result is.
        keys: what is to be tried: policy, repeat, pair.
    """

    policies: dict[str, Policy]
    world: World
    manifest: Manifest
    manifest_pairs: int
    settings: TrialSettings
    fingerprint: Fingerprint
    keys: list[Key]


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
    if settings.protocol == "held-out":
        _check_unseen(run, manifest)
    if settings.compile:
        import torch._dynamo  # noqa: F401 - imported after an OpenGL context, it would crash
    world = world or _open(manifest, settings, run.model.encoder.image_size if run else 64)
    if manifest.starts.shape[1] != world.state_dim:
        raise ValueError(
            f"the manifest's states must have the {world.state_dim} entries of {manifest.env}, "
            f"got {manifest.starts.shape[1]}"
        )
    policy = _policy_of(who, world, settings) if isinstance(who, Run) else who
    policies = {PLANNED: policy, "random": RandomPolicy(), "noop": IdlePolicy()}
    if world.expert(manifest.goals[:1]) is not None:
        policies["expert"] = ExpertPolicy()
    tried = manifest.take(slice(PUBLISHED_PAIRS if settings.protocol == "historical" else None))
    # Only plans and chance differ from one repeat to the next.
    times = {PLANNED: settings.seeds, "random": settings.seeds}
    keys = [(name, repeat, pair) for name in policies for repeat in range(times.get(name, 1))
            for pair in range(len(tried.seeds))]  # fmt: skip
    planner = policy.planner if isinstance(policy, PlannerPolicy) else None
    fingerprint = Fingerprint(
        run=str(run.folder) if run else type(policy).__name__,
        objective=run.objective if run else None,
        weights=digest(run.model) if run else None,
        planner=planner.described() if planner else type(policy).__name__,
        rollouts_per_decision=planner.budget[0] * planner.budget[1] if planner else None,
        batch_size=settings.batch_size,
        frameskip=run.frameskip if run else None,
        image_size=world.image_size,
        world_versions=world.versions(),
        manifest_versions=manifest.versions,
        versions=versions(),
        commit=commit(),
        machine=machine(str(where(run.model)) if run else "cpu"),
    )
    return Trial(policies, world, tried, len(manifest.seeds), settings, fingerprint, keys)


def _check_unseen(run: Run | None, manifest: Manifest) -> None:
    if manifest.protocol == "historical":
        raise ValueError(
            "the manifest was drawn by the historical protocol, solved pairs and all; "
            "add --protocol historical to evaluate on it"
        )
    names = set(manifest.source_episodes)
    if run is not None and (seen := len(run.trained_on & names)):
        raise ValueError(
            f"the run was trained on {seen} of the {len(names)} episodes that the manifest draws "
            "from; make one of held-out episodes (manifest --unseen-by RUN), or add "
            "--protocol historical"
        )


def _open(manifest: Manifest, settings: TrialSettings, image_size: int) -> World:
    # A file may name a class, but only whoever starts the command has it imported.
    if ":" in manifest.env and manifest.env != settings.env:
        raise ValueError(
            f"the manifest is of {manifest.env}, which is no world of ours: add --env "
            f"{manifest.env} to import and run that class"
        )
    return open_world(manifest.env, image_size=image_size, workers=settings.workers)


def _policy_of(run: Run, world: World, settings: TrialSettings) -> PlannerPolicy | GCBCPolicy:
    """The run's model behind the planner asked for, or the policy that it is."""
    model, width = run.model, world.action_dim * run.frameskip
    takes = model.action_dim if isinstance(model, GCBC) else model.action_encoder.action_dim
    if takes != width or len(run.scale.mean) != world.action_dim:
        raise ValueError(
            f"the run's model must take {world.action_dim} × {run.frameskip} action dims of "
            f"{world.name}, it takes {takes}"
        )
    if isinstance(model, GCBC):
        if settings.described() != PlannerSettings(together=settings.together).described():
            raise ValueError(
                f"{run.folder} holds a policy trained for {run.objective}, which plans nothing: "
                "leave out --planner and its settings"
            )
        return GCBCPolicy(model, run.scale, run.frameskip, settings.together)
    return PlannerPolicy(model, run.scale, run.frameskip, settings)
