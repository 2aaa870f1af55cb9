"""One table per question from the records of bench_control.py, and the chart over λ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import harness
from control_cases import CASES, FULL, REPEATED, SEEDS
from control_models import FROZEN

from worldmodel.apps.progress import say
from worldmodel.apps.report import save_chart
from worldmodel.apps.report.charts import Line, Panel, panels
from worldmodel.study import sign_test

__all__ = ["known", "tables"]


def known() -> dict[str, dict[str, Any]]:
    """Records in benchmarks/results/, by the names of their cases."""
    found = {}
    for path in sorted(harness.RESULTS.glob("control_*.json")):
        found.update({r["case"]: r for r in json.loads(path.read_text())["results"]})
    return found


def tables(runs: Path) -> None:
    """Write one result file per question; a missing record becomes a row that says so."""
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
    """The results of one recipe with several training seeds."""
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
    """A line of a table; for a case that was not run, the command that runs it."""
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
    """The random, no-op and expert policies on the same pairs, a row each."""
    if record is None:
        return []
    named = {"random actions": "random", "no-op": "noop", "scripted expert": "expert"}
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
    x, y = zip(*found, strict=True)
    level = (100 * records["cem"]["random_success_rate"], "random actions")
    line = Line("CEM, 25 steps", x, [100 * rate for rate in y])
    panel = Panel([line], "λ, weight of SIGReg", "success, %", "Success in Two-Room", level=level)
    save_chart(panels(panel), harness.ROOT / "docs" / "_static" / "control-weights.png")
