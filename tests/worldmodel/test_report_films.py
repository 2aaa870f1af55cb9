"""Videos play to their end, stop at the goal, and show the goal's tolerance."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from worldmodel.apps.evaluate.films import _PLACES, Film, film_suffix, sheets, write_film
from worldmodel.worlds import TwoRoom
from worldmodel.worlds.push_t import PushT

DISPLAY = TwoRoom(64)


def film(success: list[bool], steps: list[int], **changes: Any) -> Film:
    """Episodes that walk right for ten steps."""
    num = len(success)
    paths = np.zeros((num, 11, 2), np.float32) + 40
    paths[:, :, 0] += 5 * np.arange(11)
    goals = np.full((num, 2), 150, np.float32)
    found = Film([""] * num, paths, goals, np.asarray(success), np.asarray(steps))
    return found._replace(**changes)


def pixels(shown: Film, across: int = 1) -> list[NDArray[np.int64]]:
    """The pictures of a film."""
    return [np.asarray(sheet, np.int64) for sheet in sheets(shown, DISPLAY, across)]


def test_a_gif_plays_to_the_end_of_the_longest_episode(tmp_path: Path) -> None:
    """Eleven states are eleven frames, each a new picture, and the last is held; it repeats."""
    write_film(film([False, True], [10, 4]), DISPLAY, tmp_path / "a.gif", across=2)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        frames, shown = [], []
        for n in range(image.n_frames):
            image.seek(n)
            frames.append(np.asarray(image.convert("RGB"), np.int64))
            shown.append(image.info["duration"])
    assert shown == [90] * 10 + [1500]
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gif"]


def test_an_mp4_shows_the_same(tmp_path: Path) -> None:
    """A picture a step, a second and a half of the last, the colours of the GIF."""
    av = pytest.importorskip("av", reason="PyAV is not installed (sigreg[lerobot])")
    if film_suffix() != ".mp4":
        pytest.skip("this PyAV has no H.264 encoder")
    write_film(film([False, True], [10, 4]), DISPLAY, tmp_path / "a.mp4", across=2)
    with av.open(tmp_path / "a.mp4") as container:
        frames = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)]
    assert len(frames) == 11 + 16
    wanted = pixels(film([False, True], [10, 4]), 2)
    for one, two in zip(frames, wanted, strict=False):
        assert one.shape == two.shape
        assert np.abs(one - two).mean() < 6


def test_without_pyav_films_are_gifs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The suffix follows what is installed; another kind of file is refused."""
    monkeypatch.setitem(__import__("sys").modules, "av.codec", None)
    assert film_suffix() == ".gif"
    with pytest.raises(ValueError, match=r"path must end in \.gif or \.mp4, got .*a\.webm"):
        write_film(film([True], [3]), DISPLAY, tmp_path / "a.webm")
    assert list(tmp_path.iterdir()) == []


def test_an_episode_that_arrived_stands_still() -> None:
    """Behind its step of success a panel does not change while the others continue."""
    frames = pixels(film([True, False], [4, 10]), across=2)
    panel = 2 * 64 + 6
    for later in frames[6:]:
        assert (later[:, :panel] == frames[5][:, :panel]).all()
    assert (frames[3][:, :panel] != frames[5][:, :panel]).any()
    assert (frames[10][:, panel + 12 :] != frames[5][:, panel + 12 :]).any()


@pytest.mark.parametrize("num", [1, 3, 6])
def test_sheets_hold_any_number_of_episodes(num: int) -> None:
    """Two episodes a row: one alone, an odd one and six fit; sides are even, as H.264 wants."""
    frame = pixels(film([True] * num, [3] * num), across=2)[0]
    rows = (num + 1) // 2
    assert frame.shape[0] == rows * 90 - 6
    assert frame.shape[1] == (134 if num == 1 else 2 * 146 - 12)


def test_what_the_plan_expects_changes_with_each_decision() -> None:
    """The third picture is that of the newest plan, and policies without plans have none."""
    expected = np.asarray([[[30, 30]], [[190, 190]]], np.float32)
    frames = pixels(film([False], [10], expected=expected, every=5))
    third = [frame[:64, 2 * 70 :] for frame in frames]
    assert frames[0].shape[1] == 3 * 70 - 6
    assert all((third[t] == third[0]).all() for t in range(5))
    assert all((third[t] == third[5]).all() for t in range(5, 11))
    assert (third[0] != third[5]).any()


@pytest.mark.parametrize("side", [64, 128])
def test_the_circle_is_as_wide_as_the_tolerance(side: int) -> None:
    """Its ink lies 16 of 224 units from the goal's centre, in the world's picture alone."""
    display = TwoRoom(side)
    picture = np.asarray(next(sheets(film([False], [10]), display)), np.int64)[:side]
    ink = np.abs(picture - ImageColor.getrgb("#2f9e6f")).sum(-1) < 40
    rows, columns = np.argwhere(ink[:, :side]).T
    scale = side / 224
    far = np.hypot(columns - 150 * scale, rows - 150 * scale)
    assert len(far) > 10
    assert np.abs(far - 16 * scale).max() < 2  # a pixel of ink, and rounding to pixels
    assert not ink[:, side:].any()


def test_the_tolerances_are_those_of_the_worlds() -> None:
    """What films take for the side of a picture and the tolerance is what the worlds go by."""
    assert _PLACES["two"] == ((0,), TwoRoom.size, TwoRoom.success_radius)
    assert _PLACES["push"] == ((0, 2), 512.0, PushT.position_tolerance)
    for name in ("two-room", "maze", "maze-7", "push-t"):
        assert name.split("-")[0] in _PLACES


def test_a_world_whose_states_are_no_places_has_no_circle() -> None:
    """Nothing is drawn into the pictures of a world that is not known to have places."""
    other = SimpleNamespace(name="reacher", draw=DISPLAY.draw)
    shown = film([False], [10])
    first = np.asarray(next(sheets(shown, other)), np.int64)  # type: ignore[arg-type]
    frame = DISPLAY.draw(shown.paths[:, 0])[0].transpose(1, 2, 0)
    assert (first[:64, :64] == frame).all()
