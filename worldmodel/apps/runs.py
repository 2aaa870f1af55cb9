"""A run folder: the model, its frames and actions, and its training episodes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from worldmodel import checkpoint
from worldmodel._files import write_atomically
from worldmodel.apps.parsing import Record, Values, parse_record, read_record
from worldmodel.apps.settings import PLANNER, Count
from worldmodel.data import ActionScale
from worldmodel.data.opening import open_episodes
from worldmodel.gcbc import GCBC
from worldmodel.heads import Head, load_head
from worldmodel.hub import from_pretrained, locate
from worldmodel.model import WorldModel
from worldmodel.published import from_published

EPISODES = "episodes.json"
METRIC = "metric.safetensors"  # `heads.fit_metric` of the training windows
LEARNER = "proposals.safetensors"  # what `train --objective proposals` adds
RECORDED = "recorded.safetensors"  # and the embeddings it learned from


class Run(NamedTuple):
    """What `train` and `demo` write, and `study` and `evaluate` read."""

    folder: Path
    model: WorldModel | GCBC  #: in evaluation mode; a GCBC if the run cloned behaviour
    scale: ActionScale  #: of the training actions
    frameskip: int  #: raw actions between two frames the model sees
    world: str | None  #: name of the data's world; None if it is not known
    objective: str  #: what the model was trained for, "lewm" unless it is a baseline
    data: str | None  #: path of the training file, or None if it was collected on the fly
    trained_on: frozenset[str]  #: digests of the training episodes (`episode_digests`)
    held_out: frozenset[str]  #: digests of the episodes kept apart
    settings: Values  #: all other settings of the run

    @property
    def world_model(self) -> WorldModel:
        """The model; ValueError if the run cloned behaviour instead."""
        if isinstance(self.model, GCBC):
            held = f"{self.folder} holds a policy trained for {self.objective}"
            raise ValueError(f"RUN must hold a world model, {held}")
        return self.model


class _Extra(Record):
    """The entries of a run's config.json beside those of its model."""

    world: str | None
    frameskip: Count
    objective: str
    data: str | None
    settings: dict[str, JsonValue]


class TrainedOn(Record):
    """Digests of the episodes trained on and kept apart."""

    train: list[str]
    held_out: list[str]


class KeptPlanner(Record):
    """The default planner of a run, and the manifest on which it was chosen."""

    settings: dict[str, JsonValue]
    manifest: str
    success_rate: float


def read_episodes(folder: Path) -> TrainedOn:
    """Read the episodes of a run folder; an error names the file."""
    return read_record(folder / EPISODES, TrainedOn, "list of episodes")


def write_episodes(folder: Path, trained_on: Sequence[str], held_out: Sequence[str]) -> None:
    """Write the file that `read_episodes` reads."""
    names = TrainedOn(train=list(trained_on), held_out=list(held_out))
    write_atomically(folder / EPISODES, names.model_dump_json().encode() + b"\n")


def kept_planner(folder: Path) -> KeptPlanner | None:
    """Read the run's default planner; None if it has none."""
    path = folder / PLANNER
    return read_record(path, KeptPlanner, "record of a planner") if path.is_file() else None


def metric_of(run: Run) -> Head:
    """The metric that training left in a run; ValueError if there is none."""
    path, model = run.folder / METRIC, run.world_model
    if not path.is_file():
        made = "training writes it at its end, if the embeddings change"
        raise ValueError(f"metric mahalanobis needs {METRIC} in {run.folder}: {made}")
    head = load_head(path)
    if not isinstance(head, Head) or head.config["dim"] != model.encoder.dim:
        raise ValueError(f"{path} must map embeddings of {model.encoder.dim} dims, it does not")
    return head.to(next(model.parameters()))


def save_run(
    model: WorldModel | GCBC, folder: Path, *, scale: ActionScale, frameskip: int,
    world: str | None, objective: str = "lewm", data: str | None = None,
    trained_on: Sequence[str], held_out: Sequence[str], settings: Values,
) -> None:  # fmt: skip
    """Write a run folder that `open_run` reads; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_episodes(folder, trained_on, held_out)
    own = {"world": world, "frameskip": frameskip, "objective": objective, "data": data}
    checkpoint.save(model, folder, action_scale=scale, extra={**own, "settings": settings})


def open_run(source: str | Path, device: str = "cpu", *, data: str | None = None) -> Run:
    """Read what `save_run` wrote, or a released LeWM, from a folder or "owner/name" on the hub.

    A released LeWM holds no action statistics: `data` is the data set that it was trained on.

    Raises: FileNotFoundError or ValueError, naming the file at fault.
    """
    path = locate(source)
    if checkpoint.is_released(path):
        if data is None:
            remedy = "name its training data with --data"
            raise ValueError(f"{path} is a released LeWM and holds no action statistics: {remedy}")
        model, episodes = from_published(path, device), open_episodes(data)
        width, block = episodes.actions.shape[1], model.action_encoder.config["action_dim"]
        if block % width:
            raise ValueError(f"--data must have actions whose width divides {block}, got {width}")
        scale, nobody = ActionScale.fit(episodes), frozenset[str]()
        return Run(path, model, scale, block // width, None, "lewm", data, nobody, nobody, {})
    config = checkpoint.read_config(path)
    complaint = f"{path / checkpoint.CONFIG} must be of a run that train or demo wrote"
    if config.action_scale is None:
        raise ValueError(f"{complaint}: it lacks action_scale")
    extra = parse_record(json.dumps(config.extra).encode(), _Extra, complaint)
    names = read_episodes(path)
    return Run(
        path, from_pretrained(path, map_location=device), config.action_scale, extra.frameskip,
        extra.world, extra.objective, extra.data, frozenset(names.train),
        frozenset(names.held_out), extra.settings,
    )  # fmt: skip
