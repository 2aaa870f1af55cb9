"""The report of a study: one HTML file that needs no network, for phones and desks, day and night.

What could not be measured says why.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from worldmodel.apps.study import sections
from worldmodel.apps.study.sections import Part, short, steps
from worldmodel.apps.study.style import STYLE

__all__ = ["page"]

_SECTIONS: tuple[tuple[str, str, Callable[[Part], str]], ...] = (
    ("probes", "Is the true state in the embedding?", sections.probes),
    ("pictures", "What an embedding looks like", sections.pictures),
    ("foresight", "How far can it see?", sections.foresight),
    ("violations", "Is it surprised by the impossible?", sections.violations),
    ("straightness", "Are latent paths straight?", sections.straight),
    ("spread", "How is the embedding spread out?", sections.spread),
    ("map", "A map", sections.latent_map),
)


def page(report: dict[str, Any]) -> str:
    """The HTML of what `run_study` found, pictures included."""
    run, parts = report["run"], report["parts"]
    body = "".join(
        f"<section><h2>{title}</h2>{_body(parts[name], draw)}</section>"
        for name, title, draw in _SECTIONS
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report["notes"])
    about = html.escape(
        f"{run['objective']} · {run['world'] or 'own data'} · {run['parameters']:,} parameters · "
        f"embedding of {run['embedding_dims']:,}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="icon" href="data:,">'
        f"<title>What {html.escape(run['name'])} has learned</title><style>{STYLE}</style></head>"
        f'<body><main><header><p class="over">A study of a world model</p>'
        f"<h1>What <em>{html.escape(run['name'])}</em> has learned</h1>"
        f'<p class="about">{about}<br>{html.escape(report["data"]["source"])}</p></header>'
        f"{_glance(parts)}"
        f"{f'<ul class=notes>{notes}</ul>' if notes else ''}"
        f"{body}<footer>{_footer(report)}</footer></main></body></html>\n"
    )


def _body(part: Part, draw: Callable[[Part], str]) -> str:
    if "unavailable" in part:
        return f'<p class="none">Not measured: {html.escape(part["unavailable"])}.</p>'
    return draw(part)


def _glance(parts: dict[str, Part]) -> str:
    """The four figures one would ask for first."""
    tiles = []
    if "quantities" in parts["probes"]:
        found = [q for q in parts["probes"]["quantities"] if q["varies"]]
        if found:
            worst = min(found, key=lambda q: q["linear"]["r2"]["value"] or 0)
            tiles.append((short(worst["linear"]["r2"]), f"linear R² of {worst['name']}"))
    if "model" in parts["foresight"]:
        f = parts["foresight"]
        ratio = f["model"][-1]["value"] / max(f["copy"][-1]["value"], 1e-12)
        tiles.append((f"{ratio:.2f}×", f"the error of copying, {steps(f['horizons'][-1])} ahead"))
    if "tests" in parts["violations"]:
        effect = parts["violations"]["tests"]["teleport against undisturbed"]["effect"]
        tiles.append((short(effect), "effect of a teleport on surprise, in σ"))
    if "effective_rank" in parts["spread"]:
        s = parts["spread"]
        tiles.append(
            (short(s["effective_rank"]), f"effective rank, of {s['embedding_dims']:,} dims")
        )
    cells = "".join(f"<div><b>{value}</b><span>{words}</span></div>" for value, words in tiles)
    return f'<div class="glance">{cells}</div>' if tiles else ""


def _footer(report: dict[str, Any]) -> str:
    v = report["versions"]
    return html.escape(
        f"worldmodel study · sigreg {v['sigreg']} · torch {v['torch']} · seed {report['seed']} · "
        f"{report['seconds']:.0f} s · every figure with its interval is in study.json"
    )
