"""Curves of cost against size as SVG, drawn from a record's numbers and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, GAP = 168, 132, 46, 22, 22
TIME, MEMORY, GUIDE = "#3c6fd1", "#de4937", "#9aa0ad"


def cost_curves(results: Sequence[Mapping[str, Any]]) -> str:
    """One panel a size, both axes logarithmic: milliseconds, mebibytes, and a linear law.

    Args:
        results: records with `sweep`, the size of that name, `seconds.median` and `bytes`.
    Returns: an `<svg>` without an empty line, as HTML inside Markdown must be.
    """
    sweeps = list(dict.fromkeys(r["sweep"] for r in results))
    curves = {}
    for name in sweeps:
        rows = [r for r in results if r["sweep"] == name]
        curves[name] = (
            [float(r[name]) for r in rows],
            [1e3 * r["seconds"]["median"] for r in rows],
            [r["bytes"] / 2**20 for r in rows],
        )
    values = [v for _, *both in curves.values() for series in both for v in series]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    width = LEFT + len(sweeps) * (WIDTH + GAP)
    height = TOP + HEIGHT + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="time and memory against {", ".join(sweeps)}" '
        'font-family="sans-serif" font-size="11" fill="currentColor">'
    ]
    for i, name in enumerate(sweeps):
        parts += _panel(LEFT + i * (WIDTH + GAP), name, *curves[name], low, high, first=i == 0)
    legend = ((TIME, "time, ms", ""), (MEMORY, "peak memory, MiB", ""), (GUIDE, "linear", "4 3"))
    for i, (color, text, dash) in enumerate(legend):
        x, y = LEFT + 150 * i, height - 8
        parts.append(_line([(x, y - 4), (x + 22, y - 4)], color, dash))
        parts.append(f'<text x="{x + 28}" y="{y}">{text}</text>')
    return "\n".join([*parts, "</svg>"])


def _panel(
    left: int,
    name: str,
    sizes: Sequence[float],
    times: Sequence[float],
    memory: Sequence[float],
    low: int,
    high: int,
    *,
    first: bool,
) -> list[str]:
    """Grid, both curves, and through each curve's last point the line of proportionality."""
    span = math.log(sizes[-1] / sizes[0])

    def at(size: float, value: float) -> tuple[float, float]:
        x = left + WIDTH * math.log(size / sizes[0]) / span
        return x, TOP + HEIGHT * (high - math.log10(value)) / (high - low)

    parts = [f'<text x="{left + WIDTH / 2}" y="14" text-anchor="middle">{name}</text>']
    for power in range(low, high + 1):
        _, y = at(sizes[0], 10.0**power)
        parts.append(_line([(left, y), (left + WIDTH, y)], GUIDE, width=0.4))
        if first:
            parts.append(
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:g}</text>'
            )
    for size in sizes:
        x, _ = at(size, 1)
        y = TOP + HEIGHT + 15
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{size:g}</text>')
    for series, color in ((times, TIME), (memory, MEMORY)):
        start = max(sizes[0], sizes[-1] * 10.0**low / series[-1])
        guide = [(size, series[-1] * size / sizes[-1]) for size in (start, sizes[-1])]
        parts.append(_line([at(*point) for point in guide], GUIDE, "4 3"))
        points = [at(*point) for point in zip(sizes, series, strict=True)]
        parts.append(_line(points, color, width=1.8))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in points]
    return parts


def _line(
    points: Sequence[tuple[float, float]], color: str, dash: str = "", width: float = 1.2
) -> str:
    """A polyline."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>'
    )
