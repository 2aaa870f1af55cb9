"""One training run: a data set and settings in, a run folder out, whatever happens on the way."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from worldmodel._files import write_atomically
from worldmodel.apps.progress import say
from worldmodel.apps.provenance import commit, machine, versions
from worldmodel.apps.report import save_chart, training_curves, write_index
from worldmodel.apps.runs import save_run
from worldmodel.apps.train.folder import REPORT, begin, check_data, check_folder
from worldmodel.apps.train.loop import NonFiniteError, Training
from worldmodel.apps.train.material import TrainMaterial, open_material, world_of
from worldmodel.apps.train.objectives import OBJECTIVES
from worldmodel.apps.train.ranks import Ranks, launch, synchronise, whole
from worldmodel.apps.train.reports import Reports, floor_of, need_wandb, read_table
from worldmodel.apps.train.settings import TrainSettings, device_of, precision_of
from worldmodel.apps.train.state import Checkpoints
from worldmodel.data import BatchOrder, Windows
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel

__all__ = ["run_train", "score"]

_PASSES = 10  # over the data where no steps are given, as published


def run_train(settings: TrainSettings, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train to the end and leave a run folder that `open_run` reads.

    The folder holds `train.json` (settings, from the start), `checkpoints/`, `curves.csv`,
    `held_out.csv` and `tensorboard/` as they grow, the model of the newest checkpoint
    (`model.safetensors`, `config.json`, `episodes.json`), and at the end `curves.png` and
    `report.json`.

    Args:
        settings: TrainSettings; a continued run may differ in `FREE` alone.
        out: the run folder; must not exist, unless `resume`.
        resume: go on from the newest whole checkpoint, or begin anew if none was reached.
    Returns: the report.
    Raises: FileExistsError, FileNotFoundError, ValueError, ImportError, OSError; NonFiniteError
        after the last good state was written; KeyboardInterrupt is passed on after that.
    """
    if settings.objective not in OBJECTIVES:
        raise ValueError(
            f"objective must be one of {', '.join(OBJECTIVES)}, got {settings.objective!r}"
        )
    if settings.wandb:
        need_wandb()
    settings = replace(settings, world=settings.world or world_of(settings.data))
    ranks = launch(device_of(settings.device), sharded=settings.sharded)
    first = ranks.rank == 0
    if first:
        check_folder(settings, out, resume=resume)
    material = open_material(settings)
    training = _build(settings, material, ranks)
    whole = replace(settings, steps=training.config.steps, precision=training.config.precision)
    every = settings.report_every or max(training.config.steps // 200, 1)
    if first:
        check_data(material, out)
        begin(whole, material, out, resume=resume)
    ranks.wait()
    checkpoints = Checkpoints(out / "checkpoints")
    if resume:
        _go_on(training, checkpoints, quiet=not first)
    if first:
        for line in _introduction(whole, material, training):
            say(line)
    log = None
    if settings.wandb and first:
        log = need_wandb().init(
            project="worldmodel", name=out.name, dir=str(out), config=whole.to_json()
        )
    began = time.monotonic()
    keep = _Keep(whole, material, training, checkpoints, out)
    with Reports(training, out, every, log) as reports:
        scores = _loop(training, material, reports, keep, settings)
    if not first:
        return {}
    picture = draw_curves(out, floor_of(training), settings.objective)
    report = _report(training, scores, reports, time.monotonic() - began)
    write_atomically(out / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    write_index(out)
    say(f"{out}: model.safetensors, config.json, {REPORT}, {picture.name}; look at index.html")
    return report


def draw_curves(folder: Path, floor: float | None, objective: str) -> Path:
    """Draw `curves.png` of a run folder's tables.

    Returns: its path.
    Raises: ValueError if there is no row to draw.
    """
    train, held_out = read_table(folder / "curves.csv"), read_table(folder / "held_out.csv")
    path = folder / "curves.png"
    save_chart(training_curves(train, held_out, floor=floor, objective=objective), path)
    return path


def score(training: Training[Any], windows: Windows, count: int) -> tuple[float, float]:
    """Mean prediction loss and regularizer over the first `count` windows, in evaluation mode.

    Batches are as large as in training where there are enough windows, since SIGReg grows with the
    batch. Neither the random state nor the regularizer's step moves, and an objective that draws
    draws the same every time. Every rank must call it.
    """
    ranks = training.ranks
    size = min(training.config.batch_size, len(windows)) // ranks.size * ranks.size
    order = BatchOrder(len(windows), size, seed=0, rank=ranks.rank, ranks=ranks.size)
    modules = (training.model, training.regularizer)
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
    prediction, regularization = ranks.mean(sums / num).tolist()
    return prediction, regularization


class _Keep(NamedTuple):
    """Everything that is written when a state is kept."""

    settings: TrainSettings
    material: TrainMaterial
    training: Training[Any]
    checkpoints: Checkpoints
    out: Path

    def __call__(self) -> None:
        """The checkpoint first, then the model that others read."""
        material, settings, training = self.material, self.settings, self.training
        self.checkpoints.write(training)
        model = _gathered(settings, material, training) if training.ranks.sharded else None
        if training.ranks.rank:
            return
        save_run(
            model or training.model,
            self.out,
            scale=material.scale,
            frameskip=settings.frameskip,
            world=settings.world,
            objective=settings.objective,
            data=str(Path(settings.data).resolve()) if Path(settings.data).exists() else None,
            trained_on=material.trained_on,
            held_out=material.kept_apart,
            settings=settings.to_json() | {"step": self.training.step},
        )


def _loop(
    training: Training[Any],
    material: TrainMaterial,
    reports: Reports,
    keep: _Keep,
    settings: TrainSettings,
) -> tuple[float, float]:
    scores = (math.nan, math.nan)

    def on_step(step: int, losses: Any) -> None:
        nonlocal scores
        reports.step(step, losses)
        if step % settings.checkpoint_every == 0 or step == training.config.steps:
            keep()
            scores = score(training, material.held_out, settings.held_out_windows)
            reports.held_out(step, scores)

    if training.step == training.config.steps:
        # Killed between the last checkpoint and the report.
        keep()
        scores = score(training, material.held_out, settings.held_out_windows)
        reports.held_out(training.step, scores)
        return scores
    try:
        training.run(on_step)
    except (KeyboardInterrupt, NonFiniteError):
        # Ranks stop at different steps when interrupted, so only a lone process keeps its state.
        if training.ranks.size == 1:
            keep()
        raise
    return scores


def _model(settings: TrainSettings, material: TrainMaterial) -> WorldModel | GCBC:
    return OBJECTIVES[settings.objective].build(
        settings.preset,
        material.episodes.actions.shape[1] * settings.frameskip,
        material.episodes.frames.shape[-1],
        settings.num_frames,
        settings.model,
    )


def _gathered(
    settings: TrainSettings, material: TrainMaterial, training: Training[Any]
) -> WorldModel | GCBC:
    """A model of whole weights; every rank must call it."""
    state = {name: whole(value) for name, value in training.model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        model = _model(settings, material)
    model.load_state_dict(state)
    return model


def _build(settings: TrainSettings, material: TrainMaterial, ranks: Ranks) -> Training[Any]:
    recipe = OBJECTIVES[settings.objective]
    torch.manual_seed(settings.seed)
    model = _model(settings, material).to(ranks.device)
    if ranks.size > 1:
        synchronise(model)
    if settings.batch_size < 2 * ranks.size or settings.batch_size % ranks.size:
        raise ValueError(
            f"batch_size must be at least 2 for each process, all alike, got {settings.batch_size} "
            f"for {ranks.size}"
        )
    if len(material.held_out) < 2 * ranks.size:
        raise ValueError(
            f"the held-out episodes must have at least {2 * ranks.size} windows, got "
            f"{len(material.held_out)}: raise held_out (now {settings.held_out})"
        )
    passes = _PASSES * (len(material.train) // settings.batch_size)
    config = settings.training(
        settings.steps or max(passes, 1), precision_of(settings.precision, ranks.device)
    )
    return Training(
        model,
        material.train,
        config,
        ranks.device,
        objective=recipe.objective,
        regularizer=recipe.regularizer(config),
        workers=settings.workers,
        ranks=ranks,
    )


def _go_on(training: Training[Any], checkpoints: Checkpoints, *, quiet: bool) -> None:
    found = checkpoints.restore(training, quiet=quiet)
    if quiet:
        return
    if found is None:
        say("no checkpoint was reached before: from the start")
    else:
        say(f"resumed at step {training.step} of {training.config.steps}")


def _introduction(
    settings: TrainSettings, material: TrainMaterial, training: Training[Any]
) -> list[str]:
    weights = sum(p.numel() for p in training.model.parameters())
    config, ranks = training.config, training.ranks
    processes = "" if ranks.size == 1 else f" on {ranks.size} processes"
    return [
        f"{settings.data}: {len(material.trained_on)} episodes to train on with "
        f"{len(material.train):,} windows, {len(material.kept_apart)} held out",
        f"{settings.preset}: {weights:,} weights, {config.steps} steps of {config.batch_size} "
        f"windows{processes}, {config.precision}, {ranks.device}",
    ]


def _report(
    training: Training[Any], scores: tuple[float, float], reports: Reports, seconds: float
) -> dict[str, Any]:
    floor = reports.floor
    return {
        "steps": training.step,
        "held_out_prediction": float(f"{scores[0]:.6g}"),
        "held_out_regularization": float(f"{scores[1]:.6g}"),
        "floor": None if floor is None else round(floor, 4),
        "collapse_alarms": reports.alarms,
        "processes": training.ranks.size,
        "wall_seconds": round(seconds, 2),
        "versions": versions(),
        "git_commit": commit(),
        "machine": machine(str(training.device)),
    }
