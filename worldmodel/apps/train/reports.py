"""What a run shows while it goes: a bar, curves.csv, TensorBoard, Weights & Biases, the alarm."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from sigreg import SIGReg, noise_floor, report
from worldmodel._files import write_atomically
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.train.alarm import Alarm
from worldmodel.apps.train.loop import Training
from worldmodel.records import Losses

__all__ = ["COLUMNS", "HELD_OUT", "Reports", "floor_of", "need_wandb", "read_table"]

COLUMNS = (
    "step",
    "prediction",
    "regularization",
    "excess",
    "effective_rank",
    "embedding_std",
    "gradient_norm",
    "learning_rate",
    "windows_per_second",
)
HELD_OUT = ("step", "prediction", "regularization")
_DIRECTIONS = 64  # of the read-outs; enough for a verdict, and quick


def floor_of(training: Training[Any]) -> float | None:
    """What the regularizer scores on Gaussian embeddings, if it is SIGReg with its factor N."""
    layer = training.regularizer
    if isinstance(layer, SIGReg) and layer.scale_by_n:
        return noise_floor(layer.quadrature)
    return None


class Reports:
    """Averages the losses and tells about them every `every` steps.

    The read-outs (effective rank, spread, alarm) look at the last batch of a stretch alone, on rank
    0 at its own part; they draw nothing from the global random stream.

    Args:
        training: whose steps these are.
        folder: of the run.
        every: steps between two rows.
        wandb: a run of Weights & Biases, or None.
    """

    def __init__(
        self, training: Training[Any], folder: Path, every: int, wandb: Any = None
    ) -> None:
        self.training, self.every = training, every
        self.writes = training.ranks.rank == 0
        self.floor = floor_of(training)
        # The alarm knows SIGReg's target; another regularizer may mean another spread.
        self.alarm = None if self.floor is None else Alarm(training.config)
        self.alarms = 0
        self.sums, self.count, self.since = torch.zeros(2), 0, time.monotonic()
        self.shown: dict[str, float] = {}
        self.wandb, self.bar = wandb, None
        self.events: Any = None
        self.paths = folder / "curves.csv", folder / "held_out.csv"
        if self.writes:
            folder.mkdir(parents=True, exist_ok=True)
            for path, header in zip(self.paths, (COLUMNS, HELD_OUT), strict=True):
                _begin(path, header, training.step)
            self.events = _event_writer(folder / "tensorboard")
            self.bar = Progress("train", training.config.steps, start=training.step)

    def __enter__(self) -> Reports:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.__exit__(kind, error, trace)
        if self.events is not None:
            self.events.close()
        if self.wandb is not None:
            self.wandb.finish(exit_code=0 if kind is None else 1)

    def step(self, step: int, losses: Losses) -> None:
        """Take note of a step; every rank must call it."""
        self.sums = self.sums.to(losses.prediction.device)
        self.sums += torch.stack([losses.prediction.float(), losses.regularization.float()])
        self.count += 1
        if step % self.every == 0 or step == self.training.config.steps:
            self._row(step, losses)
        if self.bar is not None:
            self.bar.update(1, **self.shown)

    def held_out(self, step: int, scores: tuple[float, float]) -> None:
        """Take note of the losses on held-out episodes."""
        if self.writes:
            _append(self.paths[1], [step, *(f"{score:.6g}" for score in scores)])
            names = ("held_out/prediction", "held_out/regularization")
            self._log(step, dict(zip(names, scores, strict=True)))

    def _row(self, step: int, losses: Losses) -> None:
        prediction, regularization = self.training.ranks.mean(self.sums / self.count).tolist()
        seconds = max(time.monotonic() - self.since, 1e-9)
        rate = self.count * self.training.config.batch_size / seconds
        self.sums, self.count, self.since = torch.zeros(2), 0, time.monotonic()
        if not self.writes:
            return
        found = report(losses.embeddings.float().transpose(0, 1), num_proj=_DIRECTIONS)
        values: dict[str, float] = {"prediction": prediction, "regularization": regularization}
        if self.floor is not None:
            values["excess"] = regularization - self.floor
        values |= {
            "effective_rank": found.effective_rank,
            "embedding_std": found.scale,
            "gradient_norm": self.training.gradient_norm,
            "learning_rate": self.training.config.rate(step - 1),
            "windows_per_second": rate,
        }
        cells = [f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[1:]]
        _append(self.paths[0], [step, *cells])
        self._log(step, {f"train/{name}": value for name, value in values.items()})
        self.shown = {"prediction": prediction}
        self.shown |= {"excess": values["excess"]} if "excess" in values else {}
        self.shown |= {"rank": found.effective_rank}
        if self.alarm is not None and (told := self.alarm.look(step, found)) is not None:
            self.alarms += self.alarm.raised
            say(told)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
            # What a kill leaves is what the CSV files hold.
            self.events.flush()
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)


def _event_writer(folder: Path) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder))


def need_wandb() -> Any:
    """The module of Weights & Biases.

    Raises: ImportError if it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("wandb=true needs Weights & Biases: pip install wandb") from error
    return wandb


def read_table(path: Path) -> dict[str, list[float]]:
    """Columns of a CSV file this module wrote; an empty cell is NaN."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    return {
        name: [float(row[i]) if row[i] else float("nan") for row in rows[1:]]
        for i, name in enumerate(rows[0])
    }


def _begin(path: Path, header: Sequence[str], step: int) -> None:
    """Keep the whole rows up to `step`, or begin the table."""
    kept: list[str] = []
    if path.exists():
        rows = path.read_text().splitlines(keepends=True)[1:]
        # A killed writer may have left half a line.
        whole = [row for row in rows if row.endswith("\n") and row.count(",") == len(header) - 1]
        kept = [row for row in whole if int(row.split(",")[0]) <= step]
    write_atomically(path, (",".join(header) + "\n" + "".join(kept)).encode())


def _append(path: Path, cells: Sequence[object]) -> None:
    with path.open("a") as file:
        file.write(",".join(map(str, cells)) + "\n")
