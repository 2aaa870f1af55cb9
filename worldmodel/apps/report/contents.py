"""The page of a run folder: what lies in it, in one line each, with a link."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from worldmodel._files import write_atomically
from worldmodel.apps.report.pages import Content, actor, data_address, render
from worldmodel.apps.report.words import number, percent, plural

__all__ = ["index_page", "write_index"]

INDEX = "index.html"
_KNOWN = {
    "demo.html": "what the demo came to, with its film",
    "study.html": "what the model has learned, measured and shown",
    "study.json": "the same in figures",
    "probe.safetensors": "a linear probe of the state, for goals that are no pictures",
    "tune.html": "the search for λ",
    "episodes.gif": "plans in motion",
    "latent.png": "the latent space beside the world",
    "curves.png": "losses and effective rank",
    "curves.csv": "a row for each stretch of the training",
    "held_out.csv": "losses on held-out episodes",
    "report.json": "the last figures",
    "train.json": "every setting; --config reads it",
    "demo.json": "every setting; --config reads it",
    "model.safetensors": "the weights",
    "config.json": "how the model is built, sees and acts",
    "episodes.json": "which episodes it was trained on",
    "checkpoints": "states that --resume continues from",
    "tensorboard": "event files for TensorBoard",
}


class Entry(NamedTuple):
    """A file or folder: its name, its address, what it is."""

    name: str
    address: str
    facts: str


def write_index(folder: Path) -> None:
    """Write or renew `index.html` of a run folder, after whatever else changed in it."""
    write_atomically(folder / INDEX, index_page(folder).encode(errors="replace"))


def index_page(folder: Path) -> str:
    """The page of a run folder: its pages first, then results of `evaluate`, then everything."""
    extra = _read(folder / "config.json").get("extra")
    facts = extra if isinstance(extra, dict) else {}
    results = sorted(path.parent for path in folder.glob("*/result.json"))
    pages = [folder / name for name in ("demo.html", "study.html", "tune.html")]
    pages = [path for path in pages if path.is_file()]
    others = [path for path in sorted(folder.iterdir()) if path not in (*pages, *results)]
    curves = folder / "curves.png"
    return render(
        "index.html",
        name=folder.resolve().name,
        about=" · ".join(str(facts[k]) for k in ("objective", "world", "data") if facts.get(k)),
        tiles=_tiles(_read(folder / "report.json")),
        curves=data_address(curves) if curves.is_file() else "",
        entries=[
            *map(_entry, pages),
            *map(_result, results),
            *(_entry(p) for p in others if p.name != INDEX and not p.name.startswith(".")),
        ],
    )


def _entry(path: Path) -> Entry:
    if path.is_dir():
        facts = plural(sum(1 for _ in path.iterdir()), "file")
    else:
        size = path.stat().st_size
        facts = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{number(size / 1e3)} kB"
    about = (_KNOWN.get(path.name), facts)
    return Entry(path.name, _address(path.name), ", ".join(filter(None, about)))


def _result(folder: Path) -> Entry:
    result = _read(folder / "result.json")
    page = "index.html" if (folder / "index.html").is_file() else "result.json"
    try:
        facts = f"{percent(result['success_rate'])} of {result['pairs']} pairs, {actor(result)}"
    except (KeyError, TypeError, ValueError):
        facts = "a result that cannot be read"
    return Entry(folder.name, f"{_address(folder.name)}/{page}", facts)


def _address(name: str) -> str:
    """A link that stays in this folder, whatever the name is."""
    return f"./{quote(os.fsencode(name))}"


def _tiles(report: Content) -> list[tuple[str, str]]:
    """The figures one would ask for first, of a demo's or a training's report."""
    known = (
        ("success_rate", "of goals reached", percent),
        ("pred_loss", "prediction loss", number),
        ("held_out_prediction", "held-out loss", number),
        ("held_out_regularization", "held-out regularizer", number),
        ("steps", "training steps", number),
        ("collapse_alarms", "alarms of collapse", number),
    )
    found = [(report.get(key), about, say) for key, about, say in known]
    return [(say(x), about) for x, about, say in found if isinstance(x, (int, float))]


def _read(path: Path) -> Content:
    """A JSON object, or nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
