"""What the readers of all formats share: columns, and which of them are meant."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.data.episodes import Episodes
from worldmodel.data.frames import EpisodeFrames

__all__ = ["Column", "Names", "choose_pixels", "choose_states", "episodes_of"]

Floats = NDArray[np.float32]
Names = str | Sequence[str] | None
"""One column, several, or those that the format usually has."""


class Column(NamedTuple):
    """One column of a data set, as it is stored."""

    name: str  #: inside the data set
    shape: tuple[int, ...]  #: rows first where the format tells
    dtype: str  #: of an entry
    storage: str  #: chunks, compression or file kind, in words


def choose_pixels(pixels: str | None, known: Sequence[str], kind: str, where: str) -> str:
    """The column of frames: the one that is named, which must be known, or the only one."""
    chosen = [name for name in known if pixels in (None, name)]
    if len(chosen) != 1:
        found = f"got {pixels!r} and {kind}s {list(known)}"
        raise ValueError(f"pixels must name one {kind} of {where}, {found}")
    return chosen[0]


def choose_states(
    state: Names, known: Collection[str], usual: Sequence[str], what: str
) -> list[str]:
    """The columns of states: those that are named, all known, or the first usual one there is."""
    if state is None:
        return [name for name in usual if name in known][:1]
    names = [state] if isinstance(state, str) else list(state)
    for name in names:
        if name not in known:
            found = f"{name!r} among {', '.join(sorted(known))}"
            raise ValueError(f"state must name {what}, got {found}")
    return names


def episodes_of(
    read: Callable[[int], NDArray[np.uint8]],
    image: tuple[int, ...],
    actions: list[Floats],
    states: list[list[Floats]],
) -> Episodes:
    """A record of episodes that are decoded one by one, by `read`, to frames [L, *image].

    Each has actions [L, A] and any number of states [L, …], which are laid side by side.
    """
    lengths = torch.tensor([len(taken) for taken in actions])
    rows = [np.hstack([s.reshape(len(s), -1) for s in parts]) for parts in states if parts]
    H, W, C = image
    return Episodes(
        EpisodeFrames(read, lengths, (C, H, W)),
        torch.from_numpy(np.vstack(actions)),
        lengths,
        torch.from_numpy(np.vstack(rows)) if rows else None,
    )
