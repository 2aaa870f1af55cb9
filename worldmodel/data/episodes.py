"""Episodes as flat rows: the record that every reader produces and windows are cut from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.data.frames import Frames
from worldmodel.records import shuffled

__all__ = ["ActionScale", "Episodes", "action_digest", "episode_digests", "split"]

_BLOCK = 256  # frames copied at a time when a whole data set is read


@checked(lengths="int E")
@dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes laid end to end, one row per observation.

    Row r holds an observation and the action taken there, which leads to row r + 1 of the same
    episode. The action in the last row of an episode leads nowhere: it is NaN, or its effect was
    not recorded. So L rows are L observations and L − 1 actions that lead somewhere.

    Raises: ValueError if there is no episode, shapes disagree, an episode is shorter than two rows,
        an action that leads somewhere is not finite, or any is infinite.
    """

    #: [R, C, H, W], uint8: a tensor, or a reader from disk. Without pictures: [R, Q], float32.
    frames: Frames
    actions: Tensor  #: [R, A], float32, raw units
    lengths: Tensor  #: [E], int64, rows of each episode; they sum to R
    states: Tensor | None = None  #: [R, S], float32, for probes and success
    #: More observations by name, as `frames`: other cameras, proprioception.
    others: Mapping[str, Frames] = field(default_factory=dict)
    #: Options of each action if they were whole numbers; they are now one-hot, side by side.
    choices: tuple[int, ...] = ()
    offsets: Tensor = field(init=False)  #: [E], first row of each episode; computed

    def __post_init__(self) -> None:
        shortest, e = (int(found) for found in self.lengths.min(0))
        if shortest < 2:
            rule = "at least 2 rows, two observations around an action"
            raise ValueError(f"lengths must be {rule}, got {shortest} in episode {e}")
        rows, taken = int(self.lengths.sum()), self.actions
        observed = {"frames": self.frames, **self.others}
        given = {**observed, "actions": taken, "states": self.states}
        for name, column in given.items():
            if column is None:
                continue
            if column.shape[0] != rows:
                rule = f"{rows} rows, the sum of lengths"
                raise ValueError(f"{name} must have {rule}, got {column.shape[0]}")
            kind, found = (column.dtype, len(column.shape)), f"{column.dtype} {list(column.shape)}"
            if name in observed and kind not in ((torch.uint8, 4), (torch.float32, 2)):
                rule = "uint8 [R, C, H, W] or float32 [R, Q]"
                raise ValueError(f"{name} must be {rule}, got {found}")
            if column is taken and kind != (torch.float32, 2):
                raise ValueError(f"actions must be float32 [R, A], got {found}")
        ends = self.lengths.cumsum(0)
        object.__setattr__(self, "offsets", ends - self.lengths)
        missing = taken.isnan()
        missing[ends - 1] = False  # the last action may be missing
        bad = (taken.isinf() | missing).any(-1)
        if bad.any():
            row = int(bad.nonzero()[0])
            found = f"{taken[row].tolist()} in row {row}"
            raise ValueError(f"actions must be finite inside an episode, got {found}")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_missing(self) -> int:
        """Rows whose action is NaN: in published files one per episode, at its end."""
        return int(self.actions.isnan().any(-1).sum())

    @property
    def stated(self) -> Tensor:
        """[E], bool: episodes whose states are all finite, or that have none."""
        if self.states is None:
            return torch.ones_like(self.lengths, dtype=torch.bool)
        parts = self.states.isfinite().all(-1).split(self.lengths.tolist())
        return torch.stack([part.all() for part in parts])

    @checked(subset="int N")
    def rows(self, subset: Tensor | None = None) -> Tensor:
        """Row numbers of the episodes `subset` (not empty), in its order; None means all."""
        every = torch.arange(len(self), device=self.lengths.device)
        chosen = every if subset is None else subset.long()  # of uint8 it would be a mask
        lengths = self.lengths[chosen]
        first = self.offsets[chosen] - (lengths.cumsum(0) - lengths)
        starts = torch.repeat_interleave(first, lengths)
        return starts + torch.arange(len(starts), device=starts.device)

    def in_memory(self) -> "Episodes":
        """The same episodes with every observation in one tensor, the fastest source of windows."""
        if all(isinstance(seen, Tensor) for seen in (self.frames, *self.others.values())):
            return self
        others = {name: _in_memory(seen) for name, seen in self.others.items()}
        return replace(self, frames=_in_memory(self.frames), others=others)


