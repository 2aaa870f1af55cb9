"""The counter world: a frame shows its step, the action that led to it, and its episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.worlds import TwoRoom, collect

SIDE = 16
RESET = 255  # shown where an action would be, in the first frame of an episode


@dataclass(frozen=True)
class CounterEpisode:
    """L frames around L − 1 actions.

    Attributes:
        frames: [L, 3, SIDE, SIDE], uint8: channel 0 shows the step, 1 the last action, 2 the
            episode.
        actions: [L − 1, 2], float32: (number, −number), a number below 251 per step.
        states: [L, 3], float32: step, last action, episode.
    """

    frames: Any
    actions: Any
    states: Any


def counter_episode(episode: int, length: int) -> CounterEpisode:
    """One walk through the counter world."""
    taken = (np.arange(length - 1) * 7 + episode * 31) % 251
    shown = np.stack(
        [np.arange(length), np.concatenate([[RESET], taken]), np.full(length, episode)], axis=1
    )
    frames = np.broadcast_to(shown[:, :, None, None], (length, 3, SIDE, SIDE)).astype(np.uint8)
    actions = np.stack([taken, -taken], axis=1).astype(np.float32)
    return CounterEpisode(frames, actions, shown.astype(np.float32))


def as_episodes(walks: Sequence[CounterEpisode]) -> Episodes:
    """Walks laid end to end, NaN behind the last action of each."""
    nan = np.full((1, 2), np.nan, np.float32)
    return Episodes(
        torch.from_numpy(np.concatenate([walk.frames for walk in walks])),
        torch.from_numpy(np.concatenate([np.vstack([walk.actions, nan]) for walk in walks])),
        torch.tensor([len(walk.frames) for walk in walks]),
        torch.from_numpy(np.concatenate([walk.states for walk in walks])),
    )


@pytest.fixture
def counter_walks() -> Callable[[Sequence[int]], list[CounterEpisode]]:
    """Lengths -> one walk each."""
    return lambda lengths: [counter_episode(e, length) for e, length in enumerate(lengths)]


@pytest.fixture
def counter_world() -> Callable[[Sequence[int]], Episodes]:
    """Lengths -> the walks as Episodes in memory."""
    return lambda lengths: as_episodes([counter_episode(e, n) for e, n in enumerate(lengths)])


@pytest.fixture
def two_room_windows() -> Callable[[int], Windows]:
    """Frame side -> windows of a few walks through Two-Room, actions standardised."""

    def windows(side: int) -> Windows:
        walks, world = collect(TwoRoom(side), 30, 40, seed=3), TwoRoom(side)
        nowhere = np.full((30, 1, 2), np.nan, np.float32)
        actions = np.concatenate([walks.actions, nowhere], axis=1).reshape(-1, 2)
        states = walks.states.reshape(-1, 2)
        episodes = Episodes(
            torch.from_numpy(world.render(states)),
            torch.from_numpy(actions),
            torch.full((30,), 41),
            torch.from_numpy(states),
        )
        return Windows(episodes, scale=ActionScale.fit(episodes))

    return windows
