"""Which λ does `worldmodel tune-lambda` choose on the built-in world, and is it a good one?

It runs a search at the default settings, and the whole demo at the λ found. All files are in
runs/bench-tune-<commit>, so an interrupted benchmark continues.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

SEARCHES = {150: ("0.001", "1", "7")}  # steps: low, high, runs
COLUMNS = (
    "steps", "runs", "λ", "between", "shortfalls there: prediction", "distribution",
    "changes sign once", "demo at this λ: success", "95 % interval", "linear R² x, y",
)  # fmt: skip


def worldmodel(*words: str) -> None:
    """Run a command of worldmodel."""
    subprocess.run([sys.executable, "-m", "worldmodel", *words], check=True, cwd=harness.ROOT)


def search(folder: Path, steps: int) -> dict[str, Any]:
    """Run a search; return the content of tune.json."""
    out = folder / f"tune-{steps}"
    again = ["--resume"] if (out / "tune.json").exists() else []
    low, high, runs = SEARCHES[steps]
    span = ("--low", low, "--high", high, "--runs", runs)
    worldmodel("tune-lambda", "--steps", str(steps), *span, "--out", str(out), *again)
    content: dict[str, Any] = json.loads((out / "tune.json").read_text())
    return content


def demo(folder: Path, weight: float) -> dict[str, Any]:
    """The demo's report at one λ."""
    out = folder / f"demo-{weight:.3g}"
    if not (out / "report.json").exists():
        again = ["--resume"] if (out / "demo.json").exists() else []
        worldmodel("demo", "--weight", f"{weight:.3g}", "--out", str(out), *again)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def main() -> None:
    """Search λ, then run the demo with it."""
    folder = harness.ROOT / "runs" / f"bench-tune-{harness._commit()}"
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for steps in SEARCHES:
        found = search(folder, steps)
        report = demo(folder, found["result"]["weight"])
        results.append({"steps": steps, **found, "demo": report})
        save(results)
    first = folder / f"tune-{next(iter(SEARCHES))}" / "tune.png"
    (harness.ROOT / "docs" / "_static" / "tune.png").write_bytes(first.read_bytes())


def save(results: list[dict[str, Any]]) -> None:
    """Two tables: the searches with the demo at their answers, and every short run."""
    harness.save(
        "tune",
        "worldmodel tune-lambda on the built-in world, and worldmodel demo at the λ it chose",
        results,
        columns=COLUMNS,
        rows=[row(result) for result in results],
        note="Bisection on log λ. One seed; the demo trains for 600 steps.",
    )
    trials = [
        {"steps": result["steps"], **trial}
        for result in results
        for trial in sorted(result["trials"], key=by_weight)
    ]
    harness.save(
        "tune_trials",
        "Every short run of these searches",
        trials,
        columns=("steps", "λ", "prediction", "distribution", "SIGReg", "effective rank"),
        rows=[
            (
                t["steps"],
                f"{t['weight']:.3g}",
                f"{t['prediction']:.3f}",
                f"{t['distribution']:.3f}",
                f"{t['sigreg']:.1f}",
                f"{t['effective_rank']:.1f}",
            )
            for t in trials
        ],
        note="Shortfalls on held-out episodes; collapsed embeddings have a distribution of 1.",
    )


def row(result: dict[str, Any]) -> tuple[harness.Cell, ...]:
    """One search: its answer, the shortfalls at the nearest trial, and the demo there."""
    answer, report = result["result"], result["demo"]
    ends = [t for t in result["trials"] if t["weight"] in (answer["low"], answer["high"])]
    near = min(ends, key=lambda t: abs(t["gap"]))
    low, high = report["success_interval"]
    linear = report["probe_r2"]["linear"]
    return (
        result["steps"],
        len(result["trials"]),
        f"{answer['weight']:.3g}",
        f"{answer['low']:.3g} – {answer['high']:.3g}",
        f"{near['prediction']:.3f}",
        f"{near['distribution']:.3f}",
        "yes" if answer["monotone"] else "no",
        f"{report['success_rate']:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{linear['x']:.3f}, {linear['y']:.3f}",
    )


def by_weight(trial: dict[str, Any]) -> float:
    """λ, for sorting."""
    return float(trial["weight"])


if __name__ == "__main__":
    main()
