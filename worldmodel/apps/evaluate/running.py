"""A run tried on a manifest: what must fit before, and everything that is written down after."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from worldmodel.apps.evaluate.cloning import GCBCPolicy
from worldmodel.apps.evaluate.manifest import PUBLISHED_PAIRS, Manifest, ProtocolName
from worldmodel.apps.evaluate.planning import Planner, PlannerPolicy
from worldmodel.apps.evaluate.policies import Policy
from worldmodel.apps.evaluate.results import Report, Trials, floors, outcomes, summary, try_policy
from worldmodel.apps.provenance import commit, machine, versions
from worldmodel.apps.runs import Run
from worldmodel.checkpoint import digest
from worldmodel.data import ActionScale
from worldmodel.gcbc import GCBC
from worldmodel.worlds import World, open_world

__all__ = ["Evaluation", "Subject", "evaluate", "measure", "policy_of", "search_of", "world_for"]


@dataclass(frozen=True)
class Evaluation:
    """How a run is tried.

    Attributes:
        planner: Planner; a policy that was cloned needs none.
        protocol: "held-out", or "historical" for pairs of training rows, the first 50 of them.
        batch_size: pairs side by side.
        repeats: how often every pair is tried, each time with other seeds.
        device: where the model lives.
    """

    planner: Planner = field(default_factory=Planner)
    protocol: ProtocolName = "held-out"
    batch_size: int = 64
    repeats: int = 1
    device: str = "cpu"


class Subject(NamedTuple):
    """Who is tried: what must fit a manifest, and what a result says about it.

    Attributes:
        name: of its folder.
        objective: what it was trained for.
        world: it was trained on, or None if nobody knows.
        trained_on: digests of the training episodes.
        image_size: side of the frames it sees.
        frameskip: raw actions per block.
        action_dim: of a block.
        scale: of the training actions.
        weights: digest of its model.
    """

    name: str
    objective: str
    world: str | None
    trained_on: frozenset[str]
    image_size: int
    frameskip: int
    action_dim: int
    scale: ActionScale
    weights: str

    @classmethod
    def of(cls, run: Run) -> Subject:
        """The model of a run folder."""
        model = run.model
        taker = model if isinstance(model, GCBC) else model.action_encoder
        return cls(
            name=str(run.folder),
            objective=run.objective,
            world=run.world,
            trained_on=run.trained_on,
            image_size=model.encoder.image_size,
            frameskip=run.frameskip,
            action_dim=taker.action_dim,
            scale=run.scale,
            weights=digest(model),
        )


def world_for(subject: Subject, manifest: Manifest, protocol: ProtocolName) -> World:
    """The manifest's world at the size the subject's model sees, if the two go together.

    Args:
        subject: Subject.
        manifest: Manifest.
        protocol: "historical" allows training episodes and solved pairs.
    Returns: World.
    Raises: ValueError if the run is of another world or action width, if it was trained on an
        episode that the manifest draws from, or if pairs were drawn historically without being
        asked for; ImportError if the world's package is missing.
    """
    if subject.world is not None and subject.world != manifest.env:
        raise ValueError(
            f"the run was trained on {subject.world}, the manifest is of {manifest.env}"
        )
    if protocol == "held-out":
        if manifest.protocol == "historical":
            raise ValueError(
                "the manifest was drawn by the historical protocol, solved pairs and all; "
                "add --protocol historical to evaluate on it"
            )
        seen = len(subject.trained_on & set(manifest.digests))
        if seen:
            raise ValueError(
                f"the run was trained on {seen} of the {len(manifest.digests)} episodes that the "
                "manifest draws from; make one of held-out episodes (manifest --unseen-by RUN), or "
                "add --protocol historical"
            )
    world = open_world(manifest.env, image_size=subject.image_size)
    width = world.action_dim * subject.frameskip
    if subject.action_dim != width or len(subject.scale.mean) != world.action_dim:
        raise ValueError(
            f"the run's model must take {world.action_dim} × {subject.frameskip} action dims of "
            f"{manifest.env}, it takes {subject.action_dim}"
        )
    return world


def policy_of(run: Run, evaluation: Evaluation) -> PlannerPolicy | GCBCPolicy:
    """The run's model behind the planner asked for, or the policy that it is."""
    if isinstance(run.model, GCBC):
        return GCBCPolicy(
            run.model,
            run.scale,
            frameskip=run.frameskip,
            device=evaluation.device,
            together=evaluation.planner.together,
        )
    return PlannerPolicy(
        run.model,
        run.scale,
        frameskip=run.frameskip,
        planner=evaluation.planner,
        device=evaluation.device,
    )


def historical(manifest: Manifest) -> Manifest:
    """Its first 50 pairs, as many as published tables count."""
    some = slice(PUBLISHED_PAIRS)
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
        policy: who acts; None is `policy_of` the run.
        on_pairs: called with n after n more pairs.
    Returns: the result, in JSON's own types, and the trials behind it.
    Raises: as `world_for`.
    """
    policy = policy or policy_of(run, evaluation)
    return measure(Subject.of(run), policy, manifest, evaluation, on_pairs=on_pairs)


def measure(
    subject: Subject,
    policy: Policy,
    manifest: Manifest,
    evaluation: Evaluation,
    *,
    on_pairs: Report = lambda _: None,
) -> tuple[dict[str, Any], Trials]:
    """Try any policy on a manifest, with everything a result says.

    Args:
        subject: what the policy was made from; it must fit the manifest.
        policy: who acts.
        manifest: Manifest.
        evaluation: Evaluation; a planner's settings are those of `policy`, if it has one.
        on_pairs: called with n after n more pairs.
    Returns: as `evaluate`.
    Raises: as `world_for`.
    """
    world = world_for(subject, manifest, evaluation.protocol)
    num = len(manifest.seeds)
    if evaluation.protocol == "historical":
        manifest = historical(manifest)
    trials = try_policy(
        world,
        manifest,
        policy,
        repeats=evaluation.repeats,
        batch_size=evaluation.batch_size,
        on_pairs=on_pairs,
    )
    result = {
        "env": manifest.env,
        "protocol": evaluation.protocol,
        "manifest_protocol": manifest.protocol,
        "manifest_pairs": num,
        "criterion": manifest.criterion,
        "offset": manifest.offset,
        "budget": manifest.budget,
        "pairs_dropped_as_solved": manifest.pairs.dropped,
        **summary(trials),
        **floors(world, manifest, repeats=evaluation.repeats, batch_size=evaluation.batch_size),
        "manifest_hash": manifest.hash,
        "fingerprint": {
            "run": subject.name,
            "objective": subject.objective,
            "weights": subject.weights,
            **search_of(policy),
            "batch_size": evaluation.batch_size,
            "frameskip": subject.frameskip,
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


def search_of(policy: Policy) -> dict[str, Any]:
    """What a policy spends on a decision: its planner's settings, or its name alone."""
    if not isinstance(policy, PlannerPolicy):
        return {"planner": type(policy).__name__, "rollouts_per_decision": None}
    samples, iterations = policy.planner.budget
    settings = asdict(policy.planner) | {"samples": samples, "iterations": iterations}
    return {"planner": settings, "rollouts_per_decision": samples * iterations}
