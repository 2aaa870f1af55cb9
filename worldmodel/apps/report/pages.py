"""Pages, and the text that a command prints at its end: templates filled with results.

A page is one HTML file that loads nothing else. Its template escapes every text and calls the
functions that draw charts.
"""

import base64
import functools
import io
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from worldmodel._files import write_atomically
from worldmodel.apps.parsing import preset
from worldmodel.apps.report import charts
from worldmodel.apps.settings import PlannerSettings
from worldmodel.study import Estimate

if TYPE_CHECKING:
    from jinja2 import Environment

_Content = Mapping[str, Any]  # of a command's JSON file
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


def percent(share: float | None, digits: int = 1) -> str:
    """0.865 -> 86.5 %; nothing -> none."""
    return "none" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """0.035 -> +3.5 points."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def number(value: float | None) -> str:
    """Three significant digits, two of a tiny value; – for an undefined one."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.3g}" if size >= 0.01 else f"{value:.2g}"
    return text.replace("-", "−")


def interval(estimate: Estimate) -> str:
    """0.9 (0.85 to 0.94)."""
    if math.isnan(estimate.low):
        return f"{number(estimate.value)} (n = {estimate.n}, no interval)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def p_value(p: float) -> str:
    """Two digits; a bound for a value that is practically 0."""
    return "< 10⁻¹²" if p < 1e-12 else f"{p:.2g}"


def plural(count: int, noun: str) -> str:
    """1 step, 2 steps."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def render(template: str, **content: object) -> str:
    """Fill in a template, without line breaks at its end; a missing name is an error."""
    return _environment().get_template(template).render(**content).rstrip("\n")


def study_page(report: object) -> str:
    """The page of what `study` returned, pictures included."""
    return render("study.html", report=report)


def write_index(folder: Path) -> None:
    """Write `index.html` of a run folder; call it after every other change in the folder."""
    write_atomically(folder / "index.html", index_page(folder).encode(errors="replace"))


def index_page(folder: Path) -> str:
    """The page of a run folder: its pages first, then results of `evaluate`, then the rest."""
    pages = [folder / name for name in ("demo.html", "study.html", "tune.html")]
    views, results = (
        [path.parent for path in sorted(folder.glob(f"*/{name}.json"))]
        for name in ("view", "result")
    )
    first = [path for path in pages if path.is_file()] + views + results
    # exists() is false for a broken link.
    there = [p for p in sorted(folder.iterdir()) if p.exists() and not p.name.startswith(".")]
    others = [p for p in there if p not in first and p.name != "index.html"]
    paths, here = first + others, folder.resolve()
    return render("index.html", folder=here, paths=paths, views=views, results=results)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), trim_blocks=True,
        lstrip_blocks=True, autoescape=select_autoescape(), undefined=StrictUndefined,
    )  # fmt: skip
    words = (interval, number, p_value, percent, plural, points)
    environment.filters |= {function.__name__: function for function in words} | {
        # A link that stays in this folder, whatever the name is.
        "address": lambda path: f"./{quote(os.fsencode(path.name))}",
        "basename": lambda path: Path(path).name or str(path),
        "embedded": _embedded,
        "from_json": _from_json,
        "summary": _summary,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        # Our own SVG, in which matplotlib has escaped every text.
        "svg": lambda figure, title: Markup(charts.svg(figure, title)),  # noqa: S704
    }
    published = PlannerSettings(**preset("evaluate", "preset", "published")).described()
    drawn = ("Line", "Panel", "bars", "latent_map", "panels", "ranges", "tune_chart")
    environment.globals |= {name: getattr(charts, name) for name in drawn} | {
        "actor": _actor, "estimate": Estimate, "published": published, "rates": _rates,
    }  # fmt: skip
    return environment


def _embedded(picture: Path | np.ndarray[Any, Any]) -> str:
    """A PNG, GIF or MP4 file, or pixels uint8 [H, W, 3], as a data URL."""
    if isinstance(picture, Path):
        kind, content = _TYPES[picture.suffix], picture.read_bytes()
    else:
        memory = io.BytesIO()
        Image.fromarray(picture).save(memory, "PNG", optimize=True)
        kind, content = "image/png", memory.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _from_json(path: Path) -> _Content:
    """A JSON object; an empty one if the file holds none."""
    with suppress(OSError, ValueError):
        if isinstance(found := json.loads(path.read_text(encoding="utf-8")), dict):
            return found
    return {}


def _summary(folder: Path) -> str:
    """The result of an evaluation in a few words."""
    result = _from_json(folder / "result.json")
    with suppress(KeyError, TypeError, ValueError):
        return f"{percent(result['success_rate'])} of {result['pairs']} pairs, {_actor(result)}"
    return "a result that cannot be read"


def _actor(result: _Content) -> str:
    """Name of the planner, or of the policy."""
    planner = result["fingerprint"]["planner"]
    return planner["name"] if isinstance(planner, dict) else str(planner).removesuffix("Policy")


def _rates(result: _Content) -> list[tuple[str, Estimate | None, float | None]]:
    """Title, rate and rate at the end, of the evaluated policy and of the baselines."""
    found = []
    for title, key in ((_actor(result), ""), ("random actions", "random_"), ("no-op", "noop_"),
                       ("scripted expert", "expert_")):  # fmt: skip
        rate, ends = result[f"{key}success_rate"], result[f"{key}success_interval"]
        estimate = None if rate is None else Estimate(rate, ends[0], ends[1], result["pairs"])
        found.append((title, estimate, result.get(f"{key}success_rate_at_end")))
    return found
