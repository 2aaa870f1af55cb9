"""Train and evaluate LeWM at its published size in one world on one GPU, with the commands.

    python benchmarks/gpu_worlds.py push-t               one part; run it again to continue
    python benchmarks/gpu_worlds.py push-t --try-out     tiny, on any machine

Episodes are simulated from seeds and stored as states; worker processes draw frames during
training. A part ends after --minutes and keeps all files in --runs. gpu_worlds.json holds the
settings of the training. Needs `pip install 'sigreg[worldmodel,envs]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import harness
import torch

HERE = Path(__file__).resolve().parent


class Task(NamedTuple):
    """Data to collect, and the success rate in the paper's Figure 6, in percent."""

    policy: str
    episodes: int
    length: int
    published: float


TASKS = {
    "push-t": Task("pusher", 18_685, 125, 96.0),
    "reacher": Task("random", 10_000, 200, 86.0),
    "cube": Task("picker", 10_000, 200, 74.0),
}
_TINY = ("--preset", "small", "--render", 64, "--steps", 6, "--batch-size", 16, "--workers", 1)


def main() -> int:
    """Run one part of each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", nargs="*", help=f"of {', '.join(TASKS)}; none: all, in turn")
    parser.add_argument("--runs", type=Path, default=Path("runs/full-size"))
    parser.add_argument("--minutes", type=float, default=9.0, help="of a part")
    parser.add_argument("--try-out", action="store_true", help="tiny, to see that it runs")
    given = parser.parse_args()
    if not (given.try_out or torch.cuda.is_available()):
        print("no CUDA device: not run")
        return 0
    for world in given.world or TASKS:
        end = time.monotonic() + 60 * given.minutes
        folder = given.runs / (world + ("-try-out" if given.try_out else ""))
        folder.mkdir(parents=True, exist_ok=True)
        done = all(one_command(words, end) for words in commands(world, folder, given.try_out))
        if done and not given.try_out:
            write_down(world, folder)
        print(f"{world}: {'done' if done else 'run the same command to continue'}")
    return 0


def commands(world: str, folder: Path, tiny: bool) -> list[list[str]]:
    """The unfinished commands."""
    task, data, run = TASKS[world], folder / "states.h5", folder / "run"
    size = ("--episodes", 16, "--length", 40) if tiny else (
        "--episodes", task.episodes, "--length", task.length)  # fmt: skip
    collect = ("data", "collect", "--env", world, "--policy", task.policy, "--states-only", *size,
               "--out", data, "--resume")  # fmt: skip
    how = _TINY if tiny else ("--config", HERE / "gpu_worlds.json")
    again = ("--resume",) if (run / "train.json").exists() else ()
    train = ("train", "--data", data, *how, "--out", run, *again)
    planner = ("--samples", 8, "--iterations", 1) if tiny else ("--preset", "published")
    evaluate = ("evaluate", run, "--manifest", HERE / "manifests" / f"{world}-25.json", *planner,
                "--films", 0, "--out", folder / "result")  # fmt: skip
    steps = {data.with_suffix(".done"): collect, run / "report.json": train,
             folder / "result" / "index.html": evaluate}  # fmt: skip
    return [list(map(str, words)) for mark, words in steps.items() if not mark.exists()]


def one_command(words: list[str], end: float) -> bool:
    """Run a command until it ends or the time is over; return whether it ended."""
    source = os.pathsep.join([str(harness.ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "worldmodel", *words], env=os.environ | {"PYTHONPATH": source}
    )
    try:
        code = process.wait(max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        return False
    if code:
        raise SystemExit(code)
    if words[0] == "data":
        Path(words[words.index("--out") + 1]).with_suffix(".done").touch()
    return True


def write_down(world: str, folder: Path) -> None:
    """Write the result file."""
    task = TASKS[world]
    score = json.loads((folder / "result" / "result.json").read_text(encoding="utf-8"))
    del score["outcomes"]
    training = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    low, high = score["success_interval"]
    harness.save(
        f"gpu_{world.replace('-', '_')}",
        f"LeWM at its published size in {world}, trained on {task.episodes:,} episodes of the "
        f"policy {task.policy}",
        [{"training": training, "score": score}],
        columns=("optimizer steps", "prediction loss", "success", "95 % interval", "random"),
        rows=[(
            f"{training['steps']:,}", training["held_out_prediction"],
            f"{score['success_rate']:.1%}", f"{low:.1%} – {high:.1%}",
            f"{score['random_success_rate']:.1%}",
        )],
        note=f"Published: {task.published:g} %, on other data, 50 pairs of training rows.",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
