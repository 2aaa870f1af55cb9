"""Control in Two-Room: planners, distances, λ, baselines, attempts to do better, and the floors.

Trains small models and tries them on the manifests beside this file. Every training and every
evaluation leaves a file in --runs and is skipped when that file is there, so the whole may be
interrupted at any time and cut into slices. What benchmarks/results/ already holds counts as done:

    python benchmarks/bench_control.py                    all that is left to do
    python benchmarks/bench_control.py --again            all, whatever the results hold
    python benchmarks/bench_control.py --only icem        one case, or all whose name holds a word
    python benchmarks/bench_control.py --tables           tables from what is there
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
    """Train and evaluate what is not there yet, then make the tables."""
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
    """The case's record in `runs`, made if it is not there."""
    record = runs / f"{case.name}.json"
    if record.exists():
        return
    train(case.recipe, runs, config, device)
    manifest = read_manifest(MANIFESTS / f"two-room-{case.offset}.json").take(slice(case.pairs))
    run = load(case.recipe, runs, device)
    found = evaluate(run, manifest, case.planner, title=case.name)
    result = found.model_dump(mode="json", exclude={"outcomes"})
    # One character a pair: enough for a paired test, short enough for a file of results.
    result["reached"] = "".join(str(int(flag)) for flag in found.reached)
    result["run_settings"] = run.settings
    write_atomically(record, json.dumps({"case": case.name, **result}, indent=1).encode())
    say(f"{case.name}: {result['success_rate']:.1%}")


if __name__ == "__main__":
    main()
