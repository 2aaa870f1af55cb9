"""The shipped runs load, are small, and are those that the results file judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldmodel import WorldModel, from_pretrained
from worldmodel.apps.evaluate.policies import policy_of
from worldmodel.apps.parsing import read_record
from worldmodel.apps.runs import LEARNER, RECORDED, KeptPlanner, metric_of, open_run
from worldmodel.apps.settings import PLANNER, PlannerSettings
from worldmodel.checkpoint import digest, read_weights
from worldmodel.learning import load_learner
from worldmodel.worlds import open_world

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(path for path in (ROOT / "pretrained").iterdir() if path.is_dir())
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "pretrained.json").read_text("utf-8"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_run_is_the_one_that_was_judged(folder: Path) -> None:
    """Its weights' digest is that of results on pairs other than those that chose its planner."""
    model = from_pretrained(folder)
    assert isinstance(model, WorldModel)
    mine = [r for r in RESULTS["results"] if r["fingerprint"]["weights"] == digest(model)]
    kept = read_record(folder / PLANNER, KeptPlanner, "record of a planner")
    assert mine
    assert kept.manifest not in {result["manifest_hash"] for result in mine}
    planner = PlannerSettings(**kept.settings).described()
    # Results from before plans had a history are of one frame, and older ones have no metric.
    before = {"history": 1, "metric": "euclidean"}
    assert all(planner == before | r["fingerprint"]["planner"] for r in mine)
    run = open_run(folder)
    assert run.world == folder.name
    if planner["metric"] == "mahalanobis":
        assert metric_of(run).config["dim"] == model.encoder.dim
    if planner["name"] == "proposals":
        # The learner is of these very weights, not of those before rounding.
        learner = load_learner(folder / LEARNER, model=run.world_model)
        _, T, D = (recorded := read_weights(folder / RECORDED))["z"].shape
        assert model.encoder.dim == D
        assert recorded["actions"].shape[1:] == (T - 1, learner.actor.shape[-1])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_run_is_small_and_has_a_card(folder: Path) -> None:
    """At most 8 MiB; the card names the command that remakes it, and no path of a machine."""
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 8 << 20
    card = (folder / "README.md").read_text("utf-8")
    assert f"python benchmarks/pretrained.py {folder.name}" in card
    settings = json.loads((folder / "config.json").read_text("utf-8"))["extra"]["settings"]
    assert not any(str(value).startswith("/") for value in settings.values())
    assert "/tmp" not in card


def test_a_plan_cannot_start_from_more_frames_than_the_predictor_takes() -> None:
    """More would be dropped without a word."""
    run = open_run(ROOT / "pretrained" / "two-room")
    with pytest.raises(ValueError, match=r"history must be at most 3, .* got 4"):
        policy_of(run, open_world("two-room", image_size=64), PlannerSettings(history=4))
    policy_of(run, open_world("two-room", image_size=64), PlannerSettings(history=3))
