"""The demo's pictures: a film that plays to its end, curves and a map that hold their data."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldmodel.apps.pictures import _position_colours, episodes_gif, latent_map, training_curves
from worldmodel.worlds import TwoRoom


def film(path: Path, success: list[bool], steps: list[int]) -> tuple[list[np.ndarray], list[int]]:
    """Episodes that walk right for ten steps; the frames of their film and how long each shows."""
    num = len(success)
    paths = np.zeros((num, 11, 2), np.float32) + 40
    paths[:, :, 0] += 5 * np.arange(11)
    goals = np.full((num, 2), 150, np.float32)
    episodes_gif(paths, goals, np.asarray(success), np.asarray(steps), path, side=32)
    frames, shown = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for n in range(image.n_frames):
            image.seek(n)
            frames.append(np.asarray(image.convert("RGB"), np.int64))
            shown.append(image.info["duration"])
    return frames, shown


def test_a_film_plays_to_the_end_of_the_longest_episode(tmp_path: Path) -> None:
    """Eleven states are eleven frames, each a new picture, and the last is held."""
    frames, shown = film(tmp_path / "a.gif", [False, True], [10, 4])
    assert len(frames) == 11
    assert shown == [90] * 10 + [1500]
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gif"]


def test_an_episode_that_arrived_stands_still(tmp_path: Path) -> None:
    """Behind its step of success a panel does not change while the others go on."""
    frames, _ = film(tmp_path / "a.gif", [True, False], [4, 10])
    panel = 2 * 32 + 6
    # Each sheet has its own 64 colours, so the same picture may differ by shades.
    for later in frames[6:]:
        assert np.abs(later[:, :panel] - frames[5][:, :panel]).max() < 60
    assert np.abs(frames[3][:, :panel] - frames[5][:, :panel]).max() > 60
    assert np.abs(frames[10][:, panel + 20 :] - frames[5][:, panel + 20 :]).max() > 60


@pytest.mark.parametrize("num", [1, 3, 6])
def test_sheets_hold_any_number_of_episodes(tmp_path: Path, num: int) -> None:
    """Two episodes a row: one alone, an odd one and six fit."""
    frames, _ = film(tmp_path / "a.gif", [True] * num, [3] * num)
    rows = (num + 1) // 2
    assert frames[0].shape[0] == rows * 54 + (rows - 1) * 6
    assert frames[0].shape[1] == (70 if num == 1 else 160)


def test_curves_are_written_for_one_step_and_for_many(tmp_path: Path) -> None:
    """Both charts stand above each other in one PNG."""
    for num in (1, 40):
        values = np.linspace(2, 1, num).tolist()
        training_curves(list(range(1, num + 1)), values, values, 1.05, tmp_path / "c.png")
        with Image.open(tmp_path / "c.png") as image:
            assert image.size == (560, 608)
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]


def test_the_map_draws_a_frame_in_one_colour_on_both_sides(tmp_path: Path) -> None:
    """The latent point and the true position of a corner share the corner's colour."""
    world = TwoRoom(16)
    states = np.asarray([[0, 0], [224, 0], [0, 224], [224, 224]], np.float32)
    latent_map(states[::-1].astype(np.float64), [0.6, 0.3], states, world, tmp_path / "l.png")
    with Image.open(tmp_path / "l.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    assert pixels.shape == (380, 768, 3)
    for colour in _position_colours(states / world.size):
        columns = np.argwhere(np.abs(pixels - colour).max(-1) < 6)[:, 1]
        assert columns.min() < 380 < columns.max()


def test_position_colours_blend_between_four_corners() -> None:
    """The centre of the unit square has the mean of its corners' colours."""
    corners = _position_colours(np.asarray([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32))
    centre = _position_colours(np.asarray([[0.5, 0.5]], np.float32))[0]
    np.testing.assert_allclose(centre, corners.astype(float).mean(0), atol=1)
    assert len(np.unique(corners, axis=0)) == 4
