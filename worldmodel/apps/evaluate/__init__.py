"""Control, measured: pairs, policies, attempts, manifests, results and their comparison."""

from worldmodel.apps.evaluate.attempt import Outcome, attempt
from worldmodel.apps.evaluate.cloning import GCBCPolicy
from worldmodel.apps.evaluate.pairs import Pairs, make_pairs
from worldmodel.apps.evaluate.planning import PLANNERS, Imagined, Planner, PlannerPolicy
from worldmodel.apps.evaluate.policies import (
    Actor,
    ExpertPolicy,
    IdlePolicy,
    Policy,
    RandomPolicy,
    Scene,
    Task,
)

__all__ = [
    "PLANNERS",
    "Actor",
    "ExpertPolicy",
    "GCBCPolicy",
    "IdlePolicy",
    "Imagined",
    "Outcome",
    "Pairs",
    "Planner",
    "PlannerPolicy",
    "Policy",
    "RandomPolicy",
    "Scene",
    "Task",
    "attempt",
    "make_pairs",
]
