"""Control, measured: pairs, policies, attempts, manifests, results and their comparison."""

from worldmodel.apps.evaluate.manifest import (
    Manifest,
    Pairs,
    make_manifest,
    make_pairs,
    read_manifest,
    write_manifest,
)
from worldmodel.apps.evaluate.policies import (
    Actor,
    ExpertPolicy,
    GCBCPolicy,
    IdlePolicy,
    Outcome,
    PlannerPolicy,
    Policy,
    RandomPolicy,
    Scene,
    Task,
    attempt,
)
from worldmodel.apps.evaluate.result import Result, compare, read_result, write_result
from worldmodel.apps.evaluate.trial import evaluate

__all__ = [
    "Actor", "ExpertPolicy", "GCBCPolicy", "IdlePolicy", "Manifest", "Outcome",
    "Pairs", "PlannerPolicy", "Policy", "RandomPolicy", "Result", "Scene", "Task", "attempt",
    "compare", "evaluate", "make_manifest", "make_pairs", "read_manifest", "read_result",
    "write_manifest", "write_result",
]  # fmt: skip
