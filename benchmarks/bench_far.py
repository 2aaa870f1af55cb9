"""Which far goals are reached with proposed plans, values and sub-goals?

All steps use the command line. Each step writes a file into --runs and is skipped if that file
exists, so you can interrupt the script at any time, or run several processes at once:

    python benchmarks/bench_far.py                      all worlds, arms and offsets
    python benchmarks/bench_far.py --worlds maze-7 --offsets 100 --arms cem graph
    python benchmarks/bench_far.py --tables             only the table, of finished cases

Models have the demo's size and 800 training episodes. A pair is the first and the last state of a
held-out episode, so no two pairs share an episode.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import harness
import numpy as np
import torch

from worldmodel.apps.cli import main as worldmodel
from worldmodel.apps.evaluate import Result, read_result
from worldmodel.study import sign_test

RECIPE = (
    "--steps", "600", "--batch-size", "64", "--learning-rate", "1e-3", "--weight", "0.05",
    "--warmup", "0.1", "--num-proj", "256",
)  # fmt: skip
LEARNERS = {
    "policy": ("--learner", "policy"),
    "gcivl": ("--learner", "gcivl"),
    "modes": ("--learner", "gcivl", "recipe.modes=8"),
    "gciql": ("--learner", "gciql"),
    "hiql": ("--learner", "hiql", "recipe.ahead=3"),
}
BASE, ALONE, ALWAYS = "cem", "gcivl", "1000"
OURS = ("--planner", "proposals")
REFINED = (*OURS, "--iterations", "2")


class Arm(NamedTuple):
    """One row of the table: a policy or planner.

    Attributes:
        says: what it is, in the table.
        learner: of `LEARNERS`, whose run is evaluated; none is the model's own.
        words: for `worldmodel evaluate`.
    """

    says: str
    learner: str
    words: tuple[str, ...]


ARMS = {
    BASE: Arm("CEM on the image cost", "", ("--planner", "cem")),
    "icem": Arm("iCEM on the image cost", "", ("--planner", "icem")),
    "policy": Arm("inverse dynamics, alone", "policy", (*OURS, "--check", "0")),
    "policy-checked": Arm("inverse dynamics, checked and refined", "policy", REFINED),
    "gcivl": Arm("GCIVL, alone", "gcivl", (*OURS, "--check", "0")),
    "gcivl-picked": Arm("GCIVL, picked near the goal", "gcivl", OURS),
    "gcivl-checked": Arm(
        "GCIVL, checked and refined near the goal", "gcivl", REFINED
    ),
    "gcivl-always": Arm(
        "GCIVL, checked and refined all the way", "gcivl",
        (*REFINED, "--check", ALWAYS, "--distance", "1"),
    ),
    "modes-checked": Arm("GCIVL of 8 modes, checked and refined near the goal", "modes", REFINED),
    "modes-always": Arm(
        "GCIVL of 8 modes, checked and refined all the way", "modes",
        (*REFINED, "--check", ALWAYS, "--distance", "1"),
    ),
    "graph": Arm(
        "GCIVL to sub-goals of the graph, checked near the goal", "gcivl",
        (*REFINED, "--subgoals", "graph"),
    ),
    "recorded": Arm(
        "recorded segments, checked and refined all the way", "gcivl",
        (*REFINED, "--sources", "recorded", "--check", ALWAYS, "--distance", "1"),
    ),
    "hiql": Arm("HIQL, checked and refined near the goal", "hiql", REFINED),
    "hiql-subgoals": Arm(
        "HIQL to its sub-goals, checked near the goal", "hiql", (*REFINED, "--subgoals", "hiql")
    ),
    "gciql": Arm("GCIQL, checked and refined near the goal", "gciql", REFINED),
}  # fmt: skip


def main() -> int:
    """Run the unfinished steps, then make the table of the finished ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", default=["two-room", "maze-7"])
    parser.add_argument("--offsets", nargs="+", type=int, default=[25, 50, 100])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/far"))
    parser.add_argument("--tables", action="store_true", help="only the table, of what is there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.tables:
        given.runs.mkdir(parents=True, exist_ok=True)
        for name in given.arms:
            for seed in given.seeds:
                for world in given.worlds:
                    for offset in given.offsets:
                        ensure(given.runs, world, seed, offset, name, given.pairs)
    tables(given)
    return 0


def ensure(runs: Path, world: str, seed: int, offset: int, name: str, pairs: int) -> None:
    """Collect, train, learn and evaluate; finished steps are skipped."""
    arm, model, data = ARMS[name], runs / f"{world}-{seed}", runs / f"{world}-{seed}.h5"
    whose = runs / f"{world}-{seed}-{arm.learner}" if arm.learner else model
    ends, task = (runs / f"{world}-{offset}-{seed}-pairs.{kind}" for kind in ("h5", "json"))
    out = result_of(runs, world, seed, offset, name)
    collect = ("data", "collect", "--env", world, "--policy", "expert")
    if not data.exists():
        say(
            *collect,
            "--episodes",
            800,
            "--length",
            80,
            "--bump",
            0.4,
            "--seed",
            seed,
            "--out",
            data,
        )
    if not (model / "report.json").exists():
        say("train", "--data", data, "--out", model, "--seed", seed, *RECIPE)
    if not (whose / "report.json").exists():
        begin = ("train", "--objective", "proposals", "--init-from", model, "--data", data)
        say(*begin, "--out", whose, *LEARNERS[arm.learner])
    if not task.exists():
        # Episodes have `offset` steps, so each gives one pair. Some are solved at the start.
        many = ("--episodes", pairs + pairs // 2, "--length", offset, "--seed", 2000 + seed)
        say(*collect, *many, "--out", ends)
        of = ("manifest", "--env", world, "--data", ends, "--pairs", pairs, "--seed", seed)
        say(*of, "--offset", offset, "--budget", 2 * offset, "--out", task)
    if not (out / "index.html").exists():
        say("evaluate", whose, *arm.words, "--manifest", task, "--films", 0, "--out", out)


def say(*words: object) -> None:
    """Run a command in this process; an error ends the benchmark."""
    given = [str(word) for word in words]
    print("worldmodel", *given, flush=True)
    if worldmodel(given):
        raise SystemExit(f"worldmodel {' '.join(given)} failed")


def result_of(runs: Path, world: str, seed: int, offset: int, name: str) -> Path:
    """The folder of a result."""
    return runs / "results" / f"{world}-{offset}-{seed}-{name}"


def tables(given: argparse.Namespace) -> None:
    """Success at the end over all seeds, compared with the base on the same pairs, and its cost."""
    rows: list[list[harness.Cell]] = []
    results: list[dict[str, object]] = []
    for world in given.worlds:
        for name, arm in ARMS.items():
            cells: list[harness.Cell] = [world, arm.says]
            kept, alone = [], list[tuple[Result, Result]]()
            for offset in given.offsets:
                pairs, also = (paired(given, world, offset, name, base) for base in (BASE, ALONE))
                alone += also
                if not pairs:
                    cells.append("–")
                    continue
                found = compared(pairs)
                kept.append(found)
                results.append({"world": world, "arm": name, "offset": offset, **found})
                told = [] if name == BASE else [f"p = {found['p']:.2g}"]
                if len(pairs) < len(given.seeds):
                    told.append(f"{len(pairs)} of {len(given.seeds)} seeds")
                cells.append(f"{found['end']:.0%}" + (f" ({', '.join(told)})" if told else ""))
            if kept:
                cells.append(kept[-1]["rollouts"])
                cells.append(f"{np.median([one['ms'] for one in kept]):.2g}")
                ours = alone and arm.learner == ARMS[ALONE].learner and name != ALONE
                both = compared(alone) if ours else None
                gain = both and f"{100 * (both['end'] - both['base']):+.1f} (p = {both['p']:.2g})"
                cells.append(gain or "")
                rows.append(cells)
    harness.save(
        "far",
        "Far goals: success at the end of a budget of twice the distance",
        results,
        columns=("world", "way", *(f"{o} steps away" for o in given.offsets), "rollouts", "ms",
                 "points over alone"),
        rows=rows,
        note=f"{given.pairs} held-out pairs an offset and seed, one of each episode; seeds "
        f"{given.seeds} of data, model and learner; in brackets the exact sign test against "
        f"{ARMS[BASE].says} on the same pairs; in the last column points over the same learner "
        "alone, and that test, over all distances. Rollouts: plans of 5 blocks imagined per "
        "decision at most, a decision every 5 steps. Milliseconds of a decision and pair on a "
        "busy machine, the pairs of a seed side by side, one thread.",
    )  # fmt: skip


def paired(
    given: argparse.Namespace, world: str, offset: int, name: str, base: str
) -> list[tuple[Result, Result]]:
    """Results of an arm beside those of another, of the seeds that have both."""
    both = [
        [result_of(given.runs, world, seed, offset, arm) / "result.json" for arm in (name, base)]
        for seed in given.seeds
    ]
    return [
        (read_result(mine), read_result(other))
        for mine, other in both
        if mine.exists() and other.exists()
    ]


def compared(pairs: Sequence[tuple[Result, Result]]) -> dict[str, float]:
    """Rates at the end over all seeds, the paired test against the base, and the median time."""
    own, base = (
        np.array([one.success_at_end for both in pairs for one in both[side].outcomes], float)
        for side in (0, 1)
    )
    mine = [result for result, _ in pairs]
    rollouts = mine[0].fingerprint.rollouts_per_decision
    assert rollouts is not None
    return {
        "seeds": len(pairs), "end": float(own.mean()), "base": float(base.mean()),
        "any": float(np.mean([result.success_rate for result in mine])),
        "p": sign_test((own - base).tolist()), "rollouts": rollouts,
        "ms": 1e3 * float(np.median([r.planning_seconds.median_per_pair for r in mine])),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
