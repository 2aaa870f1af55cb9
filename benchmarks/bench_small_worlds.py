"""What success do small models reach in the published worlds, after some minutes on a CPU?

All steps use the command line. Each step writes a file into --runs and is skipped if that file
exists, so you can interrupt the script at any time:

    python benchmarks/bench_small_worlds.py                    all worlds whose package is installed
    python benchmarks/bench_small_worlds.py --world push-t     one of them; the others' rows stay
    python benchmarks/bench_small_worlds.py --only "push-t 1,000"      rows whose title holds this

Needs `pip install 'sigreg[worldmodel,data,envs]'`. The published sizes: gpu_<world>.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness

MANIFESTS = Path(__file__).resolve().parent / "manifests"
COLUMNS = (
    "world, optimizer steps, episodes", "planner", "success", "95 % interval", "at the end",
    "random", "no-op", "scripted",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Training episodes.

    Attributes:
        world: its name.
        needs: module of its package.
        policy: that collects them.
        episodes: how many.
        length: actions in each.
    """

    world: str
    needs: str
    policy: str
    episodes: int
    length: int


@dataclass(frozen=True)
class Case:
    """One row: a model of the small preset at 64 pixels, tried on the world's manifest.

    Attributes:
        data: training episodes.
        steps: optimizer steps.
        planner: its options, as the command line takes them; none for "gcbc".
        objective: what is trained.
    """

    data: Data
    steps: int
    planner: tuple[str, ...] = ("--planner", "cem")
    objective: str = "lewm"

    @property
    def title(self) -> str:
        """Head of the row, with the planner the name of the case."""
        data = self.data
        return f"{data.world} {self.steps:,} steps, {data.episodes} episodes of {data.policy}"

    @property
    def run(self) -> str:
        """Of the folder of its model."""
        other = "" if self.objective == "lewm" else f"-{self.objective}"
        return f"{self.data.world}-{self.steps}{other}"

    @property
    def name(self) -> str:
        """Of the folder of its result."""
        return f"{self.run}{''.join(self.planner).replace('--', '-') or '-result'}"


PUSH_T = Data("push-t", "gym_pusht", "pusher", episodes=512, length=125)
REACHER = Data("reacher", "dm_control", "random", episodes=512, length=125)
CUBE = Data("cube", "ogbench", "picker", episodes=96, length=200)
CASES = (
    Case(PUSH_T, 1000),
    Case(PUSH_T, 5000),
    Case(PUSH_T, 5000, ("--planner", "icem")),
    Case(PUSH_T, 5000, (), "gcbc"),
    Case(REACHER, 1000),
    Case(REACHER, 5000),
    Case(REACHER, 5000, ("--planner", "icem")),
    Case(REACHER, 5000, (), "gcbc"),
    Case(CUBE, 2000),
)


def main() -> int:
    """Run the unfinished steps, then make the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=sorted({case.data.world for case in CASES}))
    parser.add_argument("--only", default="", help="part of a row's title")
    parser.add_argument("--runs", type=Path, default=Path("runs/small-worlds"))
    parser.add_argument("--tables", action="store_true", help="only the table, from what is there")
    arguments = parser.parse_args()
    for case in () if arguments.tables else CASES:
        if arguments.world not in (None, case.data.world) or arguments.only not in case.title:
            continue
        if importlib.util.find_spec(case.data.needs) is None:
            world = case.data.world
            print(f"{world}: not run, needs pip install 'sigreg[worldmodel,data,{world}]'")
            continue
        ensure(case, arguments.runs)
        table(arguments.runs)
    if arguments.tables:
        table(arguments.runs)
    return 0


def ensure(case: Case, runs: Path) -> None:
    """Collect, train and evaluate; finished steps are skipped."""
    data, result = case.data, runs / case.name / "result.json"
    if result.exists():
        return
    runs.mkdir(parents=True, exist_ok=True)
    episodes, run = runs / f"{data.world}.h5", runs / case.run
    if not (run / "report.json").exists():
        worldmodel("data", "collect", "--env", data.world, "--policy", data.policy,
                   "--episodes", data.episodes, "--length", data.length, "--size", 64,
                   "--seed", 0, "--out", episodes, "--resume")  # fmt: skip
        new = ("--data", episodes, "--world", data.world, "--steps", case.steps,
               "--objective", case.objective)  # fmt: skip
        begun = (run / "train.json").exists()
        worldmodel("train", "--out", run, *(("--resume",) if begun else new))
    manifest = MANIFESTS / f"{data.world}-25.json"
    worldmodel("evaluate", run, "--manifest", manifest, *case.planner, "--films", 0,
               "--out", result.parent)  # fmt: skip


def worldmodel(*words: object) -> None:
    """The command line, in a process of its own."""
    source = os.pathsep.join([str(harness.ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "worldmodel", *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": source})


def table(runs: Path) -> None:
    """One line per case; cases not run here keep their earlier lines."""
    path = harness.RESULTS / "small_worlds.json"
    known = json.loads(path.read_text())["results"] if path.exists() else []
    records = {record["case"]: record for record in known}
    for case in CASES:
        result = runs / case.name / "result.json"
        if result.exists():
            records[case.name] = read(case, result, runs)
    harness.save(
        "small_worlds", "The published worlds at small scale, on a CPU: goals 25 steps away",
        [records[case.name] for case in CASES if case.name in records],
        columns=COLUMNS,
        rows=[row(case, records.get(case.name)) for case in CASES],
        note=(
            "The small preset at 64 pixels with its usual settings, none searched for; pairs of "
            "benchmarks/manifests/, from episodes that nobody trains on, solved ones left out; "
            "success at any of 50 steps; one training seed. The fingerprint of each record names "
            "the commit that measured it."
        ),
    )  # fmt: skip


def read(case: Case, result: Path, runs: Path) -> dict[str, Any]:
    """A result without its outcomes, with the settings of the training."""
    record = {key: value for key, value in json.loads(result.read_text(encoding="utf-8")).items()
              if key != "outcomes"}  # fmt: skip
    record["fingerprint"]["run"] = case.run
    training = json.loads((runs / case.run / "report.json").read_text())
    return {"case": case.name, "training": training, **record}


def row(case: Case, record: dict[str, Any] | None) -> list[harness.Cell]:
    """A line of the table."""
    planner = " ".join(case.planner).removeprefix("--planner ") or f"{case.objective}, none"
    if record is None:
        return [case.title, planner, "not run", "", "", "", "", ""]
    low, high = record["success_interval"]
    others = [record.get(f"{name}_success_rate") for name in ("random", "noop", "expert")]
    return [
        case.title,
        planner,
        f"{record['success_rate']:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{record['success_rate_at_end']:.1%}",
        *("" if rate is None else f"{rate:.1%}" for rate in others),
    ]


if __name__ == "__main__":
    sys.exit(main())
