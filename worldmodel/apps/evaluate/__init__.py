"""Evaluation of policies: pairs, manifests, attempts, results and their comparison."""

from worldmodel.apps.evaluate.manifest import make_manifest, make_pairs, read_manifest
from worldmodel.apps.evaluate.policies import RandomPolicy, attempt
from worldmodel.apps.evaluate.result import Result, read_result
from worldmodel.apps.evaluate.trial import evaluate

__all__ = ["RandomPolicy", "Result", "attempt", "evaluate", "make_manifest", "make_pairs",
           "read_manifest", "read_result"]  # fmt: skip
