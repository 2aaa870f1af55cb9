"""Shared by the readers of all formats: columns, and the choice among them."""

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.data.episodes import Episodes
from worldmodel.data.frames import EpisodeFrames

__all__ = ["Column", "Integers", "Names", "Taken", "choices_in_words", "choose_pixels",
           "choose_states", "episodes_of", "read_actions"]  # fmt: skip

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Integers = Literal["choices", "numbers"]
_OPTIONS = 256  # of one choice, at most
Names = str | Sequence[str] | None
"""One column, several, or those that the format usually has."""


class Column(NamedTuple):
    """One column of a data set, as it is stored."""

    name: str  #: inside the data set
    shape: tuple[int, ...]  #: rows first where the format tells
    dtype: str  #: of an entry
    storage: str  #: chunks, compression or file kind, in words


def choose_pixels(pixels: str | None, known: Sequence[str], kind: str, where: str) -> str:
    """The column of frames: the one named, which must be known, or the only one."""
    chosen = [name for name in known if pixels in (None, name)]
    if len(chosen) != 1:
        found = f"got {pixels!r} and {kind}s {list(known)}"
        raise ValueError(f"pixels must name one {kind} of {where}, {found}")
    return chosen[0]


def choose_states(
    state: Names, known: Collection[str], usual: Sequence[str], what: str
) -> list[str]:
    """The columns of states: those named, all known, or the first usual one that exists."""
    if state is None:
        return [name for name in usual if name in known][:1]
    names = [state] if isinstance(state, str) else list(state)
    for name in names:
        if name not in known:
            found = f"{name!r} among {', '.join(sorted(known))}"
            raise ValueError(f"state must name {what}, got {found}")
    return names


class Taken(NamedTuple):
    """The actions of the episodes that are kept."""

    actions: Floats  #: [R, A]
    choices: tuple[int, ...]  #: options of each action where they are choices, as in `Episodes`
    kept: Ints  #: [E], which episodes these are


def read_actions(
    stored: NDArray[Any],
    lengths: Ints,
    where: object,
    *,
    integers: Integers = "choices",
    shift: bool = False,
    options: Sequence[int] = (),
) -> Taken:
    """Actions [R, …] in the common convention, without unusable episodes.

    Whole numbers are choices and become one-hot, unless `integers` says "numbers". An episode of
    fewer than two rows, or with an action that is NaN or infinite, is left out with a warning; if
    none is left, `Episodes` raises.

    Args:
        stored: numbers, of episodes end to end.
        lengths: [E], of the episodes.
        where: the data set, for errors.
        integers: what whole numbers mean.
        shift: each action lies beside the frame it led to: it is moved one row up.
        options: of each choice; by default from 0, or the lowest, to the highest there is.
    Raises: ValueError if there are more than 256 options, or actions seem to need `shift`.
    """
    values, ends = stored.reshape(len(stored), -1), lengths.cumsum()
    first, last = (ends - lengths)[lengths > 0], ends[lengths > 0] - 1
    if shift:
        values = np.roll(values, -1, axis=0)
    if values.dtype.kind in "iu" and integers == "choices":
        leads = np.delete(values, last, axis=0).astype(np.int64)
        low = leads.min(0, initial=0)
        options = options or (leads.max(0, initial=0) - low + 1).tolist()
        if max(options) > _OPTIONS:
            rule = f"whole numbers as actions must be choices among at most {_OPTIONS} options"
            remedy = "worldmodel data convert IN OUT.h5 --integers numbers keeps them as numbers"
            raise ValueError(f"{rule}, got {max(options)} in {where}; {remedy}")
        values = np.hstack([values[:, [a]] - low[a] == np.arange(n) for a, n in enumerate(options)])
    else:
        options = ()
    actions = values.astype(np.float32)
    if shift:
        actions[last] = np.nan
    bad = np.asarray((~np.isfinite(actions)).any(-1))
    bad[last] = np.isinf(actions[last]).any(-1)  # the last action may be missing
    if not shift and bad[first].sum() == bad.sum() == len(first) > 0:
        told = "as if each action lay beside the frame it led to"
        remedy = "worldmodel data convert IN OUT.h5 --shift moves them one row up"
        raise ValueError(f"actions are NaN in each first row of {where}, {told}; {remedy}")
    whose = np.repeat(np.arange(len(lengths)), lengths)
    good = (lengths > 1) & (np.bincount(whose[bad], minlength=len(lengths)) == 0)
    if good.all() or not good.any():
        good[:] = True
    else:
        numbers = ", ".join(map(str, np.flatnonzero(~good)[:10].tolist()))
        what = "shorter than two rows, or with an action that is missing, NaN or infinite"
        few = f"{(~good).sum()} of {len(good)} episodes of {where} are left out"
        warnings.warn(f"{few}, {what}: {numbers}", RuntimeWarning, stacklevel=3)
    return Taken(actions[good[whose]], tuple(options), np.flatnonzero(good))


def choices_in_words(episodes: Episodes) -> str:
    """A sentence about whole numbers that became choices."""
    options = " × ".join(map(str, episodes.choices))
    return f"whole numbers are choices of {options} options, one-hot side by side"


def episodes_of(
    read: Callable[[int], NDArray[np.uint8]],
    image: tuple[int, ...],
    taken: Taken,
    lengths: Ints,
    states: list[list[Floats]],
) -> Episodes:
    """A record of the episodes in `taken`; `read` decodes each of them to frames [L, *image].

    `lengths` and `states` (lists of [L, …], laid side by side) are of all episodes.
    """
    kept = [states[e] for e in taken.kept.tolist()]
    rows = [np.hstack([s.reshape(len(s), -1) for s in parts]) for parts in kept if parts]
    H, W, C = image
    ours = torch.from_numpy(lengths[taken.kept])
    return Episodes(
        EpisodeFrames(read, ours, (C, H, W)),
        torch.from_numpy(taken.actions),
        ours,
        torch.from_numpy(np.vstack(rows)) if rows else None,
        choices=taken.choices,
    )
