"""A run tried on a manifest: what must fit before, and everything that is written down after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from worldmodel.apps.evaluate.manifest import Manifest, ProtocolName
from worldmodel.apps.evaluate.planning import Planner, PlannerPolicy
from worldmodel.apps.evaluate.policies import Policy
from worldmodel.apps.evaluate.results import Report, Trials, floors, outcomes, summary, try_policy
from worldmodel.apps.provenance import commit, machine, versions
from worldmodel.apps.runs import Run
from worldmodel.checkpoint import digest
from worldmodel.worlds import World, open_world

__all__ = ["Evaluation", "evaluate", "policy_of", "world_for"]

HISTORICAL = 50  # pairs of the published tables


@dataclass(frozen=True)
class Evaluation:
    """How a run is tried.

    Attributes:
        planner: Planner.
        protocol: "held-out", or "historical" for pairs of training rows, the first 50 of them.
        batch_size: pairs side by side.
        repeats: how often every pair is tried, each time with other seeds.
        device: where the model lives.
    """

    planner: Planner
    protocol: ProtocolName = "held-out"
    batch_size: int = 64
    repeats: int = 1
    device: str = "cpu"


def world_for(run: Run, manifest: Manifest, protocol: ProtocolName) -> World:
    """The manifest's world at the size the run's model sees, if the two go together.

    Args:
        run: Run.
        manifest: Manifest.
        protocol: "historical" allows training episodes and solved pairs.
    Returns: World.
    Raises: ValueError if the run is of another world or action width, if it was trained on an
        episode that the manifest draws from, or if pairs were drawn historically without being
        asked for; ImportError if the world's package is missing.
    """
    if run.world is not None and run.world != manifest.env:
        raise ValueError(f"the run was trained on {run.world}, the manifest is of {manifest.env}")
    if protocol == "held-out":
        if manifest.protocol == "historical":
            raise ValueError(
                "the manifest was drawn by the historical protocol, solved pairs and all; "
                "add --protocol historical to evaluate on it"
            )
        seen = len(run.trained_on & set(manifest.digests))
        if seen:
            raise ValueError(
                f"the run was trained on {seen} of the {len(manifest.digests)} episodes that the "
                "manifest draws from; make one of held-out episodes, or add --protocol historical"
            )
    world = open_world(manifest.env, image_size=run.model.encoder.image_size)
    width = run.model.action_encoder.action_dim
    if width != world.action_dim * run.frameskip or len(run.scale.mean) != world.action_dim:
        raise ValueError(
            f"the run's model must take {world.action_dim} × {run.frameskip} action dims of "
            f"{manifest.env}, it takes {width}"
        )
    return world


def policy_of(run: Run, evaluation: Evaluation) -> PlannerPolicy:
    """The run's model behind the planner asked for."""
    return PlannerPolicy(
        run.model,
        run.scale,
        frameskip=run.frameskip,
        planner=evaluation.planner,
        device=evaluation.device,
    )


def historical(manifest: Manifest) -> Manifest:
    """Its first 50 pairs, as many as published tables count."""
    some = slice(HISTORICAL)
    return manifest._replace(pairs=manifest.pairs.take(some), seeds=manifest.seeds[some])


def evaluate(
    run: Run,
    manifest: Manifest,
    evaluation: Evaluation,
    *,
    policy: Policy | None = None,
    on_pairs: Report = lambda _: None,
) -> tuple[dict[str, Any], Trials]:
    """Try a run on a manifest.

    Args:
        run: Run.
        manifest: Manifest.
        evaluation: Evaluation.
        policy: who acts; None is the run's model behind the planner.
        on_pairs: called with n after n more pairs.
    Returns: the result, in JSON's own types, and the trials behind it.
    Raises: as `world_for`.
    """
    world = world_for(run, manifest, evaluation.protocol)
    if evaluation.protocol == "historical":
        manifest = historical(manifest)
    trials = try_policy(
        world,
        manifest,
        policy or policy_of(run, evaluation),
        repeats=evaluation.repeats,
        batch_size=evaluation.batch_size,
        on_pairs=on_pairs,
    )
    settings = asdict(evaluation.planner)
    settings["samples"], settings["iterations"] = evaluation.planner.budget
    result = {
        "env": manifest.env,
        "protocol": evaluation.protocol,
        "criterion": manifest.criterion,
        "offset": manifest.offset,
        "budget": manifest.budget,
        "pairs_dropped_as_solved": manifest.pairs.dropped,
        **summary(trials),
        **floors(world, manifest, repeats=evaluation.repeats, batch_size=evaluation.batch_size),
        "manifest_hash": manifest.hash,
        "fingerprint": {
            "run": str(run.folder),
            "objective": run.objective,
            "weights": digest(run.model),
            "planner": settings if policy is None else type(policy).__name__,
            "rollouts_per_decision": settings["samples"] * settings["iterations"],
            "batch_size": evaluation.batch_size,
            "frameskip": run.frameskip,
            "image_size": world.image_size,
            "world_versions": world.versions(),
            "manifest_versions": manifest.versions,
            "versions": versions(),
            "commit": commit(),
            "machine": machine(evaluation.device),
        },
        "outcomes": outcomes(trials),
    }
    return result, trials
