"""How often does the demo reach its goals, on several seeds, with and without SIGReg?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness

SEEDS = (0, 1, 2, 3, 4)
COLUMNS = (
    "seed", "λ", "success", "95 % interval", "across the wall", "random policy",
    "start to goal, radii", "linear R² x, y", "MLP R² x, y", "seconds",
)  # fmt: skip


def main() -> None:
    """Run `worldmodel demo` for each seed, the first one also without SIGReg."""
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            out = Path(folder) / str(seed)
            ablate = ["--ablate"] if seed == SEEDS[0] else []
            command = ["demo", "--seed", str(seed), "--out", str(out), *ablate]
            subprocess.run([sys.executable, "-m", "worldmodel", *command], check=True)
            reports.append(json.loads((out / "report.json").read_text()))
        pictures = harness.ROOT / "docs" / "_static"
        for name in ("episodes.gif", "latent.png", "curves.png"):
            shutil.copyfile(Path(folder) / str(SEEDS[0]) / name, pictures / f"demo-{name}")
    rows = [row(report, report) for report in reports]
    rows.insert(1, row(reports[0], reports[0]["ablation"]))
    harness.save(
        "demo",
        "worldmodel demo: an agent that learned Two-Room from pixels, and the same without SIGReg",
        reports,
        columns=COLUMNS,
        rows=rows,
        note="Goals are 25 steps away in unseen episodes, budget 50 steps, solved pairs dropped.",
    )


def row(report: dict[str, Any], part: dict[str, Any]) -> list[harness.Cell]:
    """One line of the table: a run, or its ablation."""
    whole = part is report
    low, high = part["success_interval"]
    probes = part["probe_r2"]
    return [
        report["seed"],
        f"{report['config']['weight'] if whole else 0:g}",
        f"{part['success_rate']:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{part['cross_room_success_rate']:.1%}",
        f"{report['random_success_rate']:.1%}",
        f"{report['mean_start_goal_distance']:.2f}",
        f"{probes['linear']['x']:.3f}, {probes['linear']['y']:.3f}",
        f"{probes['mlp']['x']:.3f}, {probes['mlp']['y']:.3f}",
        f"{report['wall_seconds']['total'] - report['wall_seconds'].get('ablation', 0):.0f}"
        if whole
        else "",
    ]


if __name__ == "__main__":
    main()
