"""Does a plan from the last frames reach more than a plan from one frame? The same runs and pairs.

    python benchmarks/bench_history.py             all runs of pretrained/
    python benchmarks/bench_history.py reacher     one of them; the others' rows stay

A run's planner is the one that is kept with it.
"""

from __future__ import annotations

import argparse
import json

import harness
import numpy as np

from worldmodel.apps.evaluate.manifest import read_manifest
from worldmodel.apps.evaluate.policies import attempt, policy_of
from worldmodel.apps.runs import kept_planner, open_run
from worldmodel.apps.settings import PlannerSettings
from worldmodel.study import sign_test
from worldmodel.worlds import open_world

PAIRS = 100


def main() -> None:
    """Every run with one frame, and with as many as its predictor takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = sorted(path.parent for path in (harness.ROOT / "pretrained").glob("*/config.json"))
    parser.add_argument("worlds", nargs="*", help="none: all")
    worlds = parser.parse_args().worlds
    before = json.loads((harness.RESULTS / "history.json").read_text(encoding="utf-8"))
    rows, results = list[list[harness.Cell]](), list[dict[str, object]]()
    for folder in shipped:
        name, run, kept = folder.name, open_run(folder), kept_planner(folder)
        if worlds and name not in worlds:
            rows += [row for row in before["table"]["rows"] if row[0] == name]
            mine = [record for record in before["results"] if record["world"] == name]
            results += [{"commit": before["commit"], **record} for record in mine]
            continue
        assert kept is not None
        planner = PlannerSettings(**kept.settings)
        manifest = read_manifest(harness.ROOT / "benchmarks" / "manifests" / f"{name}-25.json")
        pairs, seeds = manifest.take(slice(PAIRS)), manifest.seeds_of(0)[:PAIRS]
        world = open_world(name, image_size=run.world_model.encoder.image_size)
        counts = (1, run.world_model.predictor.history)
        found = []
        for count in counts:
            policy = policy_of(run, world, planner.model_copy(update={"history": count}))
            found.append(attempt(world, pairs, policy, budget=manifest.budget, seeds=seeds))
            print(f"{name}, {count}: {found[-1].success.mean():.0%}, {found[-1].at_end.mean():.0%}")
        for at, title in (("success", "any step"), ("at_end", "the end")):
            one, more = (getattr(outcome, at) for outcome in found)
            better, worse = int((more & ~one).sum()), int((one & ~more).sum())
            p = sign_test((more.astype(int) - one).tolist())
            rows.append([name, counts[1], title, f"{one.mean():.0%}", f"{more.mean():.0%}", better,
                         worse, f"{p:.2g}"])  # fmt: skip
        results.append({
            "world": name, "planner": planner.described(), "manifest": manifest.sha256,
            "frames": counts,
            "success": [np.flatnonzero(outcome.success).tolist() for outcome in found],
            "at_end": [np.flatnonzero(outcome.at_end).tolist() for outcome in found],
            "seconds": [round(float(np.sum(outcome.seconds)), 1) for outcome in found],
        })  # fmt: skip
    harness.save(
        "history", "Plans from one frame, and from as many as the predictor takes", results,
        columns=("run", "frames", "reached at", "from one frame", "from all", "only from all",
                 "only from one", "p"),
        rows=rows,
        note=f"The first {PAIRS} pairs of each world's manifest, goals 25 steps away, 50 steps "
        "allowed; p of the exact sign test on pairs with different outcomes. The runs of "
        "`pretrained/` and the planners kept with them at that time. Each record names its "
        "planner, and its commit if it is older.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
