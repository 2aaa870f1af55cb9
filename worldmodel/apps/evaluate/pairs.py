"""Start and goal pairs that one unseen episode visited, none of them solved before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds import World

__all__ = ["Pairs", "make_pairs"]

Floats = NDArray[np.float32]


class Pairs(NamedTuple):
    """Where to start and where to end, both visited by one episode `offset` steps apart.

    Attributes:
        starts: [N, S], states of the world.
        goals: [N, S].
        episodes: [N], which episode each comes from.
        rows: [N], which of its states is the start.
        dropped: how many drawn pairs were left out, solved before the first step.
    """

    starts: Floats
    goals: Floats
    episodes: NDArray[np.int64]
    rows: NDArray[np.int64]
    dropped: int

    def take(self, which: NDArray[np.int64] | slice) -> Pairs:
        """Some of them."""
        starts, goals, episodes, rows, dropped = self
        return Pairs(starts[which], goals[which], episodes[which], rows[which], dropped)


def make_pairs(
    world: World,
    episodes: Sequence[Floats],
    num: int,
    *,
    offset: int = 25,
    seed: int,
    keep_solved: bool = False,
) -> Pairs:
    """Draw pairs without replacement, until `num` are not solved already.

    Args:
        world: says what is solved.
        episodes: states [L, S] of each.
        num: N.
        offset: steps from start to goal, in the episode.
        seed: of the draw.
        keep_solved: take every pair as drawn, as the published protocol does.
    Raises: ValueError if no episode is long enough, or there are fewer such pairs.
    """
    lengths = np.asarray([len(states) for states in episodes])
    room = np.maximum(lengths - offset, 0)
    if offset < 1 or not room.any():
        raise ValueError(
            f"offset must be between 1 and the longest episode's {lengths.max()} states, "
            f"that one excluded, got {offset}"
        )
    ends = room.cumsum()
    drawn = np.random.default_rng(seed).permutation(int(ends[-1]))
    episode = np.searchsorted(ends, drawn, side="right")
    row = drawn - (ends - room)[episode]
    states = np.concatenate([np.asarray(part, np.float32) for part in episodes])
    first = (lengths.cumsum() - lengths)[episode] + row
    starts, goals = states[first], states[first + offset]
    unsolved = np.ones(len(drawn), bool) if keep_solved else ~world.success(starts, goals)
    kept = np.flatnonzero(unsolved)[:num]
    if len(kept) < num:
        raise ValueError(f"num (--pairs) must be at most the {len(kept)} unsolved pairs, got {num}")
    dropped = int(kept[-1]) + 1 - num if num else 0
    return Pairs(starts[kept], goals[kept], episode[kept], row[kept], dropped)
