"""Minari data sets: T + 1 observations around T actions, one record per episode.

Source: Minari's documented EpisodeData (https://minari.farama.org).
"""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel._extras import need
from worldmodel.data import reading
from worldmodel.data._cloud import Remote, place
from worldmodel.data.episodes import Episodes
from worldmodel.data.frames import is_channels_last
from worldmodel.data.reading import Column, Integers, Names

__all__ = ["is_minari", "minari_columns", "open_minari"]

_ID = re.compile(r"([-_\w/]+/)?[-_\w]+-v\d+")


def open_minari(
    dataset: str | Path, *, pixels: str | None = None, state: Names = None,
    integers: Integers = "choices",
) -> Episodes:  # fmt: skip
    """Episodes of a Minari data set on this machine.

    Row t holds observation t and action t; the row after the last action has NaN. Opening reads
    every episode once for its actions. Frames are decoded by episode: for training use HDF5.

    Args:
        dataset: folder of the data set, or its id among the local ones (`namespace/name-v0`).
        pixels: observation with the frames, `a/b` inside nested spaces; optional if only one is an
            image. An observation space that is an image needs no name.
        state: observations, side by side as `states`; by default `state` or `proprio`.
        integers: see `worldmodel.data.reading.read_actions`.
    Warns: RuntimeWarning that names episodes left out: not T + 1 observations around T actions, or
        as in `read_actions`.
    Raises: FileNotFoundError; ImportError without minari; ValueError if there is no such
        observation, no episode is left, or sizes differ.
    """
    folder = _folder(dataset)
    found = _opened(folder)
    leaves = _leaves(found.observation_space)
    images = [n for n, s in leaves.items() if s.dtype == np.uint8 and len(s.shape) in (2, 3)]
    known = ", ".join(f"{n or 'the observation'} {s.dtype} {s.shape}" for n, s in leaves.items())
    where = f"{folder} (uint8 [H, W, C], [C, H, W] or [H, W] among {known})"
    camera = reading.choose_pixels(pixels, images, "image", where)
    usual = ("state", "proprio")
    names = reading.choose_states(state, leaves, usual, f"observations of {folder}")
    start, options = _options(found.action_space)
    actions, lengths, states, image, ill = [], [], [], tuple[int, ...](), ""
    for e, episode in enumerate(found):
        frames = _pictures(_leaf(episode.observations, camera))
        taken = np.asarray(episode.actions)
        taken = taken.reshape(len(taken), math.prod(taken.shape[1:])) - start
        if len(frames) != len(taken) + 1:
            ill = ill or f"{len(frames)} and {len(taken)} in episode {e} of {folder}"
            frames, taken = frames[:0], taken[:0]  # it is left out aloud
        image = image or frames.shape[1:]
        if frames.shape[1:] != image:
            sizes = f"{list(image)} in episode 0, got {list(frames.shape[1:])} in episode {e}"
            raise ValueError(f"every frame must have one size, {sizes}")
        # Each beside the frame it led to, and shifted below, because integers have no NaN.
        actions.append(np.vstack([taken[:1], taken]))
        lengths.append(len(frames))
        known_states = (_leaf(episode.observations, n) for n in names)
        states.append([row[: len(frames)].astype(np.float32) for row in known_states])
    if ill and not any(lengths):
        raise ValueError(f"episodes must be T + 1 observations around T actions, got {ill}")
    if not actions:
        raise ValueError(f"{folder} must hold at least one episode, got none")
    rows, stored = np.array(lengths), np.vstack(actions)
    told = reading.read_actions(
        stored, rows, folder, integers=integers, shift=True, options=options
    )
    read = partial(_frames, found, camera, told.kept.tolist())
    return reading.episodes_of(read, image, told, rows, states)


def minari_columns(dataset: str | Path) -> list[Column]:
    """Observations and actions of a Minari data set, shapes of a single step."""
    source = _opened(_folder(dataset))
    leaves = _leaves(source.observation_space, "observations").items()
    found = [Column(name, tuple(s.shape), str(s.dtype), "") for name, s in leaves]
    space = source.action_space
    return [*found, Column("actions", tuple(space.shape or ()), str(space.dtype), str(space))]


def is_minari(dataset: str | Path) -> bool:
    """Whether this is a Minari folder, or could be the id of a data set."""
    at = place(dataset)
    if any((at / name).is_file() for name in ("metadata.json", "data/metadata.json")):
        return True
    return not Path(dataset).exists() and _ID.fullmatch(str(dataset)) is not None


def _opened(folder: Path) -> Any:
    """The data set; it opens its files for each read, so it can be pickled and forked."""
    return need("minari", "minari", "reading Minari data sets").MinariDataset(folder)


def _frames(dataset: Any, camera: str, kept: list[int], e: int) -> NDArray[np.uint8]:
    return _pictures(_leaf(dataset[kept[e]].observations, camera))


def _folder(dataset: str | Path) -> Path:
    """The folder that holds metadata.json."""
    path = Path(dataset)
    if isinstance(place(dataset), Remote):
        remedy = "worldmodel data convert writes HDF5, which can be read from a URL"
        raise ValueError(f"a Minari data set must be on this machine, got {dataset}; {remedy}")
    if not path.exists():
        root = os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets")
        path = Path(root) / str(dataset)
    for folder in (path, path / "data"):
        if (folder / "metadata.json").is_file():
            return folder
    raise FileNotFoundError(f"there is no Minari data set at {path}")


def _leaves(space: Any, prefix: str = "") -> dict[str, Any]:
    """Name -> space of every observation in nested dictionaries; the prefix if there is one."""
    spaces = need("gymnasium.spaces", "minari", "reading Minari data sets")
    if not isinstance(space, spaces.Dict):
        return {prefix: space}
    found: dict[str, Any] = {}
    for name, inner in space.spaces.items():
        found |= _leaves(inner, f"{prefix}/{name}" if prefix else name)
    return found


def _leaf(observations: Any, name: str) -> NDArray[Any]:
    for part in name.split("/") if name else ():
        observations = observations[part]
    return np.asarray(observations)


def _pictures(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Frames [L, H, W, C], [L, C, H, W] or [L, H, W] with their channels last."""
    if stored.ndim == 3:
        return stored[..., None]
    return stored if is_channels_last(stored.shape[1:]) else stored.transpose(0, 2, 3, 1)


def _options(space: Any) -> tuple[Any, list[int]]:
    """The lowest choice and the number of options of each; 0 and none for numbers."""
    spaces = need("gymnasium.spaces", "minari", "reading Minari data sets")
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        of = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return np.ravel(space.start), np.ravel(of).tolist()
    if not isinstance(space, (spaces.Box, spaces.MultiBinary)):
        known = "a Box, Discrete, MultiDiscrete or MultiBinary space"
        raise ValueError(f"actions must be {known}, got {space}")
    return 0, []
