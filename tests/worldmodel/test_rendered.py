"""Frames drawn on demand are the frames that would have been stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldmodel.data import Episodes, Windows
from worldmodel.worlds import TwoRoom, collect
from worldmodel.worlds.rendered import RenderedFrames


def test_windows_of_drawn_frames_are_windows_of_stored_ones() -> None:
    """Every window has the same frames and actions, whether its pictures lay in memory or not."""
    world, walks = TwoRoom(16), collect(TwoRoom(16), 3, 20, 0)
    states = walks.states.reshape(-1, 2)
    nothing = np.full((3, 1, 2), np.nan, np.float32)
    actions = torch.from_numpy(np.concatenate([walks.actions, nothing], 1).reshape(-1, 2))
    lengths = torch.full((3,), 21)
    stored = Windows(Episodes(torch.from_numpy(world.render(states)), actions, lengths))
    drawn = Windows(Episodes(RenderedFrames(world, states), actions, lengths))
    index = torch.arange(len(stored))
    for one, two in zip(stored.batch(index), drawn.batch(index), strict=True):
        assert torch.equal(one, two)


def test_only_the_states_asked_for_are_drawn_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that occurs three times in a batch is one picture's work."""
    world = TwoRoom(16)
    states = world.sample_states(np.random.default_rng(0), 9)
    drawn: list[int] = []

    def draw(some: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        drawn.append(len(some))
        return world.render(some)

    monkeypatch.setattr(world, "draw", draw)
    frames = RenderedFrames(world, states)[torch.tensor([[4, 7], [4, 4]])]
    assert drawn == [2]
    assert np.array_equal(frames.flatten(0, 1).numpy(), world.render(states[[4, 7, 4, 4]]))


def test_states_of_another_width_are_refused() -> None:
    """The message says what a state of that world holds."""
    with pytest.raises(ValueError, match=r"states must be \[R, 2\], got \[5, 3\]"):
        RenderedFrames(TwoRoom(16), np.zeros((5, 3), np.float32))
