"""Charts as SVG that follow the page's colours, and pictures as data URIs: nothing to fetch."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

__all__ = ["Curve", "area", "intervals", "lines", "png", "scatter"]

_WIDTH, _HEIGHT = 440, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 42


class Curve(NamedTuple):
    """A line with its band.

    Attributes:
        name: in the legend.
        x: places.
        estimates: dicts of value, low and high, as `plain` leaves them.
        colour: number of the palette's colour.
    """

    name: str
    x: Sequence[float]
    estimates: Sequence[dict[str, Any]]
    colour: int


class _Axes:
    """Where numbers land, and the frame around them."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        *,
        log: bool = False,
        whole_x: bool = False,
    ) -> None:
        self.log = log
        self.x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        low, high = (math.log10(y[0]), math.log10(y[1])) if log else y
        self.y = (low, high) if high > low else (low - 0.5, high + 0.5)
        self.parts: list[str] = []
        for value in _log_ticks(*self.y) if log else _ticks(*self.y):
            row = self.row(value)
            self.parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{row}" y2="{row}"/>'
            )
            self.text(_LEFT - 7, float(row) + 4, _say(value), "end")
        for value in _ticks(*self.x):
            if not (whole_x and value % 1):
                self.text(float(self.column(value)), _HEIGHT - _BOTTOM + 17, _say(value))
        self.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, labels[0])
        self.text(_LEFT, _TOP - 2, labels[1], "start")

    def column(self, x: float) -> str:
        along = (x - self.x[0]) / (self.x[1] - self.x[0])
        return f"{_LEFT + along * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def row(self, y: float) -> str:
        value = math.log10(max(y, 10 ** self.y[0])) if self.log else y
        along = (value - self.y[0]) / (self.y[1] - self.y[0])
        return f"{_HEIGHT - _BOTTOM - along * (_HEIGHT - _TOP - _BOTTOM - 8):.1f}"

    def text(self, x: float, y: float, words: str, anchor: str = "middle") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
        )

    def finish(self, title: str, height: int = _HEIGHT) -> str:
        return (
            f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
            f"{''.join(self.parts)}</svg>"
        )


def lines(
    curves: Sequence[Curve],
    *,
    title: str,
    labels: tuple[str, str],
    log: bool = False,
    mark: tuple[float, str] | None = None,
) -> str:
    """Lines with 95 % bands over a common x, and their legend; `mark` is a vertical line."""
    ends = [
        v
        for c in curves
        for e in c.estimates
        for v in (e["value"], e["low"], e["high"])
        if v is not None and (v > 0 or not log)
    ]
    if not ends:
        return ""
    low, high = min(ends), max(ends)
    span = (low / 1.3, high * 1.3) if log else (min(low, 0.0), high * 1.06 or 1.0)
    every = [float(x) for c in curves for x in c.x]
    axes = _Axes((min(every), max(every)), span, labels, log=log, whole_x=True)
    if mark is not None:
        at = axes.column(mark[0])
        axes.parts.append(
            f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP + 8}" y2="{_HEIGHT - _BOTTOM}"/>'
        )
        axes.text(float(at) + 5, _TOP + 18, mark[1], "start")
    for curve in reversed(curves):
        known = [
            (x, e) for x, e in zip(curve.x, curve.estimates, strict=True) if e["value"] is not None
        ]
        banded = [(x, e) for x, e in known if e["low"] is not None]
        colour = f"var(--c{curve.colour})"
        if banded:
            band = [f"{axes.column(x)},{axes.row(e['high'])}" for x, e in banded]
            band += [f"{axes.column(x)},{axes.row(e['low'])}" for x, e in reversed(banded)]
            axes.parts.append(f'<polygon class="band" fill="{colour}" points="{" ".join(band)}"/>')
        path = " ".join(f"{axes.column(x)},{axes.row(e['value'])}" for x, e in known)
        axes.parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        axes.parts += [
            f'<circle r="2.6" fill="{colour}" cx="{axes.column(x)}" cy="{axes.row(e["value"])}"/>'
            for x, e in known
        ]
    return legend([(c.name, c.colour) for c in curves]) + axes.finish(title)


def legend(entries: Sequence[tuple[str, int]]) -> str:
    """Names beside their colours."""
    items = "".join(
        f'<span><i style="background:var(--c{colour})"></i>{html.escape(name)}</span>'
        for name, colour in entries
    )
    return f'<p class="legend">{items}</p>'


def intervals(
    rows: Sequence[tuple[str, dict[str, Any], int]], *, title: str, span: tuple[float, float]
) -> str:
    """A dot and its interval a row, on a common scale."""
    height, left = 30 * len(rows) + 34, 168
    parts = []

    def column(value: float) -> float:
        along = (min(max(value, span[0]), span[1]) - span[0]) / (span[1] - span[0])
        return left + along * (_WIDTH - left - 16)

    for value in _ticks(*span):
        x = f"{column(value):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="6" y2="{height - 26}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{_say(value)}</text>')
    for i, (name, e, colour) in enumerate(rows):
        y = 22 + 30 * i
        parts.append(
            f'<text class="ink" x="{left - 14}" y="{y + 4}" text-anchor="end">'
            f"{html.escape(name)}</text>"
        )
        if e["value"] is None:
            parts.append(f'<text x="{left + 4}" y="{y + 4}">not defined</text>')
            continue
        if e["low"] is not None:
            parts.append(
                f'<line class="line" stroke="var(--c{colour})" x1="{column(e["low"]):.1f}" '
                f'x2="{column(e["high"]):.1f}" y1="{y}" y2="{y}"/>'
            )
        parts.append(
            f'<circle r="5" fill="var(--c{colour})" cx="{column(e["value"]):.1f}" cy="{y}"/>'
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def area(values: Sequence[float], *, title: str, labels: tuple[str, str]) -> str:
    """A falling spectrum as bars."""
    axes = _Axes((0.5, len(values) + 0.5), (0.0, max(values) * 1.06 or 1.0), labels, whole_x=True)
    wide = (_WIDTH - _LEFT - _RIGHT) / len(values) * 0.72
    floor = _HEIGHT - _BOTTOM
    for i, value in enumerate(values):
        x, y = float(axes.column(i + 1)) - wide / 2, float(axes.row(value))
        axes.parts.append(
            f'<rect fill="var(--c0)" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
            f'height="{max(floor - y, 0):.1f}"/>'
        )
    return axes.finish(title)


def scatter(
    points: Sequence[Sequence[float]],
    colours: Sequence[str],
    *,
    title: str,
    labels: tuple[str, str],
) -> str:
    """Coloured points."""
    columns = [[p[i] for p in points] for i in (0, 1)]
    spans = []
    for values in columns:
        room = 0.05 * (max(values) - min(values)) or 0.5
        spans.append((min(values) - room, max(values) + room))
    axes = _Axes(spans[0], spans[1], labels)
    axes.parts += [
        f'<circle r="2.4" fill="{colour}" fill-opacity=".8" '
        f'cx="{axes.column(x)}" cy="{axes.row(y)}"/>'
        for (x, y), colour in zip(points, colours, strict=True)
    ]
    return axes.finish(title)


def png(pixels: Any) -> str:
    """uint8 [H, W, 3] -> a data URI."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"


def _say(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    values = [m * 10.0**p for p in powers for m in steps]
    return [v for v in values if low <= math.log10(v) <= high]