def _in_memory(frames: Frames) -> Tensor:
    if isinstance(frames, Tensor):
        return frames
    out = torch.empty(tuple(frames.shape), dtype=frames.dtype, device="cpu")
    every = torch.arange(len(out), device="cpu")
    for part, rows in zip(out.split(_BLOCK), every.split(_BLOCK), strict=True):
        part[:] = frames[rows]
    return out


@checked(mean="A", std="A")
@dataclass(frozen=True)
class ActionScale:
    """Standardises raw actions: (a − mean) / std, per raw action dim."""

    mean: Tensor  #: [A]
    std: Tensor  #: [A], positive; 0 for a dim that never moved: plans hold it at its mean

    @classmethod
    @checked(subset="int N")
    def fit(cls, episodes: Episodes, subset: Tensor | None = None) -> "ActionScale":
        """Statistics over the actions of the training episodes `subset`, NaN rows left out."""
        actions = episodes.actions[episodes.rows(subset)]
        actions = actions[actions.isfinite().all(-1)]
        std, exact = actions.std(0, correction=0), actions.double().std(0, correction=0)
        low, high = actions.aminmax(dim=0)
        # Differences of the size of rounding are no motion, in any unit.
        still = high - low <= 4 * torch.finfo(std.dtype).eps * torch.maximum(-low, high)
        std = torch.where(std > 1e-6, std, exact.to(std)).masked_fill(still, 0.0)
        return cls(torch.where(still, low, actions.mean(0)), std)

    @property
    def held(self) -> list[int]:
        """Dims that never moved in the training data, so that a model knows nothing of them."""
        return (self.std == 0).nonzero().flatten().tolist()

    @property
    def held_in_words(self) -> str:
        """A sentence about `held` for reports."""
        where = ", ".join(f"{dim} (always {float(self.mean[dim]):.4g})" for dim in self.held)
        return f"action {where} never moved in the training data: plans hold it there"

    @checked(actions="* A")
    def normalise(self, actions: Tensor) -> Tensor:
        """Raw blocks [..., n × A] to the model's units; NaN stays NaN."""
        single = actions.unflatten(-1, (-1, len(self.mean)))
        std = torch.where(self.std > 0, self.std, torch.ones_like(self.std))
        return ((single - self.mean) / std).flatten(-2)


@checked(num="[2, inf)", held_out="(0, 1)")
def split(num: int, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split episode indices into training and held-out ones; windows never cross.

    `held_out` is the fraction kept out; at least one of `num` episodes lands on each side.

    Returns: two sorted index tensors.
    Raises: ValueError if `num` < 2 or `held_out` is not inside (0, 1).
    """
    order = shuffled(num, seed)
    kept = min(max(round(num * held_out), 1), num - 1)
    return order[kept:].sort().values, order[:kept].sort().values


def action_digest(actions: NDArray[np.float32]) -> str:
    """A name of an episode by its actions, to tell training from test data.

    The first 16 hex digits of SHA-256 over its raw float32 actions [L − 1, A]. It does not depend
    on frame size, file or order. Episodes with equal actions share it.
    """
    return hashlib.sha256(np.ascontiguousarray(actions, "<f4").tobytes()).hexdigest()[:16]


@checked()
def episode_digests(episodes: Episodes) -> list[str]:
    """`action_digest` of each of E episodes, without the last action."""
    parts = episodes.actions.split(episodes.lengths.tolist())
    return [action_digest(part[:-1].numpy()) for part in parts]
