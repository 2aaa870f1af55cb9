"""Name an episode by what was done in it, so that training and test data can be told apart."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from worldmodel.data.episodes import Episodes

__all__ = ["action_digest", "episode_digests"]


def action_digest(actions: NDArray[np.float32]) -> str:
    """The first 16 hex digits of SHA-256 over the raw float32 actions [L − 1, A] of an episode.

    The same at every frame size, in every file and order. Episodes of equal actions share it.
    """
    return hashlib.sha256(np.ascontiguousarray(actions, "<f4").tobytes()).hexdigest()[:16]


def episode_digests(episodes: Episodes) -> list[str]:
    """`action_digest` of each of E episodes, over the actions that lead somewhere."""
    ends = (episodes.offsets + episodes.lengths - 1).tolist()
    return [
        action_digest(episodes.actions[start:end].numpy())
        for start, end in zip(episodes.offsets.tolist(), ends, strict=True)
    ]
