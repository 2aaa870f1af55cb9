"""Control in Two-Room: planners at equal rollouts, goals further away, λ, and what a score means.

Trains small models and tries them on the manifests beside this file. Every training and every
evaluation leaves a file in --runs and is skipped when that file is there, so the whole may be
interrupted at any time and cut into slices:

    python benchmarks/bench_control.py                    all that is left to do
    python benchmarks/bench_control.py --only cem         cases whose name holds a word
    python benchmarks/bench_control.py --tables           tables from what is there
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from worldmodel._files import write_atomically
from worldmodel.apps.charts import Series, line_chart, save_picture
from worldmodel.apps.demo.material import DemoConfig, gather, new_training
from worldmodel.apps.evaluate import Planner, sign_test
from worldmodel.apps.evaluate.manifest import read_manifest
from worldmodel.apps.evaluate.running import Evaluation, evaluate
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.runs import open_run, save_run
from worldmodel.data import action_digest, episode_digests

MANIFESTS = Path(__file__).resolve().parent / "manifests"
FROZEN = "frozen random encoder"


@dataclass(frozen=True)
class Case:
    """One evaluation: a model, a manifest and a planner."""

    name: str
    weight: float | None = 0.05  # None: an encoder left as it was initialised
    offset: int = 25
    planner: Planner = field(default_factory=Planner)
    pairs: int = 200  # the first of the manifest; fewer where a case takes long

    @property
    def run(self) -> str:
        """Folder of its model."""
        return "frozen" if self.weight is None else f"weight-{self.weight:g}"


CASES = (
    Case("cem"),
    Case("cem, 50 steps", offset=50),
    Case("icem", planner=Planner("icem")),
    Case("mppi", planner=Planner("mppi")),
    Case("gradient", planner=Planner("gradient"), pairs=100),
    Case(FROZEN, weight=None),
    Case("λ = 0.01", weight=0.01),
    Case("λ = 0.2", weight=0.2),
    Case("λ = 0", weight=0.0),
    Case("predictive-sampling", planner=Planner("predictive-sampling")),
    Case("cem, cost at the last step", planner=Planner(cost="last")),
    Case("cem, every raw action free", planner=Planner(held=False)),
    Case("cem, 100 steps", offset=100, pairs=100),
    Case("λ = 0.5", weight=0.5),
)


def main() -> None:
    """Train and evaluate what is not there yet, then make the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/control"))
    parser.add_argument("--only", default="")
    parser.add_argument("--steps", type=int, default=DemoConfig().steps)
    parser.add_argument("--tables", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # rounding depends on their number, and other cases may run beside
    for case in CASES:
        if not arguments.tables and arguments.only in case.name:
            ensure(case, arguments.runs, arguments.steps)
    tables(arguments.runs)


def ensure(case: Case, runs: Path, steps: int) -> None:
    """The case's record in `runs`, made if it is not there."""
    record = runs / f"{case.name}.json"
    if record.exists():
        return
    train(case, runs, steps)
    manifest = read_manifest(MANIFESTS / f"two-room-{case.offset}.json")
    some = slice(case.pairs)
    manifest = manifest._replace(pairs=manifest.pairs.take(some), seeds=manifest.seeds[some])
    run = open_run(runs / case.run)
    with Progress(case.name, len(manifest.seeds), unit="pair") as bar:
        result, trials = evaluate(run, manifest, Evaluation(case.planner), on_pairs=bar.update)
    del result["outcomes"]
    # One character a pair: enough for a paired test, short enough for a file of results.
    result["reached"] = "".join(str(int(flag)) for flag in trials.success[0])
    result["run_settings"] = run.settings
    write_atomically(record, json.dumps({"case": case.name, **result}, indent=1).encode())
    say(f"{case.name}: {result['success_rate']:.1%}")


def train(case: Case, runs: Path, steps: int) -> None:
    """The case's model, as the demo trains it; an interrupted training goes on."""
    folder = runs / case.run
    if (folder / "config.json").exists():
        return
    config = DemoConfig(weight=case.weight or 0.0, steps=steps)
    material = gather(config)
    training = new_training(config, material.windows)
    if case.weight is None:
        training.model.encoder.requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "training.safetensors"
    if state.exists():
        training.restore(state)
    began = time.process_time()
    with Progress(f"train {case.run}", steps, start=training.step) as bar:

        def on_step(step: int, losses: Any) -> None:
            if step % 100 == 0:
                training.save(state)
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        training.run(on_step)
    save_run(
        training.model.eval(),
        folder,
        scale=material.scale,
        frameskip=config.frameskip,
        world="two-room",
        objective="lewm" if case.weight is not None else FROZEN,
        trained_on=episode_digests(material.windows.episodes),
        held_out=[action_digest(actions) for actions in material.unseen.actions],
        settings={"weight": case.weight, "steps": steps, "seed": config.seed,
                  "cpu_seconds": round(time.process_time() - began)},
    )  # fmt: skip
    state.unlink(missing_ok=True)


def tables(runs: Path) -> None:
    """One result file per question, of the records that are there; the rest says so."""
    records = {}
    for case in CASES:
        path = runs / f"{case.name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            record["fingerprint"]["run"] = case.run
            records[case.name] = record
    base = records.get("cem")
    if base is None:
        say("no table yet: the case cem comes first")
        return

    def rows(names: list[tuple[str, str]], *, paired: bool) -> list[list[harness.Cell]]:
        return [row(title, name, records.get(name), base if paired else None)
                for title, name in names]  # fmt: skip

    common = (
        "Pairs of held-out walks, one model and one planner seed; success at any step of the "
        "budget; solved pairs dropped. p: exact paired test against the first row, on the pairs "
        "both tried. The fingerprint in each record names the commit that measured it; its seconds "
        "were taken beside other work. "
    )
    planners = [
        ("CEM 64 × 6", "cem"), ("iCEM 64 × 6", "icem"), ("MPPI 64 × 6, top 8", "mppi"),
        ("gradient (Adam) 16 × 24", "gradient"),
        ("predictive sampling 64 × 6", "predictive-sampling"),
        ("CEM, cost at the last step", "cem, cost at the last step"),
        ("CEM, every raw action free", "cem, every raw action free"),
    ]  # fmt: skip
    save(
        "control_planners", "Two-Room, goals 25 steps away: planners at 384 rollouts a decision",
        [records[name] for _, name in planners if name in records],
        [*rows(planners, paired=True), *floor_rows(base)],
        common + "The gradient also goes back through each rollout. Planners are not tuned here: "
        "step size and temperature are their defaults.",
    )  # fmt: skip
    offsets = [("25 steps", "cem"), ("50 steps", "cem, 50 steps"), ("100 steps", "cem, 100 steps")]
    save(
        "control_offsets", "Two-Room, goals further away: CEM, budget twice the distance",
        [records[name] for _, name in offsets if name in records],
        [r for title, name in offsets for r in
         (row(title, name, records.get(name), None), *floor_rows(records.get(name)))],
        common.replace(
            "p: exact paired test against the first row, on the pairs both tried. ", ""
        ),
    )  # fmt: skip
    weights = [
        ("λ = 0.05", "cem"), ("λ = 0", "λ = 0"), ("λ = 0.01", "λ = 0.01"), ("λ = 0.2", "λ = 0.2"),
        ("λ = 0.5", "λ = 0.5"), (FROZEN, FROZEN),
    ]  # fmt: skip
    save(
        "control_weights",
        "Two-Room, goals 25 steps away: the weight of SIGReg, planned with CEM",
        [records[name] for _, name in weights if name in records],
        rows(weights, paired=True),
        common,
    )
    curve(records)


def row(
    title: str, name: str, record: dict[str, Any] | None, base: dict[str, Any] | None
) -> list[harness.Cell]:
    """A line of a table; of a case that was not run, the command that runs it."""
    if record is None:
        command = f'not run: `python benchmarks/bench_control.py --only "{name}"`'
        return [title, command, "", "", "", "", ""]
    low, high = record["success_interval"]
    p = ""
    if base is not None and record is not base:
        # The first pairs of one manifest, so a shorter record is paired with the longer's start.
        pairs = zip(record["reached"], base["reached"], strict=False)
        p = f"{sign_test([int(a) - int(b) for a, b in pairs]):.2g}"
    return [
        title,
        f"{record['success_rate']:.1%}",
        f"{record['pairs']}",
        f"{low:.1%} – {high:.1%}",
        f"{record['success_rate_at_end']:.1%}",
        f"{record['final_distance']['median']:.0f}",
        p,
    ]


def floor_rows(record: dict[str, Any] | None) -> list[list[harness.Cell]]:
    """What random actions, none, and the expert make of the same pairs."""
    if record is None:
        return []
    named = {"random actions": "random", "no action": "noop", "scripted expert": "expert"}
    out: list[list[harness.Cell]] = []
    for title, key in named.items():
        low, high = record[f"{key}_success_interval"]
        rate, end = record[f"{key}_success_rate"], record[f"{key}_success_rate_at_end"]
        num = f"{record['pairs']}"
        out.append(
            [f"– {title}", f"{rate:.1%}", num, f"{low:.1%} – {high:.1%}", f"{end:.1%}", "", ""]
        )
    return out


def save(
    name: str,
    question: str,
    results: list[dict[str, Any]],
    rows: list[list[harness.Cell]],
    note: str,
) -> None:
    """One file of results with its table."""
    columns = ("", "success", "pairs", "95 % interval", "at the end", "median final distance", "p")
    harness.save(name, question, results, columns=columns, rows=rows, note=note)


def curve(records: dict[str, Any]) -> None:
    """Success against the weight of SIGReg."""
    found = sorted(
        (r["run_settings"]["weight"], r["success_rate"])
        for name, r in records.items()
        if name == "cem" or name.startswith("λ")
    )
    if len(found) < 2:
        return
    x, y = (np.asarray(column, np.float64) for column in zip(*found, strict=True))
    chart = line_chart(
        [Series(x, 100 * y, "CEM, 25 steps")],
        title="Success in Two-Room",
        x_label="weight λ of SIGReg",
        y_label="%",
        marks=[(100 * records["cem"]["random_success_rate"], "random actions")],
    )
    save_picture(chart, harness.ROOT / "docs" / "_static" / "control-weights.png")


if __name__ == "__main__":
    main()
