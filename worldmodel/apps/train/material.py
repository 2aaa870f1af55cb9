"""The data of a training run: opened, split by episode, cut into windows."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from worldmodel.apps.settings import TrainSettings
from worldmodel.data import ActionScale, Episodes, Windows, episode_digests, split
from worldmodel.data.frames import EpisodeFrames
from worldmodel.data.opening import open_episodes

__all__ = ["TrainMaterial", "cut", "open_material"]

_MEMORY = 8 * 2**30  # bytes of frames that are read into memory where a file cannot be mapped


class TrainMaterial(NamedTuple):
    """What a run learns from and is scored on."""

    train: Windows
    held_out: Windows
    scale: ActionScale  #: of the training actions
    trained_on: list[str]  #: digests of the training episodes
    kept_apart: list[str]  #: digests of the others


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
    return cut(settings, (episodes, train), (episodes, held_out))


def cut(
    settings: TrainSettings, train: tuple[Episodes, Tensor], held_out: tuple[Episodes, Tensor]
) -> TrainMaterial:
    """Windows of open episodes, given with the indices [E] that are meant; at least one a side."""
    frames, skip, scale = settings.num_frames, settings.frameskip, ActionScale.fit(*train)
    windows, digests = [], []
    for episodes, subset in (train, held_out):
        own = Windows(episodes, num_frames=frames, frameskip=skip, scale=scale, subset=subset)
        windows.append(own)
        names = episode_digests(episodes)
        digests.append([names[e] for e in subset.tolist()])
    return TrainMaterial(windows[0], windows[1], scale, digests[0], digests[1])
