"""Charts by matplotlib: as SVG in the colours of the page, light or dark; as PNG in the light ones."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel._files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "PALETTE",
    "Cloud",
    "Line",
    "Panel",
    "Range",
    "bars",
    "clouds",
    "panels",
    "position_colours",
    "ranges",
    "save_chart",
    "svg",
]

INK, FAINT, HAIR = "#24272f", "#6c707b", "#e3e1d9"
PALETTE = ("#3566c4", "#d1452f", "#2c8a5f", "#a8731b")
"""Colours of the lines, one after the other; style.css has them for the night."""
_ROLES = {INK: "ink", FAINT: "faint", HAIR: "hair"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}
# Text stays text, ids depend on the content alone, and a dollar sign in a name is no formula.
_RC: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "worldmodel", "text.parse_math": False,
    "font.size": 11.0, "text.color": INK,
}  # fmt: skip
_POINT = 1 / 72  # inches; an SVG counts in points


class Line(NamedTuple):
    """A line and its band; x, y and where they are given low and high, all [N].

    Attributes:
        name: in the legend; "" has no entry.
        x: places.
        y: values; NaN is left out, and on a logarithmic axis what is not above 0.
        low: lower ends of the intervals.
        high: upper ends.
        colour: which of `PALETTE`, counted around.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: int = 0


class Panel(NamedTuple):
    """One pair of axes with lines.

    Attributes:
        lines: at least one with a point.
        x_label: below.
        y_label: above, at the left.
        title: above that; "" leaves it out.
        log_x: whether x is logarithmic.
        log_y: whether y is.
        level: a height to mark, and its name.
        moment: a place on x to mark, and its name.
    """

    lines: Sequence[Line]
    x_label: str
    y_label: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    level: tuple[float, str] | None = None
    moment: tuple[float, str] | None = None


class Range(NamedTuple):
    """A figure with its interval, NaN where there is none; `colour` is one of `PALETTE`."""

    name: str
    value: float
    low: float
    high: float
    colour: int = 0


class Cloud(NamedTuple):
    """Points [N, 2] and the names of their axes; `down` turns y as a picture has it."""

    points: NDArray[np.floating[Any]]
    x_label: str
    y_label: str
    title: str = ""
    down: bool = False


def panels(*shown: Panel, width: float = 400, height: float = 240) -> Figure:
    """Lines with bands, panel above panel.

    Args:
        shown: Panels.
        width: of the picture, in points.
        height: of one panel.
    Returns: Figure.
    Raises: ValueError if a panel has nothing to draw.
    """
    with _style():
        figure = _figure(width, height * len(shown))
        for place, panel in enumerate(shown):
            _lines(figure.add_subplot(len(shown), 1, place + 1), panel)
        return figure


def ranges(
    rows: Sequence[Range], span: tuple[float, float], *, percent: bool = False, width: float = 400
) -> Figure:
    """A dot and its interval a row, on a common scale; what lies outside stops at its end.

    Args:
        rows: from top to bottom.
        span: of the scale.
        percent: whether the scale is written in percent.
        width: of the picture, in points.
    Returns: Figure.
    """
    with _style():
        figure = _figure(width, 30 * len(rows) + 34)
        axes = figure.add_subplot()
        _dress(axes, grid="x")
        for y, row in enumerate(rows):
            ink = PALETTE[row.colour % len(PALETTE)]
            if math.isnan(row.value):
                axes.text(span[0], y, " not defined", color=FAINT, va="center")
                continue
            low, high, value = np.clip([row.low, row.high, row.value], *span)
            axes.plot([low, high], [y, y], color=ink, linewidth=2.4, solid_capstyle="round")
            axes.plot([value], [y], "o", color=ink, markersize=9, markeredgewidth=0, clip_on=False)
        names = [row.name if len(row.name) < 30 else row.name[:28] + "…" for row in rows]
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(*span)
        if percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        return figure


def bars(values: Sequence[float], x_label: str, y_label: str, width: float = 400) -> Figure:
    """A falling spectrum; the first value stands at 1."""
    with _style():
        figure = _figure(width, 210)
        axes = figure.add_subplot()
        _dress(axes, x_label, y_label)
        axes.bar(range(1, len(values) + 1), values, width=0.72, color=PALETTE[0])
        return figure


def clouds(*shown: Cloud, colours: NDArray[np.uint8], side: float = 300) -> Figure:
    """Coloured points, cloud beside cloud: the same colour is the same frame.

    Args:
        shown: Clouds of N points.
        colours: [N, 3].
        side: of one picture, in points.
    Returns: Figure.
    """
    with _style():
        figure = _figure(side * len(shown), side)
        for place, cloud in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            _dress(axes, cloud.x_label, cloud.y_label, cloud.title, grid="both")
            # Pixels: as paths, a thousand points outweigh the rest of a page.
            x, y = cloud.points.T
            axes.scatter(x, y, s=9, c=colours / 255, linewidths=0, rasterized=True)
            if cloud.down:
                axes.invert_yaxis()
        return figure


