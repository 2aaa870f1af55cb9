"""Which far goals are reached with proposed plans, values and sub-goals?

All steps use the command line. Each step writes a file into --runs and is skipped if that file
exists, so you can interrupt the script at any time, or run several processes at once:

    python benchmarks/bench_far.py                      all worlds, arms and offsets
    python benchmarks/bench_far.py --worlds maze-7 --offsets 100 --arms cem graph
    python benchmarks/bench_far.py --tables             only the table, of finished cases

Models have the demo's size, that of Push-T the one of `pretrained/push-t`. A pair is the first and
the last state of a held-out episode, of Push-T two states in it, so no two pairs share an episode.
Seed s of a world has its data in --runs/WORLD-s.h5 and its run in --runs/WORLD-s: put finished or
shipped ones there to start from them. `maze` draws another layout for each episode, so its pairs
are in layouts that no model has seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
import td_mpc2
import torch

from pretrained import RECIPES
from worldmodel.apps.cli import main as worldmodel
from worldmodel.apps.evaluate import Result, read_result
from worldmodel.study import sign_test


class World(NamedTuple):
    """How the model of a world is made."""

    collect: str  #: for `worldmodel data collect`, of the training data
    train: str  #: for `worldmodel train`
    policy: str  #: that acts in the episodes of the pairs
    env: str | None = None  #: the world's name; None: as the recipe's
    length: int | None = None  #: of the episodes of the pairs; None: the distance
    learn: str = ""  #: more for `worldmodel train` of a learner
    search: str = ""  #: more for `worldmodel evaluate` of the base: CEM


WALKS = World(
    "--policy expert --episodes 800 --length 80 --bump 0.4",
    "--steps 600 --batch-size 64 --learning-rate 1e-3 --weight 0.05 --warmup 0.1 --num-proj 256",
    "expert",
)
PUSH_T = RECIPES["push-t"]
WORLDS = {
    # An episode's layout never changes. Prediction alone keeps it and drops where the agent is.
    "maze+inverse": WALKS._replace(train=f"{WALKS.train} terms.inverse=1", env="maze"),
    "reacher": World("--policy random --episodes 512 --length 125", "--steps 5000", "random"),
    # The pusher begins away from the block: in its first steps it pushes nothing.
    "push-t": World(
        PUSH_T.collect,
        PUSH_T.train,
        "pusher",
        length=125,
        learn="--render 64",
        search="--free --std 0.7",
    ),
}
LEARNERS = {
    "policy": ("--learner", "policy"),
    "gcivl": ("--learner", "gcivl"),
    "modes": ("--learner", "gcivl", "recipe.modes=8"),
    "gciql": ("--learner", "gciql"),
    "hiql": ("--learner", "hiql", "recipe.ahead=3"),
}
Pairs = list[tuple[Result, Result]]
SEEDS = 3
BASE, ALONE, ALWAYS = "cem", "gcivl", "1000"
OURS = ("--planner", "proposals")
REFINED = (*OURS, "--iterations", "2")


class Arm(NamedTuple):
    """One row of the table: a policy or planner.

    Attributes:
        says: what it is, in the table.
        learner: of `LEARNERS`, whose run is evaluated; none is the model's own.
        words: for `worldmodel evaluate`; none: `td_mpc2.judge`.
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
    "gcivl-searched": Arm(
        "GCIVL, then as many candidates as CEM, all the way", "gcivl",
        (*OURS, "--iterations", "6", "--samples", "64", "--check", ALWAYS, "--distance", "1"),
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
    "td-mpc2": Arm("TD-MPC2's cost and search, with GCIVL's value and policy", "gcivl", ()),
}  # fmt: skip


