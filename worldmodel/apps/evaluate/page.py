"""A result as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.apps.evaluate.wording import actor, historical, percent

__all__ = ["page"]

_STYLE = """\
:root { --ink: #2b3040; --faint: #7a8090; --line: #e4e5ea; --paper: #fff; --good: #2f9e6f;
  --bad: #c23b22; --blue: #3c6fd1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --faint: #9aa1b2; --line: #353a47;
  --paper: #191c23; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .9rem .3rem 0; text-align: left;
  border-bottom: 1px solid var(--line); } th { color: var(--faint); font-weight: 500; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.note { color: var(--faint); } .warn { border-left: 4px solid var(--bad); padding-left: .8rem; }
.pairs { display: flex; flex-wrap: wrap; gap: 3px; } .pairs i { width: 12px; height: 12px;
  border-radius: 2px; background: var(--bad); } .pairs i.end { background: var(--good); }
.pairs i.once { background: #8fcfb1; }
img { max-width: 100%; background: #fff; } pre { overflow-x: auto; font-size: .8rem; }
"""
_FLOORS = (
    ("random actions", "random_success"),
    ("no action", "noop_success"),
    ("scripted expert", "expert_success"),
)


def page(result: Mapping[str, Any], films: Mapping[str, Path]) -> str:
    """The whole page, pictures and styles inside.

    Args:
        result: as `evaluate` gives it.
        films: files to show, by name.
    Returns: HTML.
    """
    mark = result["fingerprint"]
    title = (
        f"{result['env']}: {percent(result['success_rate'])} of {result['pairs']} pairs, "
        f"{actor(result)} of {Path(mark['run']).name}"
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>Goals lie {result['offset']} steps away, {result['budget']} steps are allowed. "
        f"Success: {html.escape(result['criterion'])}. "
        f"{result['pairs_dropped_as_solved']} drawn pairs were left out, solved before the first "
        "step.</p>",
    ]
    if result["protocol"] == "historical":
        parts.append(
            '<p class="warn">Historical protocol: pairs may come from training episodes and may be '
            f"solved from the start; {html.escape(historical(result))}.</p>"
        )
    parts += [_rates(result), _numbers(result), _pairs(result)]
    legend = "Left: now. Right: the goal."
    if isinstance(mark["planner"], dict):
        legend = (
            "Left: now. Middle: the goal. Right: of all starts and goals of the manifest, the one "
            "whose embedding is nearest to what the plan expects."
        )
    for name, path in films.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(
            f"<h2>The first {html.escape(name)}</h2>\n"
            f'<img alt="{html.escape(name)} in motion" src="data:image/gif;base64,{data}">\n'
            f'<p class="note">{legend}</p>'
        )
    everything = json.dumps(mark, indent=2, ensure_ascii=False)
    parts.append(
        f"<h2>Fingerprint</h2>\n<p>Manifest {result['manifest_hash']}</p>\n"
        f"<pre>{html.escape(everything)}</pre>"
    )
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _rates(result: Mapping[str, Any]) -> str:
    lines = []
    for title, key in ((html.escape(actor(result)), "success"), *_FLOORS):
        rate = result[f"{key}_rate"]
        if rate is None:
            lines.append(f"<tr><td>{title}</td><td colspan=4>there is none</td></tr>")
            continue
        low, high = result[f"{key}_interval"]
        end = result[f"{key}_rate_at_end"]
        lines.append(
            f'<tr><td>{title}</td><td class="n">{percent(rate)}</td>'
            f"<td>{_bar(rate, low, high)}</td>"
            f'<td class="n">{percent(low)} – {percent(high)}</td>'
            f'<td class="n">{percent(end)}</td></tr>'
        )
    return (
        "<table>\n<tr><th></th><th>reached</th><th></th><th>95 % interval</th>"
        "<th>there at the end</th></tr>\n" + "\n".join(lines) + "\n</table>"
    )


def _bar(rate: float, low: float, high: float) -> str:
    """A rate on a line from 0 to 1, its interval around it."""
    return (
        '<svg width="200" height="14" viewBox="0 0 200 14" role="img" aria-hidden="true">'
        '<line x1="0" y1="7" x2="200" y2="7" stroke="var(--line)" stroke-width="2"/>'
        f'<line x1="{200 * low:.1f}" y1="7" x2="{200 * high:.1f}" y2="7" stroke="var(--blue)" '
        f'stroke-width="4"/><circle cx="{200 * rate:.1f}" cy="7" r="5" fill="var(--blue)"/></svg>'
    )


def _numbers(result: Mapping[str, Any]) -> str:
    seconds, distance = result["planning_seconds"], result["final_distance"]
    steps = result["mean_steps_to_goal"]
    rows = [
        ("steps to the goal, on average", "never reached" if steps is None else f"{steps:g}"),
        (
            "distance after the last step",
            f"median {distance['median']:g}, 95th percentile {distance['p95']:g}",
        ),
        (
            f"seconds per decision, {seconds['pairs_per_decision']} pairs at once",
            f"median {seconds['median']:.3g}, 95th percentile {seconds['p95']:.3g}",
        ),
    ]
    lines = "\n".join(f"<tr><td>{a}</td><td>{html.escape(b)}</td></tr>" for a, b in rows)
    return f"<h2>How far and how fast</h2>\n<table>\n{lines}\n</table>"


def _pairs(result: Mapping[str, Any]) -> str:
    """A square a record: there at the end, there once, or never."""
    squares = []
    for record in result["outcomes"]:
        kind = "end" if record["success_at_end"] else "once" if record["success"] else "never"
        words = f"pair {record['pair']}, distance {record['final_distance']:g} at the end"
        squares.append(f'<i class="{kind}" title="{words}"></i>')
    return (
        '<h2>Every pair</h2>\n<div class="pairs">' + "".join(squares) + "</div>\n"
        '<p class="note">Green: at the goal after the last step. Pale: it was there before. '
        "Red: never.</p>"
    )
