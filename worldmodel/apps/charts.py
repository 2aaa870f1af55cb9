"""Two small charts, lines and points, drawn with Pillow.

A plotting library would be the apps' largest dependency by far; these two need none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["PALETTE", "Series", "line_chart", "point_chart", "save_picture", "stack"]

INK, FAINT, GRID, PAPER = "#2b3040", "#7a8090", "#e4e5ea", "#ffffff"
PALETTE = ("#3c6fd1", "#de4937", "#2f9e6f", "#b07a1e")
_OVER = 2  # drawn at twice the size and scaled down, for smooth edges


class Series(NamedTuple):
    """One line: x and y [N], and its name in the legend."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    name: str


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _OVER)


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between low and high."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step) * step
    return [first + i * step for i in range(int((high - first) / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with their twos and fives where there are few; even steps within a decade."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
    return found if len(found) > 1 else _ticks(low, high)


class _Axes:
    """A frame with ticks: where numbers land on the picture."""

    def __init__(
        self,
        size: tuple[int, int],
        title: str,
        labels: tuple[str, str],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        log_y: bool = False,
    ) -> None:
        self.map_y: Callable[[float], float] = math.log10 if log_y else float
        self.x, self.y = x, (self.map_y(y[0]), self.map_y(y[1]))
        width, height = (side * _OVER for side in size)
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.box = (64 * _OVER, 40 * _OVER, width - 16 * _OVER, height - 46 * _OVER)
        left, _, right, bottom = self.box
        y_ticks = _log_ticks(*y) if log_y else _ticks(*y)
        for value in y_ticks:
            row = self.at(x[0], value)[1]
            self.draw.line((left, row, right, row), GRID, _OVER)
            self.draw.text((left - 6 * _OVER, row), f"{value:g}", FAINT, _font(11), anchor="rm")
        for value in _ticks(*x):
            column = self.at(value, y[0])[0]
            self.draw.line((column, bottom, column, bottom + 4 * _OVER), FAINT, _OVER)
            self.draw.text(
                (column, bottom + 7 * _OVER), f"{value:g}", FAINT, _font(11), anchor="mt"
            )
        self.draw.line((left, bottom, right, bottom), FAINT, _OVER)
        self.draw.text((left, 14 * _OVER), title, INK, _font(14), anchor="lm")
        middle = ((left + right) / 2, height - 10 * _OVER)
        self.draw.text(middle, labels[0], FAINT, _font(11), anchor="mm")
        self.draw.text((8 * _OVER, 30 * _OVER), labels[1], FAINT, _font(11), anchor="lm")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of the point (x, y)."""
        left, top, right, bottom = self.box
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (self.map_y(y) - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def finish(self) -> Image.Image:
        return self.image.resize(
            (self.image.width // _OVER, self.image.height // _OVER), Image.Resampling.LANCZOS
        )


def _span(values: NDArray[np.float64], pad: float = 0.05) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = pad * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def line_chart(
    lines: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    size: tuple[int, int] = (560, 300),
) -> Image.Image:
    """Lines over a common x, with dashed horizontal marks where asked.

    Args:
        lines: at least one Series of at least one point; a logarithmic axis drops y ≤ 0.
        title: above the chart.
        x_label: below.
        y_label: at the upper left.
        log_y: logarithmic y axis.
        marks: heights to mark, each with a name.
        size: in pixels.
    Raises: ValueError if there is nothing to draw.
    """
    if log_y:
        lines = [Series(s.x[s.y > 0], s.y[s.y > 0], s.name) for s in lines]
    drawn = [s for s in lines if len(s.x)]
    if not drawn:
        raise ValueError("lines must hold a point, above 0 on a logarithmic axis, got none")
    heights = np.concatenate([s.y for s in drawn] + [np.asarray([m[0] for m in marks])])
    if log_y:
        low, high = _span(np.log10(heights))
        y_range = (10**low, 10**high)
    else:
        y_range = _span(heights)
    x_range = _span(np.concatenate([s.x for s in drawn]), pad=0.0)
    if x_range[0] == x_range[1]:
        x_range = _span(np.asarray(x_range))
    axes = _Axes(size, title, (x_label, y_label), x_range, y_range, log_y=log_y)
    left, _, right, _ = axes.box
    for height, name in marks:
        row = axes.at(x_range[0], height)[1]
        for start in range(int(left), int(right), 10 * _OVER):
            axes.draw.line((start, row, start + 5 * _OVER, row), FAINT, _OVER)
        axes.draw.text((right, row - 2 * _OVER), name, FAINT, _font(11), anchor="rb")
    end = float(right)
    for colour, line in reversed(list(zip(itertools.cycle(PALETTE), drawn, strict=False))):
        points = [axes.at(float(x), float(y)) for x, y in zip(line.x, line.y, strict=True)]
        axes.draw.line(points, colour, 2 * _OVER, joint="curve")
        if len(points) == 1:
            # A line of one point is none.
            ((column, row),), r = points, 3 * _OVER
            axes.draw.ellipse((column - r, row - r, column + r, row + r), colour)
        axes.draw.text((end, 14 * _OVER), line.name, colour, _font(12), anchor="rm")
        end -= axes.draw.textlength(line.name, _font(12)) + 14 * _OVER
    return axes.finish()


def point_chart(
    points: NDArray[np.float64],
    colours: NDArray[np.uint8],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (380, 380),
) -> Image.Image:
    """Coloured points [N, 2], colours [N, 3]."""
    axes = _Axes(size, title, (x_label, y_label), _span(points[:, 0]), _span(points[:, 1]))
    for (x, y), colour in zip(points, colours, strict=True):
        column, row = axes.at(float(x), float(y))
        r = 2.5 * _OVER
        axes.draw.ellipse((column - r, row - r, column + r, row + r), tuple(map(int, colour)))
    return axes.finish()


def stack(images: Sequence[Image.Image], *, across: bool = False, gap: int = 8) -> Image.Image:
    """One picture of several, above each other or side by side."""
    widths, heights = [i.width for i in images], [i.height for i in images]
    if across:
        size = (sum(widths) + gap * (len(images) - 1), max(heights))
    else:
        size = (max(widths), sum(heights) + gap * (len(images) - 1))
    sheet = Image.new("RGB", size, PAPER)
    place = 0  # where the next picture begins
    for image in images:
        sheet.paste(image, (place, 0) if across else (0, place))
        place += (image.width if across else image.height) + gap
    return sheet


def save_picture(image: Image.Image, path: Path) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    image.save(temporary, format=path.suffix.removeprefix(".").upper())
    temporary.replace(path)
