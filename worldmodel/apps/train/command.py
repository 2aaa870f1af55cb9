"""`worldmodel train`: make a run folder from settings, also across interruptions."""

import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor

from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import provenance
from worldmodel.apps.parsing import check_kept, kept_settings
from worldmodel.apps.progress import say
from worldmodel.apps.ranks import ALONE, Ranks, joined, whole
from worldmodel.apps.report import render, save_chart, training_curves, write_index
from worldmodel.apps.report.pages import number
from worldmodel.apps.runs import EPISODES, METRIC, read_episodes, save_run, write_episodes
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train import proposing
from worldmodel.apps.train.loop import DamagedStateError, NonFiniteError, Training, WorkerEndedError
from worldmodel.apps.train.material import (
    TrainMaterial,
    begin_training,
    build_model,
    embedded,
    open_material,
)
from worldmodel.apps.train.reports import Reports, Scores, begin_wandb, need_wandb, read_table
from worldmodel.data import BatchOrder, Windows
from worldmodel.data._cloud import place
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.gcbc import GCBC
from worldmodel.heads import Head, fit_metric, save_head
from worldmodel.hub import from_pretrained
from worldmodel.records import each

CHECKPOINTS = "checkpoints"
SETTINGS = "train.json"
_REPORT = "report.json"
_MEASURED = 1024  # windows that give the metric
_KEEP = 2  # checkpoints; a killed run loses the steps since the last one


class _TimeIsOver(KeyboardInterrupt):
    """The time of --minutes is over."""


def run(settings: TrainSettings) -> int:
    """Train to the end and write a run folder that `open_run` reads."""
    if settings.objective == "proposals":
        return proposing.run(settings)
    if settings.model.get("recipe"):
        raise ValueError(f"recipe needs objective proposals, got {settings.objective}")
    out = settings.out
    with joined(settings.device) as ranks, ExitStack() as held:
        with ranks.together():
            if settings.wandb:
                need_wandb()
            settings = _decided(settings)
            if ranks.first:
                begun = begin_folder(out, SETTINGS, resume=settings.resume, worth=CHECKPOINTS)
                held.enter_context(begun)
            material = open_material(settings)
        try:
            reports = train(settings, material, ranks)
        except KeyboardInterrupt as stop:
            again = f"continue with: worldmodel train --resume --out {shlex.quote(str(out))}"
            if ranks.first:
                what = "the minutes are over" if isinstance(stop, _TimeIsOver) else "interrupted"
                last = "".join(path.stem.partition("-")[2] for path in checkpoints(out)[:1])
                kept = f"{int(last)} steps are kept; {again}" if last else "nothing was kept"
                say(f"\n{what}; {kept}")
            if isinstance(stop, _TimeIsOver):
                return 0
            raise
        if not ranks.first:
            return 0
        tables, floor = map(read_table, reports.paths), reports.floor
        curves = training_curves(*tables, floor=floor, objective=settings.objective)
        save_chart(curves, out / "curves.png")
        assert reports.scores is not None
        # Figures that are not finite become null.
        scores = [float(f"{x:.6g}") if math.isfinite(x) else None for x in reports.scores]
        report = {
            "steps": reports.training.step,
            "held_out_prediction": scores[0], "held_out_regularization": scores[1],
            "floor": None if floor is None else round(floor, 4),
            "collapse_alarms": 0 if reports.alarm is None else reports.alarm.count,
            "processes": ranks.size, "wall_seconds": reports.seconds,
            **provenance(str(reports.training.device)),
        }  # fmt: skip
        write_json(report, out / _REPORT)
        write_index(out)
        say(f"{out}: model.safetensors, config.json, {_REPORT}, curves.png, index.html")
        say(f"held-out prediction loss {number(scores[0])}")
    return 0


