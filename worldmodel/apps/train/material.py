"""The data of a training run: opened, split by episode, cut into windows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from worldmodel.apps.train.settings import TrainSettings
from worldmodel.data import ActionScale, Episodes, Windows, episode_digests, split
from worldmodel.data.frames import EpisodeFrames
from worldmodel.data.hdf5_frames import open_for_reading
from worldmodel.data.opening import open_episodes

__all__ = ["TrainMaterial", "open_material", "world_of"]

_MEMORY = 8 * 2**30  # bytes of frames that are read into memory where a file cannot be mapped


class TrainMaterial(NamedTuple):
    """What a run learns from and is scored on.

    Attributes:
        episodes: all of them.
        train: windows of the training episodes.
        held_out: windows of the others.
        scale: of the training actions.
        trained_on: digests of the training episodes.
        kept_apart: digests of the others.
    """

    episodes: Episodes
    train: Windows
    held_out: Windows
    scale: ActionScale
    trained_on: list[str]
    kept_apart: list[str]


def open_material(settings: TrainSettings) -> TrainMaterial:
    """Open a data set and split it by episode.

    Raises: FileNotFoundError, ImportError or ValueError if it cannot be read, has fewer than two
        episodes, other than square colour frames, or no window on one side of the split.
    """
    episodes = open_episodes(settings.data, pixels=settings.pixels, action=settings.action)
    _, channels, height, width = episodes.frames.shape
    if channels != 3 or height != width:
        raise ValueError(
            f"frames must be square and of three channels, got {width} × {height} and {channels} "
            f"in {settings.data}; worldmodel data convert --size writes others"
        )
    if isinstance(episodes.frames, EpisodeFrames):
        size = math.prod(episodes.frames.shape)
        if size > _MEMORY:
            raise ValueError(
                f"{settings.data} gives whole episodes only and has {size / 2**30:.0f} GiB of "
                "frames; write it as HDF5 first: worldmodel data convert IN OUT.h5"
            )
        episodes = episodes.in_memory()
    train, held_out = split(len(episodes), settings.held_out, settings.seed)
    scale = ActionScale.fit(episodes, train)
    digests = episode_digests(episodes)

    def windows(subset: Tensor) -> Windows:
        return Windows(
            episodes,
            num_frames=settings.num_frames,
            frameskip=settings.frameskip,
            scale=scale,
            subset=subset,
        )

    return TrainMaterial(
        episodes=episodes,
        train=windows(train),
        held_out=windows(held_out),
        scale=scale,
        trained_on=[digests[e] for e in train.tolist()],
        kept_apart=[digests[e] for e in held_out.tolist()],
    )


def world_of(data: str) -> str | None:
    """The world an HDF5 file says it comes from, in its attribute `world`."""
    if not Path(data).is_file():
        return None
    with open_for_reading(Path(data)) as file:
        name = file.attrs.get("world")
    return name if isinstance(name, str) else None
