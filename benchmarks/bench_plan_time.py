"""How few rollouts reach the success of the published search? One frozen model a seed.

    python benchmarks/bench_plan_time.py --pairs 200 --seeds 3      for the table of Two-Room
    python benchmarks/bench_plan_time.py --pairs 60 --seeds 1       a first look
    python benchmarks/bench_plan_time.py --world reacher            of bench_far.py's runs

Every setting has the same pairs. It counts as equal if its success is at most two points below that
of 9,000 rollouts a decision.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
import two_room

from planners import CEM, ICEM, MPPI, GradientDescent
from worldmodel import goals

MARGIN = 0.02


def adam(tensors: Any) -> torch.optim.Optimizer:
    """The step rule of the gradient planner."""
    return torch.optim.Adam(tensors, lr=0.1)


@dataclass(frozen=True)
class Setting:
    """A search.

    Attributes:
        name: of the row.
        method: planner.
        iterations: per decision; a function of the control step shrinks it once warm.
        horizon: in blocks.
        options: more of `MPC`.
    """

    name: str
    method: Any
    iterations: Any = 6
    horizon: int = 5
    options: dict[str, Any] = field(default_factory=dict)


PUBLISHED = Setting("CEM 300 × 30 (published)", CEM(300, 30), 30)
SETTINGS = (
    PUBLISHED,
    Setting("CEM 64 × 6", CEM(64, 8)),
    Setting("CEM 64 × 6, horizon 3", CEM(64, 8), horizon=3),
    Setting("CEM 64 × 6, horizon 2", CEM(64, 8), horizon=2),
    Setting("CEM 64 × 30, stop 0.05", CEM(64, 8), 30, options={"stop": 0.05}),
    Setting("CEM 32 × 4", CEM(32, 5), 4),
    Setting("CEM 64 × 6, then 2 once warm", CEM(64, 8), lambda step: 2 if step else 6),
    Setting("iCEM 64 × 6, elites kept, halving", ICEM(64, 8, init_std=1.0, decay=1.5)),
    Setting("iCEM 32 × 3, elites kept", ICEM(32, 5, init_std=1.0, decay=1.0), 3),
    Setting("iCEM 24 × 2, elites kept", ICEM(24, 4, init_std=1.0, decay=1.0), 2),
    Setting("MPPI 64 × 6", MPPI(64, 1.0, 1.0, top_k=8, adapt_std=True, min_std=0.05)),
    Setting("gradient 8 × 8", GradientDescent(adam, 8, 1.0), 8),
)


def main() -> int:
    """Try all settings, on every seed's model and pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--world", choices=("two-room", "reacher"), default="two-room")
    parser.add_argument("--runs", type=Path, default=Path("runs/goals"))
    parser.add_argument("--far", type=Path, default=Path("runs/far"),
                        help="where bench_far.py --worlds reacher made runs and pairs")  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arm = arguments.world == "reacher"
    home = arguments.far if arm else arguments.runs
    solved: dict[str, list[Any]] = {setting.name: [] for setting in SETTINGS}
    spent: dict[str, list[tuple[float, float]]] = {setting.name: [] for setting in SETTINGS}
    for seed in range(arguments.seeds):
        if arm:
            subject = two_room.subject_of_run(home / f"reacher-{seed}", home / f"reacher-{seed}.h5")
            pairs = two_room.pairs_of_manifest(
                home / f"reacher-25-{seed}-pairs.json", arguments.pairs
            )
        else:
            subject = two_room.subject(home / f"lewm-{seed}", seed=seed)
            pairs = two_room.pairs(arguments.pairs, 25, seed=seed)
        for setting in SETTINGS:
            key = f"{setting.name}, {arguments.pairs} pairs"
            compute = partial(search, subject, pairs, setting, 3 if arm else 1)
            rollouts, seconds, flags = two_room.kept(home / f"plan-time-{seed}.json", key, compute)
            solved[setting.name].append(np.asarray(flags))
            spent[setting.name].append((rollouts, seconds))
            print(f"{seed} {key}: {np.mean(flags):.1%}, {rollouts:.0f} rollouts", flush=True)
    base = np.concatenate(solved[PUBLISHED.name])
    rows: list[list[harness.Cell]] = []
    results: list[dict[str, object]] = []
    for setting in SETTINGS:
        own = np.concatenate(solved[setting.name])
        more, fewer = int((own & ~base).sum()), int((base & ~own).sum())
        rollouts, seconds = np.mean(spent[setting.name], axis=0)
        blocks = rollouts * setting.horizon
        equal = own.mean() >= base.mean() - MARGIN
        results.append({
            "setting": setting.name, "success": float(own.mean()), "more": more, "fewer": fewer,
            "rollouts": float(rollouts), "imagined_blocks": float(blocks),
            "cpu_seconds": float(seconds), "equal": bool(equal),
        })  # fmt: skip
        rows.append(
            [setting.name, f"{rollouts:,.0f}", f"{9000 * 5 / blocks:.0f}", f"{own.mean():.1%}",
             f"{more} / {fewer}", f"{two_room.sign_test(more, fewer):.2g}",
             "yes" if equal else "no"]
        )  # fmt: skip
    harness.save(
        "plan_time_reacher" if arm else "plan_time",
        "How few rollouts reach the success of the published search? "
        f"{'Reacher' if arm else 'Two-Room'}, 25 steps away",
        results,
        columns=("search", "rollouts a decision", "times fewer blocks imagined", "success",
                 "solved more / fewer", "p", "equal"),
        rows=rows,
        note=f"{arguments.seeds} model(s), {arguments.pairs} pairs each, "
        f"{5000 if arm else 600} training steps, {'plans start from three frames, ' if arm else ''}"
        "replanned every block, goals.near(…, \"nearest\"), held actions, budget 50 steps. "
        "Equal: at most 2 points below the published search. A stop waits for all pairs "
        "of the batch. Gradients count as one rollout.",
    )  # fmt: skip
    return 0


def search(
    subject: two_room.Subject, pairs: two_room.Pairs, setting: Setting, history: int
) -> list[Any]:
    """Rollouts and seconds per decision, and which pairs were solved."""
    goal = subject.model.imagine().embed(two_room.picture(pairs.goals, subject.world))
    found = two_room.control(
        subject, pairs, goals.near(goal, "nearest"), 50,
        method=setting.method, iterations=setting.iterations, horizon=setting.horizon,
        history=history, **setting.options,
    )  # fmt: skip
    return [found.rollouts, found.seconds, found.solved.tolist()]


if __name__ == "__main__":
    raise SystemExit(main())
