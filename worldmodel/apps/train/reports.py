"""Reports of a running training: bar, curves.csv, TensorBoard, Weights & Biases, alarm."""

import csv
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigreg import EmbeddingReport, SIGReg, embedding_report, noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps.folder import write_json
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import render
from worldmodel.apps.settings import Recipe, TrainSettings
from worldmodel.apps.train.loop import Training, learning_rate
from worldmodel.loss import ComposedTerms
from worldmodel.records import Losses

COLUMNS = ("step", "prediction", "regularization", "excess", "effective_rank", "embedding_std",
           "gradient_norm", "learning_rate", "windows_per_second")  # fmt: skip
_CELL = r"(-?\d+(\.\d+)?(e[-+]\d+)?|-?(nan|inf))?"
_DIRECTIONS = 64  # of the read-outs: few, to be quick
# Thresholds of a collapse.
_POINT = 0.1  # standard deviation of a coordinate; SIGReg's target is 1
_RANK = 2.0  # effective rank; a world of two coordinates fills few directions without collapse
_EXCESS = 0.5  # SIGReg's excess, as a fraction of that of a single point


class Alarm:
    """Watches the read-outs of a run and reports each collapse once; `count` counts them.

    In a collapse all embeddings are near one point or one line, or the statistic is half of a
    single point's. Three read-outs in a row must show it, after the warm-up, a tenth of the run and
    50 steps, because fresh weights may show it too. The message names weight and learning rate.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.seen, self.count, self.raised = recipe, 0, 0, False

    def look(self, step: int, found: EmbeddingReport) -> str | None:
        """The message about a read-out; None if there is nothing new."""
        signs, recipe = [], self.recipe
        if step <= max(50, max(recipe.warmup, 0.1) * (recipe.steps or 0)):
            return None
        if found.scale < _POINT:
            signs.append("all embeddings lie near one point")
        elif found.effective_rank < _RANK:
            signs.append(f"embeddings fill {found.effective_rank:.1f} of {found.dim} directions")
        if found.collapse > _EXCESS:
            signs.append(f"SIGReg's excess is {found.collapse:.0%} of a single point's")
        self.seen = self.seen + 1 if signs else 0
        if self.raised and not signs:
            self.raised = False
        elif self.raised or self.seen < 3:
            return None
        else:
            self.raised, self.count = True, self.count + 1
        return render("alarm.txt", step=step, signs=signs, found=found, recipe=recipe)


class Scores(NamedTuple):
    """The two losses on held-out episodes."""

    prediction: float
    regularization: float


class Reports:
    """Averages the losses and reports them every `every` steps; None makes 200 rows.

    The read-outs (effective rank, spread, alarm) use rank 0's part of the last batch before a row,
    and do not use the global random stream. `scores` are the held-out losses at this step, or None.
    `state` is the result of an earlier `state()` at this step.
    """

    def __init__(
        self, training: Training, folder: Path, every: int | None = None,
        state: Mapping[str, Tensor] | None = None, wandb: Any = None,
    ) -> None:  # fmt: skip
        self.training, self.every = training, every or max(training.steps // 200, 1)
        self.wandb, self.writes, layer = wandb, training.ranks.first, training.regularizer
        self.columns: tuple[str, ...] = COLUMNS
        if isinstance(layer, ComposedTerms):
            self.columns += tuple(name for name, weight in layer.weights.items() if weight > 0)
            layer = layer.regularizer
        # The score of Gaussian embeddings, if the regularizer is SIGReg with its factor N.
        sigreg = layer if isinstance(layer, SIGReg) and layer.scale_by_n else None
        self.floor = None if sigreg is None else noise_floor(sigreg.quadrature)
        # The alarm assumes SIGReg's target; another regularizer may have another spread.
        self.alarm = None if self.floor is None else Alarm(training.recipe)
        self.began, self.seconds, self.shown = time.monotonic(), 0.0, dict[str, float]()
        self.since = self.began, training.step
        known = state or {"sums": torch.zeros(2), "counts": torch.zeros(4, dtype=torch.int64)}
        self.sums, (told, seen, count, raised) = known["sums"], known["counts"].tolist()
        self.first = training.step - told  # step at which the row begins
        if self.alarm is not None:
            self.alarm.seen, self.alarm.count, self.alarm.raised = seen, count, bool(raised)
        self.scores: Scores | None = None
        self.bar = Progress("train", training.steps, start=training.step, quiet=not self.writes)
        self.paths = folder / "curves.csv", folder / "held_out.csv"
        self.events: Any = None
        if not self.writes:
            return
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        _begin(self.paths[0], self.columns, training.step)
        _begin(self.paths[1], ("step", *Scores._fields), training.step)
        told = read_table(self.paths[1])
        if told["step"][-1:] == [training.step]:
            self.scores = Scores(told["prediction"][-1], told["regularization"][-1])
        # Purge later steps of a killed writer; the suffix keeps file names different.
        self.events = SummaryWriter(
            str(folder / "tensorboard"), purge_step=training.step + 1 if training.step else None,
            filename_suffix=f".{training.step}",
        )  # fmt: skip

    def __enter__(self) -> "Reports":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.seconds = round(time.monotonic() - self.began, 2)
        self.bar.__exit__()
        if self.events is not None:
            self.events.close()
        if self.wandb is not None:
            self.wandb.finish(exit_code=int(kind is not None))

    def state(self) -> dict[str, Tensor]:
        """Sums of the unfinished row and state of the alarm; every rank must call it."""
        alarm = self.alarm
        told = [0, 0, 0] if alarm is None else [alarm.seen, alarm.count, alarm.raised]
        sums = self.training.ranks.mean(self.sums).cpu()
        return {"sums": sums, "counts": torch.tensor([self.training.step - self.first, *told])}

    def step(self, losses: Losses) -> None:
        """Add the losses of a step; every rank must call it.

        Raises: NonFiniteError at the end of a row, as `Training.settle`.
        """
        self.sums = self.sums.to(losses.prediction.device)
        new = torch.stack([losses.prediction.float(), losses.regularization.float()])
        # A step that the optimizer skips does not count.
        self.sums += new.masked_fill(self.training.bad, 0)
        self.scores, step = None, self.training.step
        if step % self.every == 0 or step == self.training.steps:
            self.training.settle()
            self._row(step, losses)
        self.bar.update(1, **self.shown)

    def held_out(self, scores: Scores) -> None:
        """Record the losses on held-out episodes."""
        self.scores = scores
        if self.writes:
            self._tell("held_out", scores._asdict(), Scores._fields)

    def _row(self, step: int, losses: Losses) -> None:
        recipe, (began, first), now = self.training.recipe, self.since, time.monotonic()
        steps = step - self.first
        prediction, regularization = self.training.ranks.mean(self.sums / steps).tolist()
        # After a resume, the rate counts the steps of this process only.
        rate = (step - first) * recipe.batch_size / max(now - began, 1e-9)
        self.sums, self.first, self.since = torch.zeros(2), step, (now, step)
        if not self.writes:
            return
        found = embedding_report(losses.embeddings.float().transpose(0, 1), num_proj=_DIRECTIONS)
        excess = {} if self.floor is None else {"excess": regularization - self.floor}
        values: dict[str, float] = {
            "prediction": prediction, "regularization": regularization, **excess,
            "effective_rank": found.effective_rank, "embedding_std": found.scale,
            "gradient_norm": self.training.gradient_norm,
            "learning_rate": learning_rate(recipe, step - 1), "windows_per_second": rate,
        }  # fmt: skip
        # Further terms are those of the last batch.
        values |= {name: float(value) for name, value in losses.terms.items()}
        self._tell("train", values, self.columns[1:])
        self.shown = {"prediction": prediction, **excess, "rank": found.effective_rank}
        if self.alarm is not None and (told := self.alarm.look(step, found)) is not None:
            say(told)

    def _tell(self, group: str, values: Mapping[str, float], columns: Sequence[str]) -> None:
        path, step = self.paths[group == "held_out"], self.training.step
        cells = [f"{values[name]:.6g}" if name in values else "" for name in columns]
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(",".join([str(step), *cells]) + "\n")
        named = {f"{group}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self.events.add_scalar(name, value, step)
        # After a kill, the events equal the CSV files.
        self.events.flush()
        if self.wandb is not None:
            self.wandb.log(named, step=step)


def begin_wandb(settings: TrainSettings) -> Any:
    """Begin a run of Weights & Biases if asked for; `wandb.json` keeps its id for --resume."""
    if not settings.wandb:
        return None
    path, values = settings.out / "wandb.json", settings.model_dump(mode="json")
    if not path.is_file():
        write_json({"id": secrets.token_hex(4)}, path)
    return need_wandb().init(
        project="worldmodel", name=settings.out.name, dir=str(settings.out), config=values,
        resume="allow", id=json.loads(path.read_text(encoding="utf-8"))["id"],
    )  # fmt: skip


def need_wandb() -> Any:
    """The module of Weights & Biases; ImportError if it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError("wandb=true needs Weights & Biases: pip install wandb") from error
    return wandb


def read_table(path: Path) -> dict[str, list[float]]:
    """Columns of a CSV file this module wrote; an empty cell is NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return {n: [float(row[i] or "nan") for row in rows] for i, n in enumerate(header)}


def _begin(path: Path, header: Sequence[str], step: int) -> None:
    """Keep the complete rows up to `step`, or begin the table."""
    told = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    old = told.splitlines(keepends=True)[1:]
    # A killed writer may have left half a line, and other programs anything.
    row_of_ours = re.compile(rf"\d+(,{_CELL}){{{len(header) - 1}}}\n", re.ASCII)
    whole = [row for row in old if row_of_ours.fullmatch(row)]
    kept = [row for row in whole if int(row.split(",")[0]) <= step]
    write_atomically(path, (",".join(header) + "\n" + "".join(kept)).encode())
