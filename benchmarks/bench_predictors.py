"""Which predictor for the same budget? Step by step, all at once, or affine.

    python benchmarks/bench_predictors.py                      Two-Room
    python benchmarks/bench_predictors.py --world reacher      with bench_far.py's data and pairs

Each is trained on as many optimizer steps, of as many frames, with the same encoder, learning rate
and λ: two minutes each on Two-Room, six on Reacher, kept in --runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import harness
import torch
import two_room
from torch import Tensor
from two_room import DIM, Subject

from worldmodel import AffinePredictor, PrefixPredictor, WorldModel, goals

AHEAD = (1, 3, 5, 10)
STEPS = {"two-room": 600, "reacher": 2000}


def with_predictor(predictor: Callable[[], torch.nn.Module]) -> Callable[[], WorldModel]:
    """The demo's model behind another predictor."""

    def build() -> WorldModel:
        parts = two_room.lewm()
        return WorldModel(parts.encoder, parts.action_encoder, predictor())  # type: ignore[arg-type]

    return build


# Builds, and frames of a training window: a prefix predictor learns its whole horizon.
CASES: dict[str, tuple[Callable[[], WorldModel], int]] = {
    "causal, step by step (LeWM)": (two_room.lewm, 4),
    "prefix, all at once (Fast-LeWM)": (
        with_predictor(
            lambda: PrefixPredictor(
                DIM, 5, prefix_depth=2, heads=4, depth=2, mlp_dim=256, projector_dim=256
            )
        ),
        6,
    ),
    "state-affine (after SALT)": (with_predictor(lambda: AffinePredictor(DIM, DIM, 3, 128)), 4),
}


def main() -> int:
    """Train what is missing, then measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--world", choices=("two-room", "reacher"), default="two-room")
    parser.add_argument("--runs", type=Path, default=Path("runs/predictors"))
    parser.add_argument("--far", type=Path, default=Path("runs/far"),
                        help="where bench_far.py --worlds reacher made data and pairs")  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arm, steps = arguments.world == "reacher", STEPS[arguments.world]
    results: list[dict[str, object]] = []
    rows: list[list[harness.Cell]] = []
    first: dict[str, Subject] = {}
    for name, (build, num_frames) in CASES.items():
        solved, errors, seconds = [], [], []
        for seed in range(arguments.seeds):
            kind = ("reacher-" if arm else "") + name.split()[0].strip(",")
            subject = two_room.subject(
                arguments.runs / f"{kind}-{seed}", build, num_frames=num_frames, seed=seed,
                steps=steps, world=arguments.world,
                data=arguments.far / f"reacher-{seed}.h5" if arm else None,
            )  # fmt: skip
            first.setdefault(name, subject)
            errors.append(open_loop(subject))
            seconds.append(subject.seconds)
            if arm:
                task = arguments.far / f"reacher-25-{seed}-pairs.json"
                pairs = two_room.pairs_of_manifest(task, arguments.pairs)
            else:
                pairs = two_room.pairs(arguments.pairs, 25, seed=seed)
            goal = subject.model.imagine().embed(two_room.picture(pairs.goals, subject.world))
            found = two_room.control(subject, pairs, goals.near(goal, "nearest"), 50)
            solved.append(float(found.solved.mean()))
            print(name, seed, solved[-1], errors[-1].tolist(), flush=True)
        size = sum(p.numel() for p in first[name].model.predictor.parameters())
        error = torch.stack(errors).mean(0).tolist()
        results.append({
            "predictor": name, "parameters": size, "success": solved, "errors": error,
            "train_cpu_seconds": seconds,
        })  # fmt: skip
        rows.append(
            [name, f"{size:,}", " · ".join(f"{s:.0%}" for s in solved),
             *(f"{e:.3f}" for e in error), f"{sum(seconds) / len(seconds):.0f} s"]
        )  # fmt: skip
    plans = torch.randn(16, 64, 5, 10)
    calls = {name: planned(subject, plans) for name, subject in first.items()}
    timings = harness.interleave(calls, rounds=7, warmup=1)
    base = next(iter(CASES))
    for row, result in zip(rows, results, strict=True):
        name = str(row[0])
        ratio = harness.speedup(timings, name, base)
        row.append(f"{ratio.median:.2f}")
        result["seconds_per_call"] = timings[name].record()
    harness.save(
        "predictors_reacher" if arm else "predictors",
        f"Which predictor for the same budget? {'Reacher' if arm else 'Two-Room'}, 64 pixels, "
        "goals 25 steps away",
        results,
        columns=("predictor", "parameters", "success", *(f"error, {h} ahead" for h in AHEAD),
                 "training", "plans a second over the first's"),
        rows=rows,
        note=f"{arguments.pairs} pairs, {arguments.seeds} training seed(s), {steps} steps of 256 "
        "frames, 1 thread. Error: open loop from one frame, blocks ahead, as a share of the "
        "variance of embeddings of training episodes. Training: processor "
        "time. Plans start from one frame.",
    )  # fmt: skip
    return 0


def open_loop(subject: Subject) -> Tensor:
    """Squared error of imagined embeddings some blocks ahead, over their variance: [len(AHEAD)]."""
    z, furthest = subject.z, max(AHEAD)
    with torch.no_grad():
        imagined = subject.model.rollout(z[:, :1], subject.actions[:, :furthest])
    error = (imagined - z[:, 1 : 1 + furthest]).square().mean((0, 2))
    return error[[h - 1 for h in AHEAD]] / z.flatten(0, 1).var(0).mean()


def planned(subject: Subject, plans: Tensor) -> Callable[[], Tensor]:
    """One iteration's candidates of 16 problems, imagined."""
    futures = subject.model.imagine().look(torch.rand(16, 1, 3, two_room.SIZE, two_room.SIZE))

    @torch.no_grad()
    def call() -> Tensor:
        return futures(plans)

    return call


if __name__ == "__main__":
    raise SystemExit(main())
