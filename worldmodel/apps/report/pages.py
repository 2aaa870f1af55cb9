"""Pages for people: one HTML file each, which fetches nothing. Templates escape whatever they get."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from worldmodel.apps.report import words
from worldmodel.apps.report.charts import (
    Cloud,
    Line,
    Panel,
    Range,
    bars,
    clouds,
    panels,
    position_colours,
    ranges,
    svg,
)
from worldmodel.apps.report.figures import tune_chart
from worldmodel.apps.report.lines import Content, actor, historical, rates
from worldmodel.apps.study.records import (
    Foresight,
    LatentMap,
    Probes,
    Spread,
    Straightness,
    StudyReport,
    Violations,
)
from worldmodel.study import Estimate, proportion

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

__all__ = ["compare_page", "data_address", "demo_page", "evaluate_page", "render", "study_page",
           "tune_page"]  # fmt: skip

_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


class _Shown(NamedTuple):
    """A picture of a page: an SVG, or an address."""

    svg: Any
    data: str


def study_page(report: StudyReport) -> str:
    """The page of a study.

    Args:
        report: StudyReport, pictures included.
    Returns: HTML.
    """
    charts: dict[str, Any] = dict.fromkeys(("checkpoints", "world"), "")
    tiles: list[tuple[str, str]] = []
    for name, part in report.parts.items():
        match part:
            case Probes():
                charts[name] = _probes(part)
                known = [q for q in part.quantities if q.varies]
                if known:
                    worst = min(known, key=lambda q: _or(q.linear.r2.value, -math.inf))
                    tiles.append(
                        (words.number(worst.linear.r2.value), f"linear R² of {worst.name}")
                    )
            case Foresight():
                charts[name] = _foresight(part)
                ratio = part.model[-1].value / max(part.copy[-1].value, 1e-12)
                ahead = words.plural(part.horizons[-1], "step")
                tiles.append((f"{ratio:.2f}×", f"the error of copying, {ahead} ahead"))
            case Violations():
                charts[name] = _violations(part)
                effect = part.tests["teleport against undisturbed"].effect.value
                tiles.append((words.number(effect), "effect of a teleport on surprise, in σ"))
            case Straightness():
                charts[name] = _straightness(part)
                if part.checkpoints:
                    charts["checkpoints"] = _course(part)
            case Spread():
                spectrum = bars(part.spectrum, "direction", "share of the variance")
                charts[name] = _markup(spectrum, "Spectrum")
                of = f"effective rank, of {part.embedding_dims:,} dims"
                tiles.append((words.number(part.effective_rank.value), of))
            case LatentMap():
                charts |= _map(part)
    return render("study.html", report=report, charts=charts, tiles=tiles)


def evaluate_page(result: Content, films: Mapping[str, Path]) -> str:
    """The page of an evaluation.

    Args:
        result: what `result.json` holds.
        films: GIF or MP4 files to show, by name ("successes", "failures").
    Returns: HTML.
    """
    rows = rates(result)
    shown = [Range(r["title"], r["rate"], r["low"], r["high"], int(i > 0) * 3)
             for i, r in enumerate(rows) if r["rate"] is not None]  # fmt: skip
    return render(
        "evaluate.html",
        result=result,
        actor=actor(result),
        caveat=historical(result),
        rates=rows,
        chart=_markup(ranges(shown, (0, 1), percent=True), "Goals reached"),
        films=[(name, data_address(path)) for name, path in films.items()],
    )


def compare_page(found: Content, names: tuple[str, str] = ("A", "B")) -> str:
    """The page of a comparison.

    Args:
        found: what `compare --out` writes.
        names: of both results.
    Returns: HTML.
    """
    parts = []
    for kind, title in (("success", "at any step"), ("success_at_end", "at the end")):
        part = found[kind]
        rows = []
        for place, letter in enumerate("ab"):
            e = proportion(part[letter] * part["pairs"], part["pairs"])
            rows.append(Range(letter.upper(), e.value, e.low, e.high, place))
        chart = ranges(rows, (0, 1), percent=True)
        parts.append((title, part, _markup(chart, f"Success {title}")))
    return render("compare.html", found=found, names=names, parts=parts)


def tune_page(tune: Content) -> str:
    """The page of a search for λ, finished or not.

    Args:
        tune: what `tune.json` holds.
    Returns: HTML.
    """
    weight = tune["result"]["weight"] if "result" in tune else None
    chart = (
        _markup(tune_chart(tune["trials"], weight), "Shortfalls over λ") if tune["trials"] else ""
    )
    return render("tune.html", tune={"result": None} | dict(tune), chart=chart)


def demo_page(report: Content, pictures: Mapping[str, Path | Figure]) -> str:
    """The page of a demo.

    Args:
        report: what `report.json` holds.
        pictures: PNG, GIF or MP4 files, or figures in the page's own colours, by their titles.
    Returns: HTML.
    """
    shown = [
        (title, _Shown(None, data_address(source)))
        if isinstance(source, Path)
        else (title, _Shown(_markup(source, title), ""))
        for title, source in pictures.items()
    ]
    return render("demo.html", report=report, pictures=shown)


def render(template: str, **content: object) -> str:
    """One of the templates, filled in; a name that is missing is an error."""
    return _environment().get_template(template).render(**content)


def data_address(picture: Path | np.ndarray[Any, Any]) -> str:
    """A PNG, GIF or MP4 file, or pixels uint8 [H, W, 3], as an address that holds it whole."""
    if isinstance(picture, Path):
        kind, content = _TYPES[picture.suffix], picture.read_bytes()
    else:
        memory = io.BytesIO()
        Image.fromarray(picture).save(memory, "PNG", optimize=True)
        kind, content = "image/png", memory.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "basename": lambda path: Path(path).name or str(path),
        "number": words.number,
        "p_value": words.p_value,
        "percent": words.percent,
        "plural": words.plural,
        "png": data_address,
        "points": words.points,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    return environment


def _markup(figure: Figure, title: str) -> Any:
    from markupsafe import Markup

    # Our own SVG, in which matplotlib has escaped every text.
    return Markup(svg(figure, title))  # noqa: S704


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _line(name: str, x: list[int], estimates: list[Estimate], colour: int) -> Line:
    value, low, high = (
        [getattr(e, field) for e in estimates] for field in ("value", "low", "high")
    )
    return Line(name, x, value, low, high, colour)


def _range(name: str, e: Estimate, colour: int) -> Range:
    return Range(name, e.value, e.low, e.high, colour)


def _probes(part: Probes) -> Any:
    rows = [
        _range(f"{q.name}, {kind}", score.r2, colour)
        for q in part.quantities[:8]
        if q.varies
        for kind, score, colour in (("line", q.linear, 0), ("network", q.mlp, 2))
    ]
    lowest = min((_or(row.low, 0.9) for row in rows), default=0.9)
    return _markup(ranges(rows, (min(max(lowest, -0.2), 0.9), 1.0)), "R² of probes") if rows else ""


def _foresight(part: Foresight) -> Any:
    lines = [
        _line("model", part.horizons, part.model, 0),
        _line("copy the last embedding", part.horizons, part.copy, 1),
        _line("always the mean", part.horizons, part.mean, 3),
    ]
    panel = Panel(lines, "steps ahead", "squared error / variance")
    return _markup(panels(panel), "Open-loop error against horizon")


def _violations(part: Violations) -> Any:
    colours = {"undisturbed": 2, "recolour": 3, "teleport": 1}
    lines = [_line(name, part.frames, part.surprise[name], c) for name, c in colours.items()]
    moment = (part.at_frame, "the impossible")
    panel = Panel(lines, "frame", "surprise (log)", log_y=True, moment=moment)
    return _markup(panels(panel), "Surprise against time")


def _straightness(part: Straightness) -> Any:
    shown = (("trained model", part.trained, 0), ("fresh weights", part.untrained, 3),
             ("true states", part.true_states, 2))  # fmt: skip
    rows = [_range(name, e, colour) for name, e, colour in shown if e is not None]
    lowest = min(0.0, *(_or(row.low, 0.0) for row in rows))
    span = (max(-1.0, math.floor(2 * lowest) / 2), 1.0)
    return _markup(ranges(rows, span), "Straightness")


def _course(part: Straightness) -> Any:
    steps = [c.step for c in part.checkpoints]
    line = _line("straightness", steps, [c.straightness for c in part.checkpoints], 0)
    panel = Panel([line], "training step", "mean cosine")
    return _markup(panels(panel), "Straightness against training")


def _map(part: LatentMap) -> dict[str, Any]:
    places = part.time[:, None] if part.states is None else part.states
    colours = position_colours(places)
    axes = ("first principal component", "second")
    labels = [f"{name} ({100 * share:.0f} %)" for name, share in zip(axes, part.share)]
    points = part.points
    if points.shape[1] == 1:
        points, labels = np.column_stack([points, np.zeros(len(points))]), [labels[0], ""]
    found = {
        "map": _markup(clouds(Cloud(points, labels[0], labels[1]), colours=colours), "Latent map")
    }
    if places.shape[1] == 2:
        cloud = Cloud(places, "x", "y", down=part.in_picture)
        found["world"] = _markup(clouds(cloud, colours=colours), "True states")
    return found
