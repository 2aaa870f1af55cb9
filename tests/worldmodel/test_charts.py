"""Charts: the size asked for, every series inside the frame, axes that hold any data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageColor

from worldmodel.apps.charts import (
    PALETTE,
    Series,
    _log_ticks,
    _ticks,
    line_chart,
    point_chart,
    save_picture,
    stack,
)

WORDS = {"title": "t", "x_label": "x", "y_label": "y"}


def series(y: list[float], name: str = "") -> Series:
    """Values over 0, 1, 2 and so on."""
    return Series(np.arange(len(y), dtype=np.float64), np.asarray(y, np.float64), name)


def coloured(image: Image.Image, colour: str) -> NDArray[np.int64]:
    """Rows and columns of pixels near a colour: [N, 2]."""
    apart = np.asarray(image, np.int64) - np.asarray(ImageColor.getrgb(colour))
    return np.argwhere(np.abs(apart).max(-1) < 40)


@pytest.mark.parametrize("log_y", [False, True])
def test_every_series_is_drawn_inside_the_frame(log_y: bool) -> None:
    """Each line has its colour, spans the whole width and stays between the margins."""
    levels = [10.0**k for k in range(4)] if log_y else [1.0, 4.0, 7.0, 10.0]
    lines = [series([y, y + 1, y]) for y in levels]
    image = line_chart(lines, log_y=log_y, size=(400, 240), **WORDS)
    assert image.size == (400, 240)
    for colour in PALETTE:
        found = coloured(image, colour)
        assert found[:, 1].min() <= 66
        assert found[:, 1].max() >= 382
        assert found[:, 0].min() >= 39
        assert found[:, 0].max() <= 195


def test_a_rising_line_rises() -> None:
    """Larger values lie higher up, in proportion to the axis."""
    found = coloured(line_chart([series([0, 1, 2, 3])], **WORDS), PALETTE[0])
    left, right = found[found[:, 1] < 80, 0].mean(), found[found[:, 1] > 530, 0].mean()
    middle = found[np.abs(found[:, 1] - 304) < 8, 0].mean()
    assert left > middle > right
    assert middle == pytest.approx((left + right) / 2, abs=3)


def test_a_fifth_line_is_drawn_too() -> None:
    """Beyond the palette its colours begin anew; nothing is left out."""
    four = [series([float(k), float(k)]) for k in range(4)]
    rows = coloured(line_chart([*four, series([9, 9])], **WORDS), PALETTE[0])[:, 0]
    assert rows.max() - rows.min() > 100


def test_a_log_axis_leaves_zeros_out() -> None:
    """Zeros and negatives have no place on a log axis; the rest is drawn as without them."""
    with_zeros = line_chart([series([0, -1, 1, 10, 100])], log_y=True, **WORDS)
    x, y = np.asarray([2.0, 3, 4]), np.asarray([1.0, 10, 100])
    assert with_zeros.tobytes() == line_chart([Series(x, y, "")], log_y=True, **WORDS).tobytes()


def test_nothing_to_draw_is_refused() -> None:
    """A chart without a point, or without a positive one on a log axis, says so."""
    for lines in ([], [series([0, 0])]):
        with pytest.raises(ValueError, match="lines must hold a point, above 0"):
            line_chart(lines, log_y=True, **WORDS)


@pytest.mark.parametrize("log_y", [False, True])
def test_one_point_and_a_constant_are_drawn(log_y: bool) -> None:
    """No range is empty: a single step, or a value that never moves, has a chart."""
    for y in ([3.0], [3.0, 3.0], [1e-9, 1e-9]):
        assert line_chart([series(y)], log_y=log_y, **WORDS).size == (560, 300)


def test_one_point_beside_a_line_is_seen() -> None:
    """A series of a single point has a dot in its colour, where a line would have none."""
    line = Series(np.arange(9.0), np.full(9, 1.0), "line")
    dot = Series(np.asarray([4.0]), np.asarray([2.0]), "dot")
    picture = np.asarray(line_chart([line, dot], title="", x_label="", y_label=""))
    below = picture[26:].astype(int)  # the legend is above
    close = np.abs(below - ImageColor.getrgb(PALETTE[1])).sum(-1) < 40
    assert close.sum() >= 9


def test_a_mark_outside_the_data_stretches_the_axis() -> None:
    """A dashed mark far above the line is in the picture, so the line moves down."""
    without = coloured(line_chart([series([1, 2])], **WORDS), PALETTE[0])[:, 0].mean()
    found = line_chart([series([1, 2])], marks=[(10.0, "mark")], **WORDS)
    assert coloured(found, PALETTE[0])[:, 0].mean() > without + 50


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    """One to six even steps of 1, 2 or 5 times a power of ten, none outside the axis."""
    high = low + width
    if not high - low > 1e-9 * abs(low):
        return
    ticks = _ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-6 * width <= t <= high + 1e-6 * width for t in ticks)


@given(st.floats(-9, 6), st.floats(0.01, 8))
def test_log_axes_have_ticks_inside(start: float, decades: float) -> None:
    """Within a decade or across many, an axis has at least one number, all inside it."""
    low, high = 10**start, 10 ** (start + decades)
    ticks = _log_ticks(low, high)
    assert ticks
    assert all(low * (1 - 1e-9) <= t <= high * (1 + 1e-6) for t in ticks)


def test_points_keep_their_colours_and_places() -> None:
    """The highest point lies above the lowest, each in its own colour, inside the frame."""
    colours = np.asarray([[200, 0, 0], [0, 0, 200]], np.uint8)
    image = point_chart(np.asarray([[0.0, 0.0], [1.0, 1.0]]), colours, **WORDS)
    red, blue = coloured(image, "#c80000"), coloured(image, "#0000c8")
    assert image.size == (380, 380)
    assert red[:, 0].mean() > blue[:, 0].mean()
    assert red[:, 1].mean() < blue[:, 1].mean()


def test_stacked_pictures_are_whole() -> None:
    """Side by side or above each other, each picture is found where the gaps say."""
    one, two = Image.new("RGB", (4, 3), "#112233"), Image.new("RGB", (2, 5), "#445566")
    wide, tall = stack([one, two], across=True, gap=1), stack([one, two], gap=1)
    assert (wide.size, tall.size) == ((7, 5), (4, 9))
    assert wide.crop((5, 0, 7, 5)).tobytes() == two.tobytes()
    assert tall.crop((0, 4, 2, 9)).tobytes() == two.tobytes()


def test_a_saved_picture_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The file is whole under its name; no temporary one stays."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    save_picture(Image.new("RGB", (4, 3), "#112233"), path)
    with Image.open(path) as image:
        assert image.tobytes() == b"\x11\x22\x33" * 12
    assert list(tmp_path.iterdir()) == [path]