def _decided(settings: TrainSettings) -> TrainSettings:
    """Complete the settings from the data, or from the run that is resumed; writes nothing.

    If a finished run gets more steps, `schedule_from` is the step at which they begin.
    """
    out = settings.out
    if not settings.resume:
        known = read_origin(settings.data).get("world") if place(settings.data).is_file() else None
        world = settings.world or (known if isinstance(known, str) else None)
        return settings.model_copy(update={"world": world})
    before = kept_settings(TrainSettings, "train", out / SETTINGS, out=out)
    steps, precision = settings.steps or before.steps, settings.precision
    if (out / _REPORT).exists():
        if (steps or 0) > (before.steps or 0):
            before = before.model_copy(update={"steps": steps, "schedule_from": before.steps})
        # If a kill came before the folder's page, only the page is missing.
        elif (out / "index.html").exists():
            more = f"--steps above {before.steps} extends it"
            rule = f"an unfinished run, got {out} with its {_REPORT}"
            raise FileExistsError(f"--resume needs {rule}; {more}")
    precision = before.precision if precision == "auto" else precision
    own = {"steps": steps, "precision": precision, "world": settings.world or before.world}
    settings = settings.model_copy(update={**own, "schedule_from": before.schedule_from})
    check_kept(settings, before)
    return settings


def train(settings: TrainSettings, material: TrainMaterial, ranks: Ranks) -> Reports:
    """Train all remaining steps in `settings.out`; write checkpoints and tables.

    Raises: ValueError if the settings do not fit; DamagedStateError; OSError; NonFiniteError or
        KeyboardInterrupt, after the last good state is saved.
    """
    with ranks.together():
        settings, training, state = _begin(settings, material, ranks)
        began = time.monotonic()
        if settings.objective == "predictor":
            material = embedded(material, training, quiet=not ranks.first)
    end = math.inf if settings.minutes is None else began + 60 * settings.minutes
    log = begin_wandb(settings) if ranks.first else None
    with (
        whole_steps(ranks, end) as release,
        Reports(training, settings.out, settings.report_every, state, log) as reports,
        closing(training.run()) as steps,
    ):
        reports.began = began

        def checkpoint() -> None:
            step, every = training.step, settings.checkpoint_every
            if step == 0 or (step % every and step < training.steps):
                return
            # A kill after the checkpoint leaves the step unscored: rank 0's table lacks it.
            if not ranks.gather("scored" if reports.scores else "")[0]:
                _keep(settings, material, training, reports)
                reports.held_out(score(training, material.held_out, settings.held_out_windows))

        try:
            checkpoint()
            for losses in steps:
                reports.step(losses)
                checkpoint()
                release()
        except (KeyboardInterrupt, NonFiniteError, WorkerEndedError) as stop:
            # All ranks stop after the same step; but a worker's end stops this rank alone.
            if ranks.size == 1 or not isinstance(stop, WorkerEndedError):
                # A step that was not checked yet may not be finite: back to the last good one.
                with suppress(NonFiniteError):
                    training.settle()
                _keep(settings, material, training, reports)
            raise
        if ranks.first and isinstance(training.regularizer, Head):
            save_head(training.regularizer, settings.out / METRIC)
        elif ranks.first:
            _write_metric(settings.out, material.train, ranks.device)
    return reports


def _write_metric(out: Path, windows: Windows, device: str) -> None:
    """Write the metric of the run's model, if its embeddings change along the training windows."""
    model = from_pretrained(out, map_location=device)
    if isinstance(model, GCBC):
        return
    num = min(_MEASURED, len(windows))
    chosen = torch.arange(num) * len(windows) // num
    seen = (windows.batch(some).tensors()[0] for some in chosen.split(64))
    with suppress(ValueError), torch.no_grad():
        z = torch.cat([model.encode(each(frames, lambda one: one.to(device))) for frames in seen])
        save_head(fit_metric(z), out / METRIC)


def _begin(
    settings: TrainSettings, material: TrainMaterial, ranks: Ranks
) -> tuple[TrainSettings, Training, dict[str, Tensor] | None]:
    """Make the training of the next step, restored if resumed, and write its settings."""
    out, names = settings.out, settings.out / EPISODES
    resumes = settings.resume and bool(checkpoints(out))
    settings, training = begin_training(settings, material, ranks, fresh=not resumes)
    if settings.resume and names.is_file() and read_episodes(out).train != material.trained_on:
        raise ValueError(f"--resume must train on the episodes in {names}, got other ones")
    state = _restore(training, out) if resumes else None
    if ranks.first:
        # Remove the report first: a run that gets more steps is not finished.
        for name in (_REPORT, METRIC):
            (out / name).unlink(missing_ok=True)
        write_json(settings.model_dump(mode="json"), out / SETTINGS)
        write_episodes(out, material.trained_on, material.kept_apart)
        weights = sum(p.numel() for p in training.model.parameters())
        told = {"material": material, "ranks": ranks, "weights": weights, "step": training.step}
        say(render("train.txt", s=settings, **told))
    return settings, training, state