def position_colours(places: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """A colour for each place [N, 1 or 2], blended over the range of the places: [N, 3].

    Between four corners where there are two coordinates, between two ends where there is one.
    """
    low, high = places.min(0), places.max(0)
    unit = (places - low) / np.where(high > low, high - low, 1)
    corners = np.asarray([[[53, 102, 196], [222, 73, 55]], [[47, 158, 111], [240, 176, 48]]])
    x = unit[:, :1]
    y = unit[:, 1:] if unit.shape[1] > 1 else np.zeros_like(x)
    top, bottom = ((1 - x) * corners[row, 0] + x * corners[row, 1] for row in (0, 1))
    out: NDArray[np.uint8] = np.rint((1 - y) * top + y * bottom).astype(np.uint8)
    return out


def svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page: its colours are the page's, `title` is read aloud."""
    memory = io.StringIO()
    with _style():
        figure.savefig(memory, format="svg", dpi=144, transparent=True, metadata={"Date": None})
    text = memory.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Nothing refers to the names of groups, and a page would have each of them many times.
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    words = f'<svg {box[0]} role="img" aria-label="{html.escape(title)}"'
    text = re.sub(r"<svg [^>]*>", words + ' xmlns:xlink="http://www.w3.org/1999/xlink">', text)
    for colour, role in _ROLES.items():
        text = text.replace(colour, f"var(--{role})")
    return text


def save_chart(figure: Figure, path: Path) -> None:
    """Write a PNG; a reader never sees half of it.

    Raises: OSError naming `path`.
    """
    memory = io.BytesIO()
    with _style():
        figure.savefig(memory, format="png", dpi=144, metadata={"Software": None})
    write_atomically(path, memory.getvalue())


def _style() -> Any:
    from matplotlib import rc_context

    return rc_context(_RC)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width * _POINT, height * _POINT), layout="constrained", facecolor="#ffffff")


def _dress(
    axes: Axes, x_label: str = "", y_label: str = "", title: str = "", grid: Any = "y"
) -> None:
    """No frame but a grid; words small and faint."""
    axes.set_frame_on(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=HAIR, linewidth=1)
    axes.tick_params(colors=FAINT, length=0, labelsize=10.5)
    axes.tick_params(which="minor", length=0, labelleft=False, labelbottom=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_xlabel(x_label, color=FAINT, fontsize=10.5)
    above = f"{title}\n" if title else ""
    axes.set_title(above + y_label, loc="left", color=FAINT, fontsize=10.5)


def _lines(axes: Axes, panel: Panel) -> None:
    _dress(axes, panel.x_label, panel.y_label)
    drawn = 0
    for place, line in enumerate(panel.lines):
        look: dict[str, Any] = {
            "color": PALETTE[line.colour % len(PALETTE)],
            "zorder": 3 - place / 9,
        }
        x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
        kept = np.isfinite(y) & ((y > 0) | (not panel.log_y))
        drawn += int(kept.sum())
        if line.low is not None and line.high is not None:
            axes.fill_between(x, line.low, line.high, alpha=0.17, linewidth=0, **look)
        dots = "o-" if kept.sum() < 40 else "-"
        axes.plot(x[kept], y[kept], dots, label=line.name or "_", linewidth=2, markersize=4.5,
                  markeredgewidth=0, **look)  # fmt: skip
    if not drawn:
        raise ValueError("lines must hold a point, above 0 on a logarithmic axis, got none")
    _scale(axes, panel)
    mark: dict[str, Any] = {"color": FAINT, "linewidth": 1, "dashes": (4, 3)}
    if panel.level is not None:
        axes.axhline(panel.level[0], label=panel.level[1], **mark)
    if panel.moment is not None:
        axes.axvline(panel.moment[0], label=panel.moment[1], **mark)
    names = [str(name) for name in axes.get_legend_handles_labels()[1]]
    if names:
        axes.legend(ncols=2 if sum(map(len, names)) > 48 else 4, loc="lower left",
                    bbox_to_anchor=(-0.01, 1.08), frameon=False, fontsize=10.5, borderpad=0,
                    handlelength=1.2, borderaxespad=0.3, columnspacing=1.4)  # fmt: skip
    if panel.title:
        axes.set_title(panel.title, loc="right", color=INK, fontsize=11.5)


def _scale(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    for axis, log, most in ((axes.xaxis, panel.log_x, 7), (axes.yaxis, panel.log_y, 5)):
        if not log:
            axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
            continue
        formatter = axis.get_major_formatter()
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        low, high = axis.get_view_interval()
        # Ones, twos and fives within few decades, powers of ten alone over many.
        few = math.log10(high / low) < 2.5
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
        axis.set_major_formatter(formatter)
