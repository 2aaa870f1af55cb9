"""The model of a run: built from its settings, or begun with the weights of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel.apps.devices import precision_of
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train.loop import Training
from worldmodel.apps.train.material import TrainMaterial
from worldmodel.apps.train.objectives import OBJECTIVES
from worldmodel.apps.train.parallel import synchronise, whole
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel

__all__ = ["begin_training", "build", "gathered"]

_PASSES = 10  # over the data where no steps are given, as published


def begin_training(
    settings: TrainSettings, material: TrainMaterial, ranks: Ranks, *, fresh: bool = True
) -> tuple[TrainSettings, Training[Any]]:
    """A training at its first step, and its settings with steps and precision decided.

    `fresh` begins with the weights of `init_from`, if there is one; a resumed run has its own.

    Raises: ValueError if model, data, ranks and settings do not fit each other.
    """
    kind, size = OBJECTIVES[settings.objective], settings.batch_size
    if size < 2 * ranks.size or size % ranks.size:
        raise ValueError(
            f"batch_size must be at least 2 for each process, all alike, got {size} for "
            f"{ranks.size}"
        )
    if len(material.held_out) < 2 * ranks.size:
        raise ValueError(
            f"the held-out episodes must have at least {2 * ranks.size} windows, got "
            f"{len(material.held_out)}: raise held_out (now {settings.held_out})"
        )
    settings = settings.model_copy(
        update={
            "steps": settings.steps or max(_PASSES * (len(material.train) // size), 1),
            "precision": precision_of(settings.precision, ranks.device),
        }
    )
    torch.manual_seed(settings.seed)
    model = build(settings, material)
    if settings.init_from is not None and fresh:
        model.load_state_dict(_weights_of(settings.init_from, model, material))
    model.to(ranks.device)
    if ranks.size > 1:
        synchronise(model)
    training: Training[Any] = Training(
        model, material.train, settings, objective=kind.objective,
        regularizer=kind.regularizer(settings), workers=settings.workers, ranks=ranks,
        sharded=settings.sharded,
    )  # fmt: skip
    return settings, training


def build(settings: TrainSettings, material: TrainMaterial) -> WorldModel | GCBC:
    """The model that fits the data, with fresh weights from the global random stream.

    Raises: ValueError if a part refuses an argument, or the windows do not fit its history.
    """
    episodes = material.train.episodes
    return OBJECTIVES[settings.objective].build(
        settings.preset, episodes.actions.shape[1] * settings.frameskip,
        episodes.frames.shape[-1], settings.num_frames, settings.model,
    )  # fmt: skip


def gathered(
    settings: TrainSettings, material: TrainMaterial, training: Training[Any]
) -> WorldModel | GCBC:
    """A model of whole weights, of a training whose ranks hold parts; every rank must call it."""
    state = {name: whole(value) for name, value in training.model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        model = build(settings, material)
    model.load_state_dict(state)
    return model


def _weights_of(
    folder: Path, model: WorldModel | GCBC, material: TrainMaterial
) -> dict[str, Tensor]:
    """The weights of a run, if they are those of this model by name and shape.

    Raises: FileNotFoundError or ValueError, naming what differs.
    """
    found = open_run(folder)
    if type(found.model) is not type(model):
        raise ValueError(
            f"--init-from must be a {type(model).__name__}, {folder} holds a "
            f"{type(found.model).__name__}"
        )
    mine = material.train.episodes.actions.shape[1], material.train.frameskip
    theirs = len(found.scale.mean), found.frameskip
    if mine != theirs:
        raise ValueError(
            f"--init-from must be trained on actions of {mine[0]} dims × frameskip {mine[1]}, as "
            f"these data are cut, {folder} was on {theirs[0]} × {theirs[1]}"
        )
    state: dict[str, Tensor] = found.model.state_dict()
    ours, others = (
        {name: list(value.shape) for name, value in s.items()} for s in (model.state_dict(), state)
    )
    if differ := sorted(n for n in ours | others if ours.get(n) != others.get(n)):
        raise ValueError(
            f"--init-from must hold the model of these settings, {folder} differs in "
            f"{len(differ)} tensors, as {differ[0]}: {others.get(differ[0])} instead of "
            f"{ours.get(differ[0])}; --config {folder / 'train.json'} takes over its settings"
        )
    return state
