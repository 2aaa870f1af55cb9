"""What does each term of the loss buy? The same data, steps and planner; one term more or less.

All steps use the command line. Each step writes a file into --runs and is skipped if that file
exists, so you can interrupt the script at any time:

    python benchmarks/bench_terms.py two-room reacher push-t     hours on two cores
    python benchmarks/bench_terms.py --tables                    only the table, of finished cases

Data, model and planner are those of the shipped run of the world (pretrained.py). The steps are
fewer for Reacher and Push-T.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import harness
from bench_small_worlds import worldmodel

from pretrained import RECIPES, SHIPPED, TEST, draw_pairs, finish
from worldmodel.study import sign_test

STEPS = {"two-room": 600, "reacher": 1500, "push-t": 1500}
PLANNER = {
    "two-room": ("--planner", "icem", "--cost", "mean"),
    "push-t": ("--samples", 64, "--metric", "euclidean"),
}
BARE, BOTH = "terms.inverse=0 terms.rollout=0", "terms.inverse=0.6 terms.rollout=1"
ARMS = {
    "prediction and SIGReg (LeWM)": BARE,
    "prediction alone": f"{BARE} weight=0",
    "LeWM and inverse dynamics": "terms.inverse=0.6 terms.rollout=0",
    "LeWM and rollout": "terms.inverse=0 terms.rollout=1",
    "LeWM, inverse dynamics and rollout": BOTH,
    "LeWM and straightening": f"{BARE} terms.straight=0.1",
}
OF_PUSH_T = {
    "both terms, also windows in which nothing moves": f"{BOTH} moving=0",
    "both terms, 1,000 episodes, not 3,800": f"{BOTH} held_out=0.75",
    "both terms, predictor a quarter as wide": f"{BOTH} predictor.hidden_dim=128",
    "both terms, predictor twice as wide": f"{BOTH} predictor.hidden_dim=1024",
}
SHORT, LONG = len(ARMS), "both terms, six times the steps"
ARMS |= OF_PUSH_T | {LONG: "steps=9000"}
FIRST = next(iter(ARMS))


def main() -> int:
    """Run the unfinished steps, then make the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="*", default=list(STEPS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, default=1, help="training seeds, from 0 on")
    parser.add_argument("--arms", nargs="+", type=int, help="numbers of arms, from 0; none: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/terms"))
    parser.add_argument("--tables", action="store_true", help="only the table, of what is there")
    given = parser.parse_args()
    for world in () if given.tables else given.worlds:
        for seed in range(given.seeds):
            for n in range(len(ARMS) if world == "push-t" else SHORT):
                if n in (given.arms or range(len(ARMS))):
                    ensure(given.runs / world, world, n, seed)
    table(given.runs)
    return 0


def ensure(runs: Path, world: str, arm: int, seed: int) -> None:
    """Collect, train and evaluate; finished steps are skipped."""
    recipe, data, run = RECIPES[world], runs / "data.h5", runs / f"{arm}-{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        worldmodel("data", "collect", "--env", recipe.env, *recipe.collect.split(), "--out", data)
    words = ("--data", data, *recipe.train.split(), "--seed", seed, f"steps={STEPS[world]}")
    finish(run, *words, *list(ARMS.values())[arm].split())
    draw_pairs(recipe, runs)
    out = runs / f"{arm}-{seed}-result"
    if not (out / "result.json").exists():
        shutil.copy(SHIPPED / world / "planner.json", run)
        pairs = runs / f"{TEST}-25.json"
        flags = ("--films", 0, *PLANNER.get(world, ()))
        worldmodel("evaluate", run, "--manifest", pairs, *flags, "--out", out)


def results_of(runs: Path, world: str, arm: str) -> list[Path]:
    """Results of an arm, a seed each."""
    return sorted((runs / world).glob(f"{list(ARMS).index(arm)}-*-result/result.json"))


def table(runs: Path) -> None:
    """Success of every arm, and the paired test against LeWM; arms that are not in --runs stay."""
    path = harness.RESULTS / "terms.json"
    records: list[dict[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))["results"]
        records = [one for one in before if not results_of(runs, one["world"], one["arm"])]
    for world in STEPS:
        for name in ARMS:
            paths = results_of(runs, world, name)
            if not paths:
                continue
            found = {p.parent.name.split("-")[1]: json.loads(p.read_text("utf-8")) for p in paths}
            base = {
                seed: json.loads((p.parents[1] / f"0-{seed}-result/result.json").read_text("utf-8"))
                for seed, p in zip(found, paths, strict=True)
            }
            gain = [
                x - y for s in found for x, y in zip(ends(found[s]), ends(base[s]), strict=True)
            ]
            first = next(iter(found.values()))
            records.append({
                "world": world, "arm": name, "settings": ARMS[name],
                "steps": 9000 if name == LONG else STEPS[world],
                "seeds": len(found), "pairs": first["pairs"],
                "any": mean(one["success_rate"] for one in found.values()),
                "end": mean(one["success_rate_at_end"] for one in found.values()),
                "p": sign_test(gain), "fingerprint": first["fingerprint"],
            })  # fmt: skip
    order = list(STEPS), list(ARMS)
    records.sort(key=lambda one: (order[0].index(one["world"]), order[1].index(one["arm"])))
    harness.save(
        "terms", "What does each term of the loss buy? Goals 25 steps away", records,
        columns=("world", "loss", "steps", "seeds", "success at any step", "at the end",
                 "p at the end, against LeWM"),
        rows=[[one["world"], one["arm"], f"{one['steps']:,}", one["seeds"], f"{one['any']:.1%}",
               f"{one['end']:.1%}", "" if one["arm"] == FIRST else f"{one['p']:.2g}"]
              for one in records],
        note="Data, model, λ, sampling of windows and planner of the shipped run of the world, "
        "whose planner was chosen for its own terms (Two-Room: iCEM, no proposals; Push-T: "
        "distances of embeddings, no metric, and one training alone); 200 pairs of fresh "
        "episodes. Exact sign test on the same pairs, against the run of LeWM's terms that "
        "was made with it. The fingerprint of each record names commit and machine.",
    )  # fmt: skip


def ends(result: dict[str, Any]) -> list[float]:
    """Whether each pair was at its goal at the end."""
    return [float(one["success_at_end"]) for one in result["outcomes"]]


if __name__ == "__main__":
    raise SystemExit(main())
