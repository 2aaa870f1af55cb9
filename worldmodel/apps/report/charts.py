"""Charts by matplotlib: as SVG in the colours of the page, as PNG in those of its light side."""

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
from worldmodel.study import Estimate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "Cloud", "Line", "Panel", "bars", "clouds", "panels", "position_colours",
           "ranges", "save_chart", "styled", "svg"]  # fmt: skip

INK, FAINT, HAIR = "#24272f", "#6c707b", "#e3e1d9"
PALETTE = ("#3566c4", "#d1452f", "#2c8a5f", "#a8731b")
"""Colours of the lines, counted around; style.css has their dark side too."""
_ROLES = {INK: "ink", FAINT: "faint", HAIR: "hair"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}


class Line(NamedTuple):
    """A line and its band; the legend leaves out "", the line what is NaN."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: int = 0


class Panel(NamedTuple):
    """Lines on one pair of axes; `level` marks a height and `moment` a place on x, by name."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    level: tuple[float, str] | None = None
    moment: tuple[float, str] | None = None


class Cloud(NamedTuple):
    """Points [N, 2]; `down` turns y as a picture has it."""

    points: NDArray[np.floating[Any]]
    x_label: str
    y_label: str
    down: bool = False


def panels(*shown: Panel) -> Figure:
    """Panel above panel.

    Raises: ValueError if a panel has nothing to draw.
    """
    with styled():
        figure = _figure(400, 240 * len(shown))
        for place, panel in enumerate(shown):
            _draw(figure.add_subplot(len(shown), 1, place + 1), panel)
        return figure


def ranges(
    rows: Sequence[tuple[str, Estimate, int]], span: tuple[float, float], *, percent: bool = False
) -> Figure:
    """A name, a dot and its interval a row; what lies outside `span` stops at its end."""
    with styled():
        figure = _figure(400, 30 * len(rows) + 34)
        axes = _name(figure.add_subplot())
        for y, (_, estimate, colour) in enumerate(rows):
            if math.isnan(estimate.value):
                axes.text(span[0], y, " not defined", color=FAINT, va="center")
                continue
            value, low, high = np.clip(estimate[:3], *span)
            axes.plot([low, high], [y, y], color=PALETTE[colour], clip_on=False)
            axes.plot([value], [y], "o", color=PALETTE[colour], markersize=9, clip_on=False)
        axes.set_yticks(range(len(rows)), [_short(name) for name, *_ in rows], color=INK)
        axes.tick_params(axis="y", pad=9)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(*span)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        if percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        return figure


def bars(values: Sequence[float], x_label: str, y_label: str) -> Figure:
    """Values side by side, the first of them at 1."""
    with styled():
        figure = _figure(400, 210)
        _name(figure.add_subplot(), x_label, y_label).bar(range(1, len(values) + 1), values, 0.72)
        return figure


def clouds(*shown: Cloud, colours: NDArray[np.uint8]) -> Figure:
    """Points in colours [N, 3], cloud beside cloud: the same colour is the same frame."""
    with styled():
        figure = _figure(300 * len(shown), 300)
        for place, cloud in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            _name(axes, cloud.x_label, cloud.y_label).grid(axis="x")
            x, y = cloud.points.T
            # Pixels: as paths, a thousand points outweigh the rest of a page.
            axes.scatter(x, y, s=9, c=colours / 255, linewidths=0, rasterized=True)
            if cloud.down:
                axes.invert_yaxis()
        return figure


def position_colours(places: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colours [N, 3] of places [N, 1 or 2], blended between the ends or corners of their range."""
    low, high = places.min(0), places.max(0)
    unit = (places - low) / np.where(high > low, high - low, 1)
    corners = np.asarray([[[53, 102, 196], [222, 73, 55]], [[47, 158, 111], [240, 176, 48]]])
    x, y = unit[:, :1], unit[:, 1:] if unit.shape[1] > 1 else np.zeros((len(unit), 1))
    top, bottom = ((1 - x) * left + x * right for left, right in corners)
    out: NDArray[np.uint8] = np.rint((1 - y) * top + y * bottom).astype(np.uint8)
    return out


def svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page, the same every time; `title` is read aloud."""
    memory = io.StringIO()
    with styled():
        figure.savefig(memory, format="svg", dpi=144, transparent=True, metadata={"Date": None})
    text = memory.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{html.escape(title)}" xmlns:xlink='
    text = head + '"http://www.w3.org/1999/xlink">' + text[text.index(">", box.end()) + 1 :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    # Nothing refers to the names of groups, and a page would have each of them many times.
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)
    for colour, role in _ROLES.items():
        text = text.replace(colour, f"var(--{role})")
    return text


def save_chart(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    memory = io.BytesIO()
    with styled():
        figure.savefig(memory, format="png", dpi=200, metadata={"Software": None})
    write_atomically(path, memory.getvalue())


def styled() -> AbstractContextManager[None]:
    """While this lasts, what matplotlib makes looks like our charts."""
    from matplotlib import rc_context

    return rc_context(fname=Path(__file__).parent / "templates" / "charts.mplstyle")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width / 72, height / 72))  # an SVG counts in points, 72 to the inch


def _name(axes: Axes, x_label: str = "", y_label: str = "") -> Axes:
    """The words of both axes, that of y above."""
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_number)
    return axes


def _short(name: str) -> str:
    """A name that leaves room for the chart."""
    return name if len(name) < 30 else name[:28] + "…"


def _number(value: float, _: object) -> str:
    return f"{value:g}".replace("-", "−")


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    _name(axes, panel.x_label, panel.y_label)
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
        axes.plot(x[kept], y[kept], dots, label=_short(line.name) or "_", **look)
    if not drawn:
        raise ValueError("lines must hold a point, above 0 on a logarithmic axis, got none")
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    axes.minorticks_off()
    for axis, log, most in ((axes.xaxis, panel.log_x, 7), (axes.yaxis, panel.log_y, 6)):
        low, high = axis.get_view_interval()
        # Ones, twos and fives within few decades, powers of ten alone over many.
        subs = (1, 2, 5) if log and math.log10(high / low) < 2.5 else (1,)
        ticks = LogLocator(subs=subs, numticks=8) if log else MaxNLocator(most, steps=[1, 2, 5, 10])
        axis.set_major_locator(ticks)
        axis.set_major_formatter(_number)
    mark: dict[str, Any] = {"color": FAINT, "linewidth": 1, "dashes": (4, 3)}
    if panel.level is not None:
        axes.axhline(panel.level[0], label=_short(panel.level[1]), **mark)
    if panel.moment is not None:
        axes.axvline(panel.moment[0], label=_short(panel.moment[1]), **mark)
    names = axes.get_legend_handles_labels()[1]
    if names:
        columns = 2 if sum(len(str(name)) for name in names) > 48 else 4
        axes.legend(ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1.08))
    axes.set_title(panel.title, loc="right", color=INK)
