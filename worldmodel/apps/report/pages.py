"""Pages, and what a terminal says at the end: templates filled with what a command found.

A page is one HTML file that fetches nothing. Its template escapes whatever it is given; charts are
drawn where the template asks for them.
"""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from worldmodel.apps.report import charts, words
from worldmodel.apps.report.figures import latent_map, tune_chart
from worldmodel.apps.report.published import departures
from worldmodel.apps.study.records import LatentMap, Part, StudyReport, Unavailable
from worldmodel.study import Estimate, proportion

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

__all__ = ["Content", "actor", "compare_lines", "compare_page", "data_address", "demo_lines",
           "demo_page", "evaluate_page", "render", "result_lines", "study_lines", "study_page",
           "tune_page"]  # fmt: skip

Content = Mapping[str, Any]
"""What a JSON file of a command holds."""
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


def study_page(report: StudyReport) -> str:
    """The page of a study, pictures included."""
    return render("study.html", report=report, measured=_measured(report))


def study_lines(report: StudyReport, out: Path) -> list[str]:
    """The first figures of every part, and why the others are missing."""
    return _lines("study.txt", report=report, measured=_measured(report), out=out)


def evaluate_page(result: Content, films: Mapping[str, Path]) -> str:
    """The page of a result.json, with films by name ("successes", "failures")."""
    return render("evaluate.html", result=result, rates=_rates(result), films=films)


def result_lines(result: Content, out: Path) -> list[str]:
    """Rates with intervals, floors under them, and what they cost."""
    return _lines("evaluate.txt", result=result, rates=_rates(result), out=out)


def compare_page(found: Content, names: tuple[str, str] = ("A", "B")) -> str:
    """The page of what `compare` found of two results with these names."""
    return render("compare.html", found=found, names=names)


def compare_lines(found: Content, a: str, b: str) -> list[str]:
    """Both rates, their difference and whether chance explains it."""
    return _lines("compare.txt", found=found, names=(a, b))


def tune_page(tune: Content) -> str:
    """The page of a tune.json, finished or not."""
    return render("tune.html", tune=tune, result=tune.get("result"))


def demo_page(report: Content, pictures: Mapping[str, Path | Figure | LatentMap]) -> str:
    """The page of a demo's report.json, with files, figures or a map by their titles."""
    return render("demo.html", report=report, pictures=pictures)


def demo_lines(report: Content, out: Path) -> list[str]:
    """Success, what is beside it, what the embedding knows, and where to look."""
    return _lines("demo.txt", report=report, out=out)


def render(template: str, **content: object) -> str:
    """A template, filled in; a name that is missing is an error."""
    return _environment().get_template(template).render(**content)


def actor(result: Content) -> str:
    """Who acted: the planner's name, or the policy's."""
    planner = result["fingerprint"]["planner"]
    return planner["name"] if isinstance(planner, dict) else str(planner).removesuffix("Policy")


def data_address(picture: Path | np.ndarray[Any, Any]) -> str:
    """A PNG, GIF or MP4 file, or pixels uint8 [H, W, 3], as an address that holds it whole."""
    if isinstance(picture, Path):
        kind, content = _TYPES[picture.suffix], picture.read_bytes()
    else:
        memory = io.BytesIO()
        Image.fromarray(picture).save(memory, "PNG", optimize=True)
        kind, content = "image/png", memory.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _lines(template: str, **content: object) -> list[str]:
    return render(template, **content).splitlines()


def _measured(report: StudyReport) -> dict[str, Part]:
    return {k: part for k, part in report.parts.items() if not isinstance(part, Unavailable)}


def _rates(result: Content) -> list[tuple[str, Estimate | None, float | None]]:
    """Title, rate and rate at the end of who acted and of the policies beside it."""
    rows = ((actor(result), ""), ("random actions", "random_"), ("no action", "noop_"),
            ("scripted expert", "expert_"))  # fmt: skip
    found = []
    for title, key in rows:
        rate, ends = result[f"{key}success_rate"], result[f"{key}success_interval"]
        at_end = result.get(f"{key}success_rate_at_end")
        estimate = None if rate is None else Estimate(rate, ends[0], ends[1], result["pairs"])
        found.append((title, estimate, at_end))
    return found


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {name: getattr(words, name) for name in words.__all__} | {
        "basename": lambda path: Path(path).name or str(path),
        "address": data_address,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    environment.globals |= {
        "actor": actor,
        "departures": departures,
        "bars": lambda title, *given: _markup(charts.bars(*given), title),
        "curves": _curves,
        "is_file": lambda source: isinstance(source, Path),
        "maps": lambda part: [_markup(f, "Latent map") for f in latent_map(part, apart=True)],
        "is_map": lambda source: isinstance(source, LatentMap),
        "markup": _markup,
        "proportion": proportion,
        "ranges": lambda title, *given, **how: _markup(charts.ranges(*given, **how), title),
        "tune_chart": tune_chart,
    }
    return environment


def _markup(figure: Figure, title: str) -> Any:
    from markupsafe import Markup

    # Our own SVG, in which matplotlib has escaped every text.
    return Markup(charts.svg(figure, title))  # noqa: S704


def _curves(
    title: str,
    lines: Sequence[tuple[str, Sequence[float], Sequence[Estimate], int]],
    x_label: str,
    y_label: str,
    **how: Any,
) -> Any:
    """Lines of estimates with their bands."""
    drawn = [
        charts.Line(name, x, [e.value for e in found], [e.low for e in found],
                    [e.high for e in found], colour)
        for name, x, found, colour in lines
    ]  # fmt: skip
    return _markup(charts.panels(charts.Panel(drawn, x_label, y_label, **how)), title)
