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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from control_models import FROZEN, SIDE, Recipe, load, train
from full_size import PUBLISHED

from worldmodel._files import write_atomically
from worldmodel.apps.charts import Series, line_chart, save_picture
from worldmodel.apps.demo.material import DemoConfig
from worldmodel.apps.evaluate import Planner, sign_test
from worldmodel.apps.evaluate.manifest import read_manifest
from worldmodel.apps.evaluate.running import Evaluation, measure
from worldmodel.apps.progress import Progress, say

MANIFESTS = Path(__file__).resolve().parent / "manifests"
FULL = "LeWM, 224 px"


def sigreg(weight: float) -> Recipe:
    """The demo's model at some λ."""
    return Recipe(f"weight-{weight:g}", weight=weight)


USUAL = sigreg(0.05)
PLDM, GCBC = Recipe("pldm", "pldm"), Recipe("gcbc", "gcbc")
SUBSPACE = Recipe("subspace-8", subspaces=8)
NARROW, WIDE = Recipe("dim-32", dim=32), Recipe("dim-128", dim=128)
LONGER = Recipe("longer-2", longer=2)
ICEM = Planner("icem")


@dataclass(frozen=True)
class Case:
    """One evaluation: a model, a manifest and a planner."""

    name: str
    recipe: Recipe = USUAL
    offset: int = 25
    planner: Planner = field(default_factory=Planner)
    pairs: int = 200  # the first of the manifest; fewer where a case takes long

    def again(self, seed: int) -> Case:
        """The same with a model of other walks, weights and batches."""
        recipe = replace(self.recipe, folder=f"{self.recipe.folder}-seed-{seed}", seed=seed)
        return replace(self, name=f"{self.name}, seed {seed}", recipe=recipe)


SEEDS = (1, 2)
# Trained once more with each of these seeds.
REPEATED = (
    Case("cem"),
    Case("icem", planner=ICEM),
    Case("cem, cost at the last step", planner=Planner(cost="last")),
    Case("PLDM", PLDM),
    Case("GCBC", GCBC),
    Case("dim 128, icem", WIDE, planner=ICEM),
    Case("subspaces, icem", SUBSPACE, planner=ICEM),
)
# In the order in which they are run: what says most comes first.
CASES = (
    Case("cem"),
    Case("cem, 50 steps", offset=50),
    Case("icem", planner=ICEM),
    Case("mppi", planner=Planner("mppi")),
    Case("gradient", planner=Planner("gradient"), pairs=100),
    Case(FROZEN, Recipe("frozen", "frozen")),
    Case("λ = 0.01", sigreg(0.01)),
    Case("λ = 0.2", sigreg(0.2)),
    Case("predictive-sampling", planner=Planner("predictive-sampling")),
    Case("cem, cost at the last step", planner=Planner(cost="last")),
    Case("cem, every raw action free", planner=Planner(held=False)),
    Case("cem, 100 steps", offset=100, pairs=100),
    Case("PLDM", PLDM),
    Case("GCBC", GCBC),
    Case("λ = 0", sigreg(0.0)),
    Case("dim 128", WIDE),
    Case("dim 128, icem", WIDE, planner=ICEM),
    Case("subspaces", SUBSPACE),
    Case("subspaces, icem", SUBSPACE, planner=ICEM),
    Case("λ = 0.5", sigreg(0.5)),
    Case("dim 32", NARROW),
    Case("dim 32, icem", NARROW, planner=ICEM),
    Case("PLDM, icem", PLDM, planner=ICEM),
    Case("icem at λ = 0.2", sigreg(0.2), planner=ICEM),
    Case("trained longer", LONGER),
    Case("trained longer, icem", LONGER, planner=ICEM),
    *(case.again(seed) for seed in SEEDS for case in REPEATED),
    Case("LeWM, 56 px", Recipe("lewm-56", image_size=56, published=True)),
    Case(FULL, Recipe("lewm-224", image_size=SIDE, published=True), planner=PUBLISHED),
)


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
        usual = 10**9 if case.name == FULL else DemoConfig().steps
        config = DemoConfig(steps=arguments.steps or usual)
        ensure(case, arguments.runs, config, arguments.device)
    tables(arguments.runs)


def chosen(word: str) -> list[Case]:
    """The case of that name, or all whose name holds the word."""
    return [c for c in CASES if c.name == word] or [c for c in CASES if word in c.name]


def known() -> dict[str, dict[str, Any]]:
    """Records in benchmarks/results/, by the names of their cases."""
    found = {}
    for path in sorted(harness.RESULTS.glob("control_*.json")):
        found.update({r["case"]: r for r in json.loads(path.read_text())["results"]})
    return found


def ensure(case: Case, runs: Path, config: DemoConfig, device: str = "cpu") -> None:
    """The case's record in `runs`, made if it is not there."""
    record = runs / f"{case.name}.json"
    if record.exists():
        return
    train(case.recipe, runs, config, device)
    manifest = read_manifest(MANIFESTS / f"two-room-{case.offset}.json")
    some = slice(case.pairs)
    manifest = manifest._replace(pairs=manifest.pairs.take(some), seeds=manifest.seeds[some])
    subject, policy, settings = load(case.recipe, runs, case.planner, device)
    evaluation = Evaluation(case.planner, device=device)
    with Progress(case.name, len(manifest.seeds), unit="pair") as bar:
        result, trials = measure(subject, policy, manifest, evaluation, on_pairs=bar.update)
    del result["outcomes"]
    # One character a pair: enough for a paired test, short enough for a file of results.
    result["reached"] = "".join(str(int(flag)) for flag in trials.success[0])
    result["run_settings"] = settings
    write_atomically(record, json.dumps({"case": case.name, **result}, indent=1).encode())
    say(f"{case.name}: {result['success_rate']:.1%}")


