"""Minari data sets: T + 1 observations around T actions, one record per episode.

Source: Minari's documented EpisodeData (https://minari.farama.org).
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel._extras import need
from worldmodel.data.episodes import Episodes
from worldmodel.data.reading import Column, Names, choose_pixels, choose_states, episodes_of

__all__ = ["is_minari", "minari_columns", "open_minari"]

_ID = re.compile(r"([-_\w/]+/)?[-_\w]+-v\d+")


def open_minari(dataset: str | Path, *, pixels: str | None = None, state: Names = None) -> Episodes:
    """Episodes of a Minari data set on this machine.

    Observation t becomes a row with action t; the row behind the last action gets NaN. Discrete
    actions become one-hot vectors. Opening reads every episode once for its actions; frames are
    then decoded episode by episode, so convert to HDF5 before training.

    Args:
        dataset: folder of the data set, or its id among the local ones (`namespace/name-v0`).
        pixels: observation that holds the frames, `a/b` inside nested spaces; may be left out if
            only one is an image. An observation space that is an image needs no name.
        state: observations laid side by side as `states`; by default `state`, else `proprio`, else
            none.
    Raises: FileNotFoundError; ImportError without minari; ValueError if there is no such
        observation, an episode is not T + 1 observations around T actions, or sizes differ.
    """
    source = _Source(_folder(dataset))
    found = source.open()
    leaves = _leaves(found.observation_space)
    shapes = {name: list(s.shape or ()) for name, s in leaves.items() if s.dtype == np.uint8}
    images = [name for name, s in shapes.items() if len(s) == 3 and s[-1] in (1, 3, 4)]
    where = f"{source.folder} (uint8 [H, W, C] among {sorted(leaves)})"
    source.pixels = choose_pixels(pixels, images, "image", where)
    usual = ("state", "proprio")
    names = choose_states(state, leaves, usual, f"observations of {source.folder}")
    actions, states, image = [], [], tuple[int, ...]()
    for e, episode in enumerate(found):
        frames = _leaf(episode.observations, source.pixels)
        taken = _vectors(episode.actions, found.action_space)
        if len(frames) != len(taken) + 1:
            found = f"{len(frames)} and {len(taken)} in episode {e} of {source.folder}"
            raise ValueError(f"an episode must be T + 1 observations around T actions, got {found}")
        image = image or frames.shape[1:]
        if frames.shape[1:] != image:
            found = f"{list(image)} in episode 0, got {list(frames.shape[1:])} in episode {e}"
            raise ValueError(f"every frame must have one size, {found}")
        actions.append(np.vstack([taken, np.full_like(taken[:1], np.nan)]))
        states.append([_leaf(episode.observations, n).astype(np.float32) for n in names])
    if not actions:
        raise ValueError(f"{source.folder} must hold at least one episode, got none")
    return episodes_of(source, image, actions, states)


def minari_columns(dataset: str | Path) -> list[Column]:
    """Observations and actions of a Minari data set, shapes of a single step."""
    source = _Source(_folder(dataset)).open()
    leaves = _leaves(source.observation_space, "observations").items()
    found = [Column(name, tuple(s.shape), str(s.dtype), "") for name, s in leaves]
    space = source.action_space
    return [*found, Column("actions", tuple(space.shape or ()), str(space.dtype), str(space))]


def is_minari(dataset: str | Path) -> bool:
    """Whether this is a Minari folder, or could be the id of a data set."""
    path = Path(dataset)
    if path.exists():
        return any((path / f / "metadata.json").is_file() for f in (".", "data"))
    return _ID.fullmatch(str(dataset)) is not None


class _Source:
    """Reads the frames of one episode; opened anew in each process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pixels = folder, ""
        self._dataset: Any = None

    def __call__(self, e: int) -> NDArray[np.uint8]:
        return _leaf(self.open()[e].observations, self.pixels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None}

    def open(self) -> Any:
        if self._dataset is None:
            minari = need("minari", "minari", "reading Minari data sets")
            self._dataset = minari.MinariDataset(self.folder)
        return self._dataset


def _folder(dataset: str | Path) -> Path:
    """The folder that holds metadata.json."""
    path = Path(dataset)
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


def _vectors(actions: Any, space: Any) -> NDArray[np.float32]:
    """Actions as float32 [T, A]."""
    spaces = need("gymnasium.spaces", "minari", "reading Minari data sets")
    if isinstance(space, spaces.Discrete):
        index = np.asarray(actions).reshape(-1) - int(space.start)
        one_hot: NDArray[np.float32] = np.eye(int(space.n), dtype=np.float32)[index]
        return one_hot
    if not isinstance(space, spaces.Box):
        raise ValueError(f"actions must be a Box or Discrete space, got {space}")
    values = np.asarray(actions, np.float32)
    return values.reshape(len(values), -1)
