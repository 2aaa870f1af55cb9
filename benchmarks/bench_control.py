"""Control in Two-Room: planners, distances, λ, baselines and other settings of the demo's model.

The script trains small models and evaluates them on the manifests beside this file. Each training
and evaluation writes a file into --runs and is skipped if that file exists, so you can interrupt
the script at any time. Cases in benchmarks/results/ count as finished:

    python benchmarks/bench_control.py                    all unfinished cases
    python benchmarks/bench_control.py --again            all cases again
    python benchmarks/bench_control.py --only icem        one case, or all whose name holds a word
    python benchmarks/bench_control.py --tables           tables of the finished cases
    python benchmarks/bench_control.py --only "LeWM, 224 px" --device cuda      the published size
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from control_cases import FULL, Case, chosen
from control_models import load, train
from control_tables import known, tables

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate import evaluate, read_manifest
from worldmodel.apps.progress import say
from worldmodel.apps.settings import DemoSettings

MANIFESTS = Path(__file__).resolve().parent / "manifests"


def main() -> None:
    """Train and evaluate the unfinished cases, then make the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/control"))
    parser.add_argument("--only", default="", help="a case's name, or a word of some")
    parser.add_argument("--steps", type=int, default=None, help="of each training, at most")
    # Rounding depends on the number of threads; the fingerprint of each record names it.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--again", action="store_true", help="also what the results hold")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    done = {} if arguments.again else known()
    for case in () if arguments.tables else chosen(arguments.only):
        if case.name in done:
            mark = done[case.name]["fingerprint"]["commit"]
            say(f"{case.name}: measured at {mark[:12]}; --again measures it anew")
            continue
        if case.name == FULL and not arguments.device.startswith("cuda"):
            say(f"{case.name}: needs --device cuda, not run")
            continue
        # The published size is trained as long as published, the others as long as the demo.
        usual = 10**9 if case.name == FULL else DemoSettings().steps
        config = DemoSettings(steps=arguments.steps or usual)
        ensure(case, arguments.runs, config, arguments.device)
    tables(arguments.runs)


def ensure(case: Case, runs: Path, config: DemoSettings, device: str = "cpu") -> None:
    """The case's record in `runs`; a missing one is made."""
    record = runs / f"{case.name}.json"
    if record.exists():
        return
    train(case.recipe, runs, config, device)
    manifest = read_manifest(MANIFESTS / f"two-room-{case.offset}.json").take(slice(case.pairs))
    run = load(case.recipe, runs, device)
    found = evaluate(run, manifest, case.planner, title=case.name)
    result = found.model_dump(mode="json", exclude={"outcomes"})
    # One character per pair keeps the result file short, and is enough for a paired test.
    result["reached"] = "".join(str(int(flag)) for flag in found.reached)
    result["run_settings"] = run.settings
    write_atomically(record, json.dumps({"case": case.name, **result}, indent=1).encode())
    say(f"{case.name}: {result['success_rate']:.1%}")


if __name__ == "__main__":
    main()
