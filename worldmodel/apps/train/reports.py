"""What a run shows while it goes: a bar, curves.csv, TensorBoard, Weights & Biases, the alarm."""

from __future__ import annotations

import csv
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigreg import SIGReg, noise_floor, report
from worldmodel._files import write_atomically
from worldmodel.apps.folder import write_json
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train.alarm import Alarm
from worldmodel.apps.train.loop import Training, learning_rate
from worldmodel.records import Losses

__all__ = ["COLUMNS", "HELD_OUT", "Reports", "Scores", "begin_wandb", "floor_of", "need_wandb",
           "read_table"]  # fmt: skip

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


class Scores(NamedTuple):
    """Both losses on held-out episodes."""

    prediction: float
    regularization: float


def floor_of(training: Training[Any]) -> float | None:
    """What the regularizer scores on Gaussian embeddings, if it is SIGReg with its factor N."""
    layer = training.regularizer
    if isinstance(layer, SIGReg) and layer.scale_by_n:
        return noise_floor(layer.quadrature(torch.empty(0, dtype=torch.float64)))
    return None


class Reports:
    """Averages the losses and tells about them every `every` steps.

    The read-outs (effective rank, spread, alarm) look at the last batch of a stretch alone, on rank
    0 at its own part; they draw nothing from the global random stream.

    Args:
        training: whose steps these are, at the step where they begin.
        folder: of the run.
        every: steps between two rows; None makes 200 rows.
        state: what an earlier `state` returned, at this step.
        wandb: a run of Weights & Biases, or None.

    Attributes:
        scores: on held-out episodes at the present step, or None.
    """

    def __init__(
        self,
        training: Training[Any],
        folder: Path,
        every: int | None = None,
        state: Mapping[str, Tensor] | None = None,
        wandb: Any = None,
    ) -> None:
        self.training, self.every = training, every or max(training.steps // 200, 1)
        self.writes = training.ranks.first
        self.floor = floor_of(training)
        # The alarm knows SIGReg's target; another regularizer may mean another spread.
        self.alarm = None if self.floor is None else Alarm(training.recipe)
        self.sums, self.count, self.since = torch.zeros(2), 0, time.monotonic()
        self._resume(state or {})
        self.shown: dict[str, float] = {}
        self.scores: Scores | None = None
        self.wandb, self.bar = wandb, None
        self.events: Any = None
        self.paths = folder / "curves.csv", folder / "held_out.csv"
        if self.writes:
            folder.mkdir(parents=True, exist_ok=True)
            for path, header in zip(self.paths, (COLUMNS, HELD_OUT), strict=True):
                _begin(path, header, training.step)
            told = read_table(self.paths[1])
            if told["step"][-1:] == [training.step]:
                self.scores = Scores(told["prediction"][-1], told["regularization"][-1])
            self.events = _event_writer(folder / "tensorboard", training.step)
            self.bar = Progress("train", training.steps, start=training.step)

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

    def state(self) -> dict[str, Tensor]:
        """What is known of the row that is not full yet, and of the alarm; every rank calls it."""
        alarm = self.alarm
        told = (alarm.seen, alarm.count, int(alarm.raised)) if alarm is not None else (0, 0, 0)
        sums = self.training.ranks.mean(self.sums).cpu()
        return {"sums": sums, "counts": torch.tensor([self.count, *told])}

    def _resume(self, state: Mapping[str, Tensor]) -> None:
        if "sums" in state:
            self.sums = state["sums"]
            self.count, seen, count, raised = state["counts"].tolist()
            if self.alarm is not None:
                self.alarm.seen, self.alarm.count, self.alarm.raised = seen, count, bool(raised)

    def step(self, losses: Losses) -> None:
        """Take note of a step; every rank must call it."""
        self.sums = self.sums.to(losses.prediction.device)
        self.sums += torch.stack([losses.prediction.float(), losses.regularization.float()])
        self.count += 1
        self.scores = None
        step = self.training.step
        if step % self.every == 0 or step == self.training.steps:
            self._row(step, losses)
        if self.bar is not None:
            self.bar.update(1, **self.shown)

    def held_out(self, scores: Scores) -> None:
        """Take note of the losses on held-out episodes."""
        self.scores = scores
        if self.writes:
            step = self.training.step
            _append(self.paths[1], [step, *(f"{score:.6g}" for score in scores)])
            names = ("held_out/prediction", "held_out/regularization")
            self._log(step, dict(zip(names, scores, strict=True)))

    def _row(self, step: int, losses: Losses) -> None:
        recipe = self.training.recipe
        prediction, regularization = self.training.ranks.mean(self.sums / self.count).tolist()
        seconds = max(time.monotonic() - self.since, 1e-9)
        rate = self.count * recipe.batch_size / seconds
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
            "learning_rate": learning_rate(recipe, step - 1),
            "windows_per_second": rate,
        }
        cells = [f"{values[name]:.6g}" if name in values else "" for name in COLUMNS[1:]]
        _append(self.paths[0], [step, *cells])
        self._log(step, {f"train/{name}": value for name, value in values.items()})
        self.shown = {"prediction": prediction}
        self.shown |= {"excess": values["excess"]} if "excess" in values else {}
        self.shown |= {"rank": found.effective_rank}
        if self.alarm is not None and (told := self.alarm.look(step, found)) is not None:
            say(told)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
            # What a kill leaves is what the CSV files hold.
            self.events.flush()
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)


def _event_writer(folder: Path, step: int) -> Any:
    from tensorboardX import SummaryWriter

    # What a killed writer told behind the state we continue from is no longer true.
    purge = step + 1 if step else None
    # Files are named after the second.
    return SummaryWriter(str(folder), purge_step=purge, filename_suffix=f".{step}")


def begin_wandb(settings: TrainSettings) -> Any:
    """A run of Weights & Biases, or None where none is wanted; a resumed run continues its own.

    Its id lies in `wandb.json` of the run folder.
    """
    if not settings.wandb:
        return None
    path = settings.out / "wandb.json"
    if not path.is_file():
        write_json({"id": secrets.token_hex(4)}, path)
    return need_wandb().init(
        project="worldmodel",
        name=settings.out.name,
        dir=str(settings.out),
        config=settings.model_dump(mode="json"),
        id=json.loads(path.read_text(encoding="utf-8"))["id"],
        resume="allow",
    )


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
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return {
        name: [float(row[i]) if row[i] else float("nan") for row in rows[1:]]
        for i, name in enumerate(rows[0])
    }


def _begin(path: Path, header: Sequence[str], step: int) -> None:
    """Keep the whole rows up to `step`, or begin the table."""
    kept: list[str] = []
    if path.exists():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
        # A killed writer may have left half a line.
        whole = [row for row in rows if row.endswith("\n") and row.count(",") == len(header) - 1]
        kept = [row for row in whole if int(row.split(",")[0]) <= step]
    write_atomically(path, (",".join(header) + "\n" + "".join(kept)).encode())


def _append(path: Path, cells: Sequence[object]) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(",".join(map(str, cells)) + "\n")