@contextmanager
def whole_steps(ranks: Ranks = ALONE, end: float = math.inf) -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C and SIGTERM until the yielded function is called; that function raises.

    The function also raises after `end`, in seconds of `time.monotonic`.

    All ranks must call it equally often. It raises on all of them, whichever rank got the signal.
    Half a step would change batch statistics and the random state, and a resumed run would end
    differently. Signals with other handlers keep them.
    """
    held = list[int]()
    usual, main = signal.default_int_handler, threading.current_thread() is threading.main_thread()
    both = (signal.SIGINT, signal.SIGTERM) if main else ()
    mine = [one for one in both if signal.getsignal(one) is usual]

    def release() -> None:
        told = ranks.gather("told" if held else "over" if time.monotonic() > end else "")
        if "told" in told:
            raise KeyboardInterrupt
        if "over" in told:
            raise _TimeIsOver

    for one in mine:
        signal.signal(one, lambda which, _: held.append(which))
    try:
        yield release
    finally:
        for one in mine:
            signal.signal(one, usual)


def score(training: Training, windows: Windows, count: int) -> Scores:
    """Mean prediction loss and regularizer over the first `count` windows, in evaluation mode.

    Batches are as large as in training if there are enough windows, because SIGReg grows with them.
    The random state stays, and the objective draws the same numbers. Every rank must call it.
    """
    ranks, device = training.ranks, training.device
    size = min(training.recipe.batch_size, len(windows)) // ranks.size * ranks.size
    order = BatchOrder(len(windows), size, seed=0, rank=ranks.rank, ranks=ranks.size)
    sums, num = torch.zeros(2), max(min(count, len(windows)) // size, 1)
    training.both.eval()
    # A graph for evaluation would take longer to compile than it saves.
    plain = torch.compiler.set_stance("force_eager") if training.compiled else nullcontext()
    try:
        forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with plain, torch.no_grad(), forked:
            torch.manual_seed(0)
            for step in range(num):
                losses = training.losses(windows.batch(order.batch(step)))
                sums += torch.stack([losses.prediction, losses.regularization]).float().cpu()
    finally:
        training.both.train()
    return Scores(*ranks.mean(sums / num).tolist())


def checkpoints(out: Path) -> list[Path]:
    """The training states of a run folder, newest first."""
    return sorted((out / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)


def _keep(
    settings: TrainSettings, material: TrainMaterial, training: Training, reports: Reports
) -> None:
    """Write the checkpoint, then the model for other commands; every rank must call it."""
    out, first, model = settings.out, training.ranks.first, training.model
    path = out / CHECKPOINTS / f"step-{training.step:09d}.safetensors"
    if first:
        path.parent.mkdir(parents=True, exist_ok=True)
    # The new checkpoint is complete on disk before an old one is removed.
    training.save(path, reports.state())
    for old in checkpoints(out)[_KEEP:] if first else ():
        old.unlink(missing_ok=True)
    if training.sharded:
        state = {name: whole(value) for name, value in model.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            model = build_model(settings, material.train)
        model.load_state_dict(state)
    if first:
        save_run(
            model, out, scale=material.scale, frameskip=settings.frameskip, world=settings.world,
            objective=settings.objective,
            data=settings.data if place(settings.data).is_absolute() else None,
            trained_on=material.trained_on, held_out=material.kept_apart,
            settings=settings.model_dump(mode="json") | {"step": training.step},
        )  # fmt: skip


def _restore(training: Training, out: Path) -> dict[str, Tensor]:
    damaged: list[str] = []
    for path in checkpoints(out):
        try:
            also = training.restore(path)
        except DamagedStateError as error:
            damaged.append(str(error))
            continue
        if damaged and training.ranks.first:
            say(f"{'; '.join(damaged)}; training continues from {path.name}")
        return also
    where = out / CHECKPOINTS
    raise DamagedStateError(f"no checkpoint in {where} can be read: {'; '.join(damaged)}")
