"""What `test_train_survival` starts: a run killed at its n-th moment, in a process of its own.

`python killed_runs.py DATA FOLDER` runs to the end once, then dies by SIGKILL at every single write
and between two steps, resumes each, and prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldmodel.apps.parsing import complete
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train import command
from worldmodel.apps.train.command import SETTINGS
from worldmodel.apps.train.loop import Training

SMALL = {"dim": 8, "projector_dim": 8}
MODEL = {
    "encoder": SMALL | {"width": 4},
    "action_encoder": {"dim": 8, "hidden_dim": 8},
    "predictor": SMALL | {"depth": 1, "heads": 1, "dim_head": 8, "mlp_dim": 8},
}


def settings(data: str | Path, out: str | Path = "run", **changes: Any) -> TrainSettings:
    """Four steps of a tiny model, with dropout."""
    values = {
        "data": str(data),
        "out": Path(out),
        "steps": 4,
        "report_every": 3,
        "batch_size": 8,
        "num_proj": 8,
        "frameskip": 2,
        "checkpoint_every": 2,
        "held_out_windows": 8,
        "workers": 0,
        "device": "cpu",
        "model": MODEL,
    }
    return complete(TrainSettings, "train", values, changes)


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(moment: int) -> None:
    """Arrange for SIGKILL at the n-th write or end of a step, counted together."""
    count = 0

    def tick() -> None:
        nonlocal count
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    advance = Training._advance

    def fsync(file: Any) -> None:
        tick()

    def slow(self: Training, batch: Any) -> Any:
        losses = advance(self, batch)
        tick()
        return losses

    os.fsync = fsync
    Training._advance = slow  # type: ignore[method-assign]


def kept(out: Path) -> list[Any]:
    """What must not depend on when a run was killed: weights, and both tables but for the speed."""
    curves = [row.rpartition(",")[0] for row in (out / "curves.csv").read_text("utf-8").split()]
    return [(out / "model.safetensors").read_bytes(), (out / "held_out.csv").read_bytes(), curves]


def main(data: str, folder: Path) -> None:
    """Kill and resume until a run is no longer killed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    told = os.dup(1)
    os.dup2(null, 1)
    # Pictures are the slowest part of so short a run, and the last.
    nothing: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    command.save_chart = command.training_curves = command.write_index = nothing
    command.run(settings(data, folder / "whole"))
    wanted = kept(folder / "whole")
    found: list[dict[str, Any]] = []
    while True:
        moment = len(found)
        out = folder / f"killed{moment}"

        def killed(moment: int = moment, out: Path = out) -> None:
            die_at(moment)
            command.run(settings(data, out))

        def resumed(out: Path = out) -> None:
            command.run(settings(data, out, resume=(out / SETTINGS).exists()))

        status = in_child(killed)
        if status == 0:
            break
        begun = (out / SETTINGS).exists()
        states = sorted((out / "checkpoints").glob("step-*.safetensors"))
        again = in_child(resumed)
        same = kept(out) == wanted
        found.append(
            {"status": status, "begun": begun, "states": len(states), "again": again, "same": same}
        )
    os.write(told, json.dumps(found).encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
