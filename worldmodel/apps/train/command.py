"""`worldmodel train`: settings in, a run folder out, whatever happens on the way."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldmodel.apps._interrupt import whole_steps
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.progress import say
from worldmodel.apps.provenance import commit, machine, versions
from worldmodel.apps.ranks import Ranks, joined
from worldmodel.apps.report import save_chart, training_curves, write_index
from worldmodel.apps.report.pages import number
from worldmodel.apps.runs import EPISODES, save_run
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train.checkpoints import Checkpoints
from worldmodel.apps.train.continuing import REPORT, SETTINGS, check_episodes, continued
from worldmodel.apps.train.loop import NonFiniteError, Training
from worldmodel.apps.train.material import TrainMaterial, open_material
from worldmodel.apps.train.models import begin_training, gathered
from worldmodel.apps.train.reports import Reports, Scores, begin_wandb, need_wandb, read_table
from worldmodel.data import BatchOrder, Windows

__all__ = ["CHECKPOINTS", "Job", "TrainReport", "begin", "run", "score", "train"]

CHECKPOINTS = "checkpoints"


class Job(NamedTuple):
    """A run that is ready for its next step.

    Attributes:
        settings: everything decided, steps and precision too.
        material: what it learns from.
        training: the model on its way.
        state: of the reports, where the run was interrupted; None at its start.
    """

    settings: TrainSettings
    material: TrainMaterial
    training: Training[Any]
    state: Mapping[str, Tensor] | None


class TrainReport(NamedTuple):
    """What `report.json` holds; a figure that is not finite is None."""

    steps: int
    held_out_prediction: float | None
    held_out_regularization: float | None
    floor: float | None
    collapse_alarms: int
    processes: int
    wall_seconds: float
    versions: dict[str, str]
    git_commit: str | None
    machine: str


def run(settings: TrainSettings) -> int:
    """Train to the end and leave a run folder that `open_run` reads."""
    out = settings.out
    with joined(settings.device) as ranks, ExitStack() as held:
        with ranks.together():
            if settings.wandb:
                need_wandb()
            settings = continued(settings)
        with ranks.together():
            if ranks.first:
                held.enter_context(
                    begin_folder(out, SETTINGS, resume=settings.resume, worth=CHECKPOINTS)
                )
            job = begin(settings, open_material(settings), ranks)
        try:
            report = train(job)
        except KeyboardInterrupt:
            again = f"worldmodel train --resume --out {shlex.quote(str(out))}"
            kept = (out / CHECKPOINTS).exists()
            if ranks.first:
                say(f"\ninterrupted; {f'continue with: {again}' if kept else 'nothing was kept'}")
            raise
        if report is None:
            return 0
        tables = (read_table(out / name) for name in ("curves.csv", "held_out.csv"))
        curves = training_curves(*tables, floor=report.floor, objective=settings.objective)
        save_chart(curves, out / "curves.png")
        write_json(report._asdict(), out / REPORT)
        write_index(out)
        say(f"{out}: model.safetensors, config.json, {REPORT}, curves.png, index.html")
        say(f"held-out prediction loss {number(report.held_out_prediction)}")
    return 0


def begin(settings: TrainSettings, material: TrainMaterial, ranks: Ranks) -> Job:
    """Build the model, find where it stopped, and write what is decided before the first step.

    Raises: ValueError if model, data and settings do not fit; DamagedStateError; OSError.
    """
    out, checkpoints = settings.out, Checkpoints(settings.out / CHECKPOINTS)
    resumes = settings.resume and bool(checkpoints.paths())
    settings, training = begin_training(settings, material, ranks, fresh=not resumes)
    if settings.resume:
        check_episodes(material, out)
    state = checkpoints.restore(training) if resumes else None
    if ranks.first:
        # The report first: a run that is being extended is no longer finished.
        (out / REPORT).unlink(missing_ok=True)
        write_json(settings.model_dump(mode="json"), out / SETTINGS)
        names = {"train": material.trained_on, "held_out": material.kept_apart}
        write_json(names, out / EPISODES)
        _introduce(settings, material, training)
    return Job(settings, material, training, state)


def train(job: Job) -> TrainReport | None:
    """Every step that is left, with checkpoints and tables.

    Returns: the report on rank 0, None on others.
    Raises: NonFiniteError or KeyboardInterrupt after the last good state was kept; OSError.
    """
    settings, training, out = job.settings, job.training, job.settings.out
    began, held_out = time.monotonic(), job.material.held_out
    log = begin_wandb(settings) if training.ranks.first else None
    with (
        whole_steps() as release,
        Reports(training, out, settings.report_every, job.state, log) as reports,
        closing(training.run()) as steps,
    ):
        try:
            if _due(job) and _unscored(reports, training.ranks):
                # Killed between the checkpoint and what comes behind it.
                _keep(job, reports)
                reports.held_out(score(training, held_out, settings.held_out_windows))
            for losses in steps:
                reports.step(losses)
                if _due(job):
                    _keep(job, reports)
                    reports.held_out(score(training, held_out, settings.held_out_windows))
                release()
        except (KeyboardInterrupt, NonFiniteError):
            # Interrupted ranks stop at different steps: only a lone process keeps its state.
            if training.ranks.size == 1:
                _keep(job, reports)
            raise
    seconds = round(time.monotonic() - began, 2)
    return _report(training, reports, seconds) if training.ranks.first else None


def score(training: Training[Any], windows: Windows, count: int) -> Scores:
    """Mean prediction loss and regularizer over the first `count` windows, in evaluation mode.

    Batches are as large as in training where there are enough windows, since SIGReg grows with the
    batch. Neither the random state nor the regularizer's step moves, and an objective that draws
    draws the same every time. Every rank must call it.
    """
    ranks, modules = training.ranks, (training.model, training.regularizer)
    size = min(training.recipe.batch_size, len(windows)) // ranks.size * ranks.size
    order = BatchOrder(len(windows), size, seed=0, rank=ranks.rank, ranks=ranks.size)
    sums, num = torch.zeros(2), max(min(count, len(windows)) // size, 1)
    for module in modules:
        module.eval()
    try:
        devices = [training.device] if training.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            for step in range(num):
                losses = training.losses(windows.batch(order.batch(step)))
                sums += torch.stack([losses.prediction, losses.regularization]).float().cpu()
    finally:
        for module in modules:
            module.train()
    return Scores(*ranks.mean(sums / num).tolist())


def _due(job: Job) -> bool:
    """Whether a checkpoint belongs to the present step."""
    step, every = job.training.step, job.settings.checkpoint_every
    return step > 0 and (step % every == 0 or step == job.training.steps)


def _unscored(reports: Reports, ranks: Ranks) -> bool:
    """Whether the table of rank 0 lacks the present step."""
    return not ranks.gather("scored" if reports.scores else "")[0]


def _keep(job: Job, reports: Reports) -> None:
    """The checkpoint first, then the model that others read; every rank must call it."""
    settings, material, training = job.settings, job.material, job.training
    Checkpoints(settings.out / CHECKPOINTS).write(training, reports.state())
    model = gathered(settings, material, training) if training.sharded else training.model
    if training.ranks.first:
        save_run(
            model, settings.out, scale=material.scale, frameskip=settings.frameskip,
            world=settings.world, objective=settings.objective,
            data=settings.data if Path(settings.data).is_absolute() else None,
            trained_on=material.trained_on, held_out=material.kept_apart,
            settings=settings.model_dump(mode="json") | {"step": training.step},
        )  # fmt: skip


def _introduce(settings: TrainSettings, material: TrainMaterial, training: Training[Any]) -> None:
    weights = sum(p.numel() for p in training.model.parameters())
    processes = "" if training.ranks.size == 1 else f" on {training.ranks.size} processes"
    say(
        f"{settings.data}: {len(material.trained_on)} episodes to train on with "
        f"{len(material.train):,} windows, {len(material.kept_apart)} held out\n"
        f"{settings.preset}: {weights:,} weights, {settings.steps} steps of "
        f"{settings.batch_size} windows{processes}, {settings.precision}, {training.ranks.device}"
    )
    if settings.resume:
        stand = f"resumed at step {training.step} of {training.steps}"
        say(stand if training.step else "no checkpoint was reached before: from the start")


def _report(training: Training[Any], reports: Reports, seconds: float) -> TrainReport:
    assert reports.scores is not None
    figures = [float(f"{x:.6g}") if math.isfinite(x) else None for x in reports.scores]
    return TrainReport(
        steps=training.step, held_out_prediction=figures[0], held_out_regularization=figures[1],
        floor=None if reports.floor is None else round(reports.floor, 4),
        collapse_alarms=0 if reports.alarm is None else reports.alarm.count,
        processes=training.ranks.size, wall_seconds=seconds, versions=versions(),
        git_commit=commit(), machine=machine(str(training.device)),
    )  # fmt: skip