def tables(runs: Path) -> None:
    """One result file per question, of the records that are there; the rest says so."""
    records = known()
    for case in CASES:
        path = runs / f"{case.name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            record["fingerprint"]["run"] = case.recipe.folder
            records[case.name] = record
    base = records.get("cem")
    if base is None:
        say("no table yet: the case cem comes first")
        return

    def rows(names: list[tuple[str, str]], *, paired: bool) -> list[list[harness.Cell]]:
        return [row(title, name, records.get(name), base if paired else None)
                for title, name in names]  # fmt: skip

    pairs = (
        "Pairs of held-out walks, one model and one planner seed; success at any step of the "
        "budget; solved pairs dropped. "
    )
    test = (
        "p: exact paired test against the first row, on the pairs both tried, not corrected for "
        "the number of rows. "
    )
    where = (
        "The fingerprint in each record names the commit and the threads that measured it; its "
        "seconds were taken beside other work. "
    )
    common = pairs + test + where
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
        pairs + where,
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
    methods = [
        ("LeWM, CEM", "cem"), ("LeWM, iCEM", "icem"), ("PLDM, CEM", "PLDM"),
        ("PLDM, iCEM", "PLDM, icem"), ("GCBC, no planner", "GCBC"),
        (f"{FROZEN}, CEM", FROZEN),
        ("LeWM at its published width, 18 M weights, 56 px; CEM", "LeWM, 56 px"),
        ("LeWM at its published size, 224 px", FULL),
    ]  # fmt: skip
    save(
        "control_methods", "Two-Room, goals 25 steps away: LeWM and its baselines",
        [records[name] for _, name in methods if name in records],
        [*rows(methods, paired=True), *floor_rows(base)],
        common + "One size of model unless the row says otherwise, the same 600 batches of 64 "
        "windows (GCBC: windows of six frames; at 224 px as published); no setting was searched "
        "for: PLDM has the weights published for Push-T.",
    )  # fmt: skip
    attempts = [
        ("as in the demo: 64 dims, λ = 0.05; CEM", "cem"), ("the same, iCEM", "icem"),
        ("SIGReg in 8 subspaces of 8 dims; CEM", "subspaces"),
        ("the same, iCEM", "subspaces, icem"),
        ("128 dims; CEM", "dim 128"), ("the same, iCEM", "dim 128, icem"),
        ("32 dims; CEM", "dim 32"), ("the same, iCEM", "dim 32, icem"),
        ("λ = 0.2; CEM", "λ = 0.2"), ("the same, iCEM", "icem at λ = 0.2"),
        ("twice as many steps; CEM", "trained longer"),
        ("the same, iCEM", "trained longer, icem"),
    ]  # fmt: skip
    save(
        "control_attempts", "Two-Room, goals 25 steps away: can a setting beat the demo's?",
        [records[name] for _, name in attempts if name in records],
        rows(attempts, paired=True), common,
    )  # fmt: skip
    seeds(records)
    curve(records)


def seeds(records: dict[str, dict[str, Any]]) -> None:
    """How far apart two trainings of one recipe are."""
    titles = {
        "cem": "as in the demo; CEM", "icem": "as in the demo; iCEM",
        "cem, cost at the last step": "as in the demo; CEM, cost at the last step",
        "PLDM": "PLDM; CEM",
        "GCBC": "GCBC, no planner", "dim 128, icem": "128 dims; iCEM",
        "subspaces, icem": "SIGReg in 8 subspaces of 8 dims; iCEM",
    }  # fmt: skip
    table: list[list[harness.Cell]] = []
    for case in REPEATED:
        found = [records.get(name) for name in
                 (case.name, *(case.again(seed).name for seed in SEEDS))]  # fmt: skip
        cells = ["not run" if r is None else
                 f"{r['success_rate']:.1%}, {r['success_rate_at_end']:.1%} at the end"
                 for r in found]  # fmt: skip
        rates = [r["success_rate"] for r in found if r is not None]
        mean = f"{sum(rates) / len(rates):.1%}" if len(rates) == len(found) else ""
        table.append([titles[case.name], *cells, mean])
    names = [case.again(seed).name for seed in SEEDS for case in REPEATED]
    left = [name for name in names if name not in records]
    harness.save(
        "control_seeds", "Two-Room, goals 25 steps away: the same with models of other seeds",
        [records[name] for name in names if name in records],
        columns=("", "seed 0", *(f"seed {seed}" for seed in SEEDS), "mean"),
        rows=table,
        note="Other walks, weights and batches; the same 200 pairs and planner seeds."
        + (' Not run: `python benchmarks/bench_control.py --only "seed"`.' if left else ""),
    )  # fmt: skip


def row(
    title: str, name: str, record: dict[str, Any] | None, base: dict[str, Any] | None
) -> list[harness.Cell]:
    """A line of a table; of a case that was not run, the command that runs it."""
    if record is None:
        device = " --device cuda" if name == FULL else ""
        command = f'not run: `python benchmarks/bench_control.py --only "{name}"{device}`'
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
        (case.recipe.weight, records[case.name]["success_rate"])
        for case in CASES
        if case.name in records and (case.name == "cem" or case.name.startswith("λ"))
    )
    if len(found) < 2:
        return
    x, y = (np.asarray(column, np.float64) for column in zip(*found, strict=True))
    chart = line_chart(
        [Series(x, 100 * y, "CEM, 25 steps")],
        title="Success in Two-Room",
        x_label="weight of SIGReg",  # the font has no λ
        y_label="%",
        marks=[(100 * records["cem"]["random_success_rate"], "random actions")],
    )
    save_picture(chart, harness.ROOT / "docs" / "_static" / "control-weights.png")


if __name__ == "__main__":
    main()
