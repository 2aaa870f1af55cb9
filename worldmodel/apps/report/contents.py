"""The page of a run folder: what lies in it, in one line each, with a link."""

from __future__ import annotations

import json
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
    """A file or folder: what it is called, where it is, what it is."""

    name: str
    address: str
    facts: str


def write_index(folder: Path) -> None:
    """Write or renew `index.html` of a run folder.

    Raises: OSError naming the file.
    """
    write_atomically(folder / INDEX, index_page(folder).encode())


def index_page(folder: Path) -> str:
    """The page of a run folder; pages come first, results of `evaluate` inside it too.

    Args:
        folder: of a run.
    Returns: HTML.
    """
    report = _read(folder / "report.json")
    config = _read(folder / "config.json").get("extra", {})
    results = sorted(path.parent for path in folder.glob("*/result.json"))
    pages = [name for name in ("demo.html", "study.html", "tune.html") if (folder / name).is_file()]
    entries = [_entry(name, folder / name) for name in pages]
    entries += [_result(path) for path in results]
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name in (INDEX, *pages) or path in results
        if not hidden:
            entries.append(_entry(path.name, path))
    about = " · ".join(str(config[k]) for k in ("objective", "world", "data") if config.get(k))
    curves = folder / "curves.png"
    return render(
        "index.html",
        name=folder.resolve().name,
        about=about,
        tiles=_tiles(report),
        curves=data_address(curves) if curves.is_file() else "",
        entries=entries,
    )


def _entry(name: str, path: Path) -> Entry:
    if path.is_dir():
        facts = plural(sum(1 for _ in path.iterdir()), "file")
    else:
        size = path.stat().st_size
        facts = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{number(size / 1e3)} kB"
    words = _KNOWN.get(name, "")
    return Entry(name, f"./{quote(name)}", f"{words}, {facts}" if words else facts)


def _result(folder: Path) -> Entry:
    result = _read(folder / "result.json")
    page = "index.html" if (folder / "index.html").is_file() else "result.json"
    try:
        facts = f"{percent(result['success_rate'])} of {result['pairs']} pairs, {actor(result)}"
    except (KeyError, TypeError, ValueError):
        facts = "a result that cannot be read"
    return Entry(folder.name, f"./{quote(folder.name)}/{page}", facts)


def _tiles(report: Content) -> list[tuple[str, str]]:
    """The figures one would ask for first, of a demo's or a training's report."""
    known = (
        ("success_rate", "of goals reached", percent),
        ("pred_loss", "prediction loss", number),
        ("held_out_prediction", "held-out prediction loss", number),
        ("held_out_regularization", "held-out regularizer", number),
        ("steps", "training steps", number),
        ("collapse_alarms", "alarms of collapse", number),
    )
    return [(say(report[key]), about) for key, about, say in known
            if isinstance(report.get(key), (int, float))]  # fmt: skip


def _read(path: Path) -> Content:
    """A JSON object, or nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