def main() -> int:
    """Run the unfinished steps, then make the table of the finished ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", default=["two-room", "maze-7"])
    parser.add_argument("--offsets", nargs="+", type=int, default=[25, 50, 100])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
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
    recipe = WORLDS.get(world, WALKS)
    env = recipe.env or world
    collect = ("data", "collect", "--env", env)
    if not data.exists():
        say(*collect, *recipe.collect.split(), "--seed", seed, "--out", data)
    shipped = (model / "config.json").exists() and not (model / "train.json").exists()
    if not (shipped or (model / "report.json").exists()):
        say("train", "--data", data, "--out", model, "--seed", seed, *recipe.train.split())
    if arm.learner and not (whose / "report.json").exists():
        begin = ("train", "--objective", "proposals", "--init-from", model, "--data", data)
        say(*begin, "--out", whose, *LEARNERS[arm.learner], *recipe.learn.split())
    if not task.exists():
        # Each episode gives one pair. Some are solved at the start.
        length = recipe.length or offset
        many = ("--episodes", pairs + pairs // 2, "--length", length, "--seed", 2000 + seed)
        say(*collect, "--policy", recipe.policy, *many, "--out", ends)
        of = ("manifest", "--env", env, "--data", ends, "--pairs", pairs, "--seed", seed)
        say(*of, "--offset", offset, "--budget", 2 * offset, "--out", task)
    if not arm.words and not (out / "result.json").exists():
        td_mpc2.judge(whose, data, task, out)
    elif arm.words and not (out / "index.html").exists():
        words = (*arm.words, *(recipe.search.split() if name == BASE else ()))
        say("evaluate", whose, *words, "--manifest", task, "--films", 0, "--out", out)


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
    """Success at the end over all seeds, compared with the base on the same pairs, and its cost.

    What another machine or an earlier call measured stays, unless --runs holds as many seeds.
    """
    path = harness.RESULTS / "far.json"
    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    results = merged(before, measured(given))
    offsets = sorted({one["offset"] for one in results})
    harness.save(
        "far",
        "Far goals: success at the end of a budget of twice the distance",
        results,
        columns=("world", "way", *(f"{o} steps away" for o in offsets), "rollouts", "ms",
                 "points over CEM, beyond 25 steps", "points over alone", "machine"),
        rows=[row(list(cells), offsets) for _, cells in groupby(results, key=block)],
        note="50 held-out pairs (Push-T: 100) an offset and seed, one of each episode; "
        f"{SEEDS} seeds of data, model and learner unless a cell says fewer; the models of Push-T "
        "and of the last seed of Reacher were shipped before (one training, no inverse dynamics); "
        "in brackets the exact sign test "
        f"against {ARMS[BASE].says} on the same pairs and machine, in the column after the cells "
        "over 50 and 100 steps together; points over the learner alone are over all distances. "
        "Rollouts: plans of 5 blocks (TD-MPC2: 3) imagined per decision at most, a decision every "
        "5 steps. "
        "Milliseconds of a decision and pair on a busy machine, the pairs of a seed side by side, "
        "one thread. The last column names the instructions of the machine that trained and "
        "evaluated; each record of the file names machine and commit.",
    )  # fmt: skip


def merged(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All records in order; of the same cell and machine the later, if it has as many seeds."""
    best = dict[tuple[str, ...], dict[str, Any]]()
    for one in [*before, *now]:
        key = (*block(one), str(one["offset"]))
        if key not in best or one["seeds"] >= best[key]["seeds"]:
            best[key] = one
    worlds, arms = list(dict.fromkeys(one["world"] for one in best.values())), list(ARMS)
    return sorted(best.values(), key=lambda one: (
        worlds.index(one["world"]), one["machine"], arms.index(one["arm"]), one["offset"]
    ))  # fmt: skip


def measured(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for every world, arm and offset of which --runs holds results."""
    records = list[dict[str, Any]]()
    for world in given.worlds:
        for name, arm in ARMS.items():
            mine, far, alone = list[dict[str, Any]](), Pairs(), Pairs()
            for offset in given.offsets:
                pairs, also = (paired(given, world, offset, name, base) for base in (BASE, ALONE))
                alone += also
                far += pairs if offset > min(given.offsets) else []
                if pairs:
                    mine.append({"world": world, "arm": name, "offset": offset, **compared(pairs)})
            if alone and arm.learner == ARMS[ALONE].learner and name != ALONE:
                both = compared(alone)
                gain = {"points": 100 * (both["end"] - both["base"]), "points_p": both["p"]}
                mine = [one | gain for one in mine]
            if far and name != BASE:
                both = compared(far)
                gain = {"far_points": 100 * (both["end"] - both["base"]), "far_p": both["p"]}
                mine = [one | gain for one in mine]
            records += mine
    return records


def block(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row of the table has in common."""
    return record["world"], record["machine"], record["arm"]


def row(records: Sequence[Mapping[str, Any]], offsets: Sequence[int]) -> list[harness.Cell]:
    """The cells of an arm in a world on a machine."""
    last = records[-1]
    cells: list[harness.Cell] = [last["world"], ARMS[last["arm"]].says]
    for offset in offsets:
        found = next((one for one in records if one["offset"] == offset), None)
        told = [] if not found or found["arm"] == BASE else [f"p = {found['p']:.2g}"]
        if found and found["seeds"] < SEEDS:
            told.append(f"{found['seeds']} of {SEEDS} seeds")
        shown = f"{found['end']:.0%}" + (f" ({', '.join(told)})" if told else "") if found else "–"
        cells.append(shown)
    gains = [
        f"{last[points]:+.1f} (p = {last[p]:.2g})" if p in last else ""
        for points, p in (("far_points", "far_p"), ("points", "points_p"))
    ]
    ms = float(f"{np.median([one['ms'] for one in records]):.2g}")
    return [*cells, last["rollouts"], f"{ms:g}", *gains, last["machine"].split()[1].rstrip(",")]


def paired(given: argparse.Namespace, world: str, offset: int, name: str, base: str) -> Pairs:
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


def compared(pairs: Pairs) -> dict[str, Any]:
    """Rates at the end over all seeds, the paired test against the base, and the median time."""
    own, base = (
        np.array([one.success_at_end for both in pairs for one in both[side].outcomes], float)
        for side in (0, 1)
    )
    mine = [result for result, _ in pairs]
    marks = [result.fingerprint for both in pairs for result in both]
    if len(machines := {mark.machine for mark in marks}) > 1:
        raise SystemExit(f"--runs must hold results of one machine, got {sorted(machines)}")
    return {
        "seeds": len(pairs), "end": float(own.mean()), "base": float(base.mean()),
        "any": float(np.mean([result.success_rate for result in mine])),
        "p": sign_test((own - base).tolist()),
        "rollouts": mine[0].fingerprint.rollouts_per_decision,
        "ms": 1e3 * float(np.median([r.planning_seconds.median_per_pair for r in mine])),
        "machine": machines.pop(), "commits": sorted({str(mark.commit)[:12] for mark in marks}),
        "manifests": [result.manifest_hash for result in mine],
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
