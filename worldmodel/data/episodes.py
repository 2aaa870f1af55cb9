"""Episodes as flat rows in memory: the one form every reader produces."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["ActionScale", "Episodes", "split"]


@dataclass(frozen=True)
class Episodes:
    """Episodes laid end to end, one row per observation.

    Row r holds an observation and the action taken there; it leads to row r + 1 of the same
    episode. The last row of an episode leads nowhere: its action is NaN. An episode of L rows thus
    has L observations and L − 1 actions.

    Attributes:
        frames: [R, C, H, W], uint8.
        actions: [R, A], float32, raw units.
        lengths: [E], rows of each episode; they sum to R.
        states: [R, S] float32 for probes and success, or None.
    Raises: ValueError if shapes disagree, an episode is shorter than two rows, or an action that
        leads somewhere is not finite.
    """

    frames: Tensor
    actions: Tensor
    lengths: Tensor
    states: Tensor | None = None
    offsets: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows = int(self.lengths.sum())
        named = {"frames": self.frames, "actions": self.actions}
        if self.states is not None:
            named["states"] = self.states
        for name, value in named.items():
            if len(value) != rows:
                raise ValueError(f"{name} must have {rows} rows, one per step, got {len(value)}")
        if len(self.lengths) == 0 or int(self.lengths.min()) < 2:
            raise ValueError("episodes must be at least one, each of two rows or more")
        if self.frames.dtype != torch.uint8 or self.frames.dim() != 4:
            raise ValueError(
                f"frames must be uint8 [R, C, H, W], got {self.frames.dtype} "
                f"{list(self.frames.shape)}"
            )
        ends = self.lengths.cumsum(0)
        object.__setattr__(self, "offsets", ends - self.lengths)
        leads = torch.ones(rows, dtype=torch.bool)
        leads[ends - 1] = False
        finite = self.actions.isfinite().all(-1) | ~leads
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ValueError(
                f"actions must be finite inside an episode, got NaN or inf in row {row}"
            )

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class ActionScale:
    """Standardises raw actions: (a − mean) / std, per raw action dim.

    Attributes:
        mean: [A].
        std: [A], positive; a dim that never moved has 1.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, episodes: Episodes, subset: Tensor | None = None) -> ActionScale:
        """Statistics over the actions of the episodes `subset`, NaN rows left out."""
        rows = _rows(episodes, subset)
        actions = episodes.actions[rows]
        actions = actions[actions.isfinite().all(-1)]
        std = actions.std(0, correction=0)
        return cls(actions.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std)))

    def normalise(self, actions: Tensor) -> Tensor:
        """Raw blocks [..., n × A] to the model's units."""
        single = actions.unflatten(-1, (-1, len(self.mean)))
        out: Tensor = ((single - self.mean) / self.std).flatten(-2)
        return out


def _rows(episodes: Episodes, subset: Tensor | None) -> Tensor:
    chosen = torch.arange(len(episodes)) if subset is None else subset
    return torch.cat(
        [
            torch.arange(int(n)) + int(o)
            for n, o in zip(episodes.lengths[chosen], episodes.offsets[chosen], strict=True)
        ]
    )


def split(num: int, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split episode indices: train and held out, never a window of one in the other.

    Args:
        num: number of episodes, at least 2.
        held_out: fraction kept out, between 0 and 1; at least one episode lands on each side.
        seed: of the permutation.
    Returns: two sorted index tensors.
    Raises: ValueError if `num` < 2 or `held_out` is not inside (0, 1).
    """
    if num < 2 or not 0 < held_out < 1:
        raise ValueError(f"a split needs num >= 2 and 0 < held_out < 1, got {num} and {held_out}")
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    kept = min(max(round(num * held_out), 1), num - 1)
    return order[kept:].sort().values, order[:kept].sort().values
