"""Pages and what a terminal says at the end: templates filled with what a command found.

A page is one HTML file that fetches nothing. Its template escapes whatever it is given, and draws
the charts where it wants them.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from worldmodel._files import write_atomically
from worldmodel.apps.parsing import preset
from worldmodel.apps.report import charts, words
from worldmodel.apps.settings import PlannerSettings
from worldmodel.apps.study.records import StudyReport
from worldmodel.study import Estimate, proportion

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["index_page", "render", "study_page", "write_index"]

_Content = Mapping[str, Any]
"""What a JSON file of a command holds."""
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


def render(template: str, **content: object) -> str:
    """A template filled in, without line breaks at its end; a name that is missing is an error."""
    return _environment().get_template(template).render(**content).rstrip("\n")


def study_page(report: StudyReport) -> str:
    """The page of a study, pictures included."""
    return render("study.html", report=report)


def write_index(folder: Path) -> None:
    """Write or renew `index.html` of a run folder, after whatever else changed in it."""
    write_atomically(folder / "index.html", index_page(folder).encode(errors="replace"))


def index_page(folder: Path) -> str:
    """The page of a run folder: its pages first, then results of `evaluate`, then everything."""
    extra = _read(folder / "config.json").get("extra")
    results = sorted(path.parent for path in folder.glob("*/result.json"))
    pages = [folder / name for name in ("demo.html", "study.html", "tune.html")]
    first = [path for path in pages if path.is_file()] + results
    others = [path for path in sorted(folder.iterdir()) if path not in first]
    shown = [p for p in others if p.name != "index.html" and not p.name.startswith(".")]
    curves = folder / "curves.png"
    return render(
        "index.html",
        name=folder.resolve().name,
        facts=extra if isinstance(extra, dict) else {},
        report=_read(folder / "report.json"),
        curves=curves if curves.is_file() else None,
        entries=[
            (path.name, *(_result(path) if path in results else _entry(path)))
            for path in first + shown
        ],
    )


def _entry(path: Path) -> tuple[str, str]:
    """Where a file or folder is, and what."""
    if path.is_dir():
        facts = words.plural(sum(1 for _ in path.iterdir()), "file")
    else:
        size = path.stat().st_size
        facts = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{words.number(size / 1e3)} kB"
    return _address(path.name), facts


def _result(folder: Path) -> tuple[str, str]:
    result = _read(folder / "result.json")
    page = "index.html" if (folder / "index.html").is_file() else "result.json"
    try:
        rate = words.percent(result["success_rate"])
        facts = f"{rate} of {result['pairs']} pairs, {_actor(result)}"
    except (KeyError, TypeError, ValueError):
        facts = "a result that cannot be read"
    return f"{_address(folder.name)}/{page}", facts


def _address(name: str) -> str:
    """A link that stays in this folder, whatever the name is."""
    return f"./{quote(os.fsencode(name))}"


def _read(path: Path) -> _Content:
    """A JSON object, or nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), trim_blocks=True,
        lstrip_blocks=True, autoescape=select_autoescape(), undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {name: getattr(words, name) for name in words.__all__} | {
        "basename": lambda path: Path(path).name or str(path),
        "embedded": _embedded,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        # Our own SVG, in which matplotlib has escaped every text.
        "svg": lambda figure, title: Markup(charts.svg(figure, title)),  # noqa: S704
    }
    environment.globals |= {name: getattr(charts, name) for name in charts.__all__} | {
        "actor": _actor, "departures": _departures, "proportion": proportion, "rates": _rates,
    }  # fmt: skip
    return environment


def _embedded(picture: Path | np.ndarray[Any, Any]) -> str:
    """A PNG, GIF or MP4 file, or pixels uint8 [H, W, 3], as an address that holds it whole."""
    if isinstance(picture, Path):
        kind, content = _TYPES[picture.suffix], picture.read_bytes()
    else:
        memory = io.BytesIO()
        Image.fromarray(picture).save(memory, "PNG", optimize=True)
        kind, content = "image/png", memory.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _actor(result: _Content) -> str:
    """Who acted: the planner's name, or the policy's."""
    planner = result["fingerprint"]["planner"]
    return planner["name"] if isinstance(planner, dict) else str(planner).removesuffix("Policy")


def _rates(result: _Content) -> list[tuple[str, Estimate | None, float | None]]:
    """Title, rate and rate at the end of who acted and of the policies beside it."""
    found = []
    for title, key in ((_actor(result), ""), ("random actions", "random_"), ("no action", "noop_"),
                       ("scripted expert", "expert_")):  # fmt: skip
        rate, ends = result[f"{key}success_rate"], result[f"{key}success_interval"]
        estimate = None if rate is None else Estimate(rate, *ends, result["pairs"])
        found.append((title, estimate, result.get(f"{key}success_rate_at_end")))
    return found


def _departures(result: _Content) -> list[str]:
    """What differs from the published evaluation, in words; nothing of a held-out result."""
    if result["protocol"] != "historical":
        return []
    found, given, usual = [], (result["offset"], result["budget"]), (25, 50)
    if result["pairs"] < result["manifest_pairs"]:
        found.append(f"the first {result['pairs']} of {result['manifest_pairs']} pairs")
    elif result["pairs"] < 50:
        found.append("fewer than its 50 pairs")
    if result["manifest_protocol"] != "historical":
        found.append("not drawn by it: pairs that were solved at the start are left out")
    if given != usual:
        found.append("{} steps to the goal and {} allowed, not {} and {}".format(*given, *usual))
    planner = result["fingerprint"]["planner"]
    if isinstance(planner, str):
        return [*found, "nothing was planned"]
    published = PlannerSettings(**preset("evaluate", "preset", "published")).described()
    for name in ("temperature", "rate", "together", "compile", "cuda_graph"):
        del published[name]  # they decide no number here
    for name, value in published.items():
        if name in planner and planner[name] != value:
            held = "a block holds one action, where every action was free"
            other = f"{'planner' if name == 'name' else name} {planner[name]}, not {value}"
            found.append(held if name == "held" else other)
    return found
