"""A run folder: the model, how it sees and acts, and which episodes it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldmodel import checkpoint
from worldmodel._files import write_atomically
from worldmodel.apps.reading import Record, parse_record, read_record
from worldmodel.apps.settings import Count
from worldmodel.data import ActionScale
from worldmodel.data.opening import open_episodes
from worldmodel.gcbc import GCBC
from worldmodel.hub import from_pretrained, locate
from worldmodel.model import WorldModel
from worldmodel.published import from_published

__all__ = ["Run", "open_run", "save_run"]

EPISODES = "episodes.json"


class Run(NamedTuple):
    """What `train` and `demo` leave for `study` and `evaluate`.

    Attributes:
        folder: where it lies.
        model: WorldModel in evaluation mode; of a run that cloned behaviour, the GCBC.
        scale: of the training actions.
        frameskip: raw actions between two frames the model sees.
        world: its name, or None if the data came from somewhere else.
        objective: what the model was trained for, "lewm" unless it is a baseline.
        data: path of the training file, or None if it was collected on the fly.
        trained_on: digests of the training episodes (`worldmodel.data.episode_digests`).
        held_out: digests of the episodes kept apart.
        settings: everything else that decided the run.
    """

    folder: Path
    model: WorldModel | GCBC
    scale: ActionScale
    frameskip: int
    world: str | None
    objective: str
    data: str | None
    trained_on: frozenset[str]
    held_out: frozenset[str]
    settings: dict[str, Any]

    @property
    def world_model(self) -> WorldModel:
        """The model, of a run that has a world model.

        Raises: ValueError if it cloned behaviour instead.
        """
        if isinstance(self.model, GCBC):
            raise ValueError(
                f"RUN must hold a world model, {self.folder} holds a policy trained for "
                f"{self.objective}"
            )
        return self.model


class _Extra(Record):
    """What a run's config.json says beside its model."""

    world: str | None
    frameskip: Count
    objective: str
    data: str | None
    settings: dict[str, Any]


class _Episodes(Record):
    """Digests of the episodes trained on and kept apart."""

    train: frozenset[str]
    held_out: frozenset[str]


def save_run(
    model: WorldModel | GCBC,
    folder: Path,
    *,
    scale: ActionScale,
    frameskip: int,
    world: str | None,
    objective: str = "lewm",
    data: str | None = None,
    trained_on: Sequence[str],
    held_out: Sequence[str],
    settings: dict[str, Any],
) -> None:
    """Write a run folder that `open_run` reads; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"train": list(trained_on), "held_out": list(held_out)}
    write_atomically(folder / EPISODES, json.dumps(names).encode() + b"\n")
    extra = {
        "world": world,
        "frameskip": frameskip,
        "objective": objective,
        "data": data,
        "settings": settings,
    }
    checkpoint.save(model, folder, action_scale=scale, extra=extra)


def open_run(source: str | Path, device: str = "cpu", *, data: str | None = None) -> Run:
    """Read what `save_run` wrote, or a released LeWM.

    Args:
        source: folder, or "owner/name" on the hub.
        device: of the model.
        data: of a released LeWM, which holds no action statistics, the data set it learned from.
    Raises: FileNotFoundError or ValueError, naming the file at fault.
    """
    path = locate(source)
    if checkpoint.is_released(path):
        return _released(path, device, data)
    config = checkpoint.read_config(path)
    complaint = f"{path / checkpoint.CONFIG} must be of a run that train or demo wrote"
    if config.action_scale is None:
        raise ValueError(f"{complaint}: it lacks action_scale")
    extra = parse_record(json.dumps(config.extra).encode(), _Extra, complaint)
    names = read_record(path / EPISODES, _Episodes, "list of episodes")
    return Run(
        folder=path,
        model=from_pretrained(path, map_location=device),
        scale=config.action_scale,
        frameskip=extra.frameskip,
        world=extra.world,
        objective=extra.objective,
        data=extra.data,
        trained_on=names.train,
        held_out=names.held_out,
        settings=extra.settings,
    )


def _released(path: Path, device: str, data: str | None) -> Run:
    if data is None:
        raise ValueError(
            f"{path} is a released LeWM, which holds no action statistics: name the data set it "
            "learned from with --data"
        )
    model, episodes = from_published(path, device), open_episodes(data)
    width, block = episodes.actions.shape[1], model.action_encoder.config["action_dim"]
    if block % width:
        raise ValueError(f"--data must have actions whose width divides {block}, got {width}")
    return Run(
        folder=path,
        model=model,
        scale=ActionScale.fit(episodes),
        frameskip=block // width,
        world=None,
        objective="lewm",
        data=data,
        trained_on=frozenset(),
        held_out=frozenset(),
        settings={},
    )
