"""The sections of a study's page: each says what was measured, shows it, and reads it."""

from __future__ import annotations

import html
import math
from typing import Any

from worldmodel.apps.study.figures import Curve, area, intervals, lines, png, scatter

__all__ = [
    "Part",
    "foresight",
    "latent_map",
    "pictures",
    "probes",
    "short",
    "spread",
    "steps",
    "straight",
    "violations",
]

Part = dict[str, Any]

_KINDS = (("constant", "blind", 3), ("linear", "line", 0), ("mlp", "network", 2))


def probes(part: Part) -> str:
    """Linear and network probes of every quantity, with the blind guess."""
    rows, chart = [], []
    for q in part["quantities"]:
        name = html.escape(q["name"])
        if not q["varies"]:
            rows.append(f"<tr><td>{name}</td><td colspan=3>does not vary here</td></tr>")
            continue
        for kind, words, colour in _KINDS:
            s = q[kind]
            if kind != "constant":
                chart.append((f"{q['name']}, {words}", s["r2"], colour))
            rows.append(
                f"<tr><td>{name}<small>{words}</small></td>"
                + "".join(f"<td>{_figure(s[k])}</td>" for k in ("r2", "r", "mse"))
                + "</tr>"
            )
    lowest = min([e["low"] for _, e, _ in chart if e["low"] is not None] + [0.9])
    span = (min(max(lowest, -0.2), 0.9), 1.0)
    shown = chart[:16]
    figure = intervals(shown, title="R² of probes", span=span) if shown else ""
    return (
        "<p>A probe reads the true state off an embedding of one frame. If a <em>line</em> can do "
        "it, the state lies in plain view; if only a small network can, it is there but folded.</p>"
        f"<figure>{figure}<figcaption>R² on episodes the probes never saw, with 95 % intervals over"
        f" {part['test_episodes']} episodes.</figcaption></figure>"
        '<div class="wide"><table><thead><tr><th>probe of<th>R²<th>r<th>MSE</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="small">MSE in units of the {html.escape(part["unit"])}, squared. '
        f"Fitted on {part['train_episodes']} other episodes. The blind guess is their mean.</p>"
    )


def foresight(part: Part) -> str:
    """Open-loop error against horizon, beside copying and the mean."""
    x = part["horizons"]
    curves = [
        Curve("model", x, part["model"], 0),
        Curve("copy the last embedding", x, part["copy"], 1),
        Curve("always the mean", x, part["mean"], 3),
    ]
    worse = part["first_horizon_no_better_than_copying"]
    reading = (
        f"From {steps(worse)} ahead on, it is no better than copying."
        if worse
        else f"It beats copying at every horizon up to {steps(x[-1])}."
    )
    chart = lines(
        curves,
        title="Open-loop error against horizon",
        labels=("steps ahead", "squared error / variance"),
    )
    known = part["known_frames"]
    return (
        f"<p>The model sees {known} frame{'s' * (known != 1)} and the actions to come, then nothing"
        f" more. {reading}</p>"
        f"<figure>{chart}<figcaption>Error of the predicted embedding, over "
        f"{part['model'][0]['n']} episodes; one step is {part['raw_steps_per_horizon']} raw "
        f"actions. Unit: {html.escape(part['unit'])}.</figcaption></figure>"
    )


def violations(part: Part) -> str:
    """Surprise at a jump and at a new colour, with paired tests."""
    colours = {"undisturbed": 2, "recolour": 3, "teleport": 1}
    curves = [Curve(k, part["frames"], part["surprise"][k], c) for k, c in colours.items()]
    chart = lines(
        curves,
        title="Surprise against time",
        labels=("frame", "surprise (log)"),
        log=True,
        mark=(part["at_frame"], "the impossible"),
    )
    rows = []
    for name, t in part["tests"].items():
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{_figure(t['effect'])}</td>"
            f"<td>{_figure(t['larger'])}</td><td>{_p(t['p_value'])}</td></tr>"
        )
    changed = part["pixels_changed"]
    strips = "".join(
        f"<div><img alt='{name}, before' src='{png(two[0])}'>"
        f"<img alt='{name}, after' src='{png(two[1])}'><span>{name}</span></div>"
        for name, two in part["pictures"].items()
    )
    n = next(iter(part["tests"].values()))["difference"]["n"]
    return (
        "<p>In the middle of an episode something impossible happens: everything that moves changes"
        f" its <em>colour</em>, or {html.escape(part['teleport_is'])}. A model of the world should "
        "mind the jump more than the paint.</p>"
        f'<div class="pairs">{strips}</div>'
        f"<figure>{chart}<figcaption>Error of the one-step prediction, mean over {n} episodes with "
        f"its 95 % band. Unit: {html.escape(part['unit'])}.</figcaption></figure>"
        '<div class="wide"><table><thead><tr><th>surprise at that frame<th>effect, σ'
        "<th>share above<th>p</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="small">{n} pairs, Student’s paired test; effect is the mean difference over its'
        " standard deviation; share above is the share of episodes with the larger surprise. "
        f"Recolouring changes {_percent(changed['recolour'])} of a frame’s pixels, the jump "
        f"{_percent(changed['teleport'])}.</p>"
    )


def straight(part: Part) -> str:
    """Straightness after training, before it, and on the way."""
    rows = [("trained model", part["trained"], 0)]
    if "untrained" in part:
        rows.append(("fresh weights", part["untrained"], 3))
    if "true_states" in part:
        rows.append(("true states", part["true_states"], 2))
    lowest = math.floor(2 * min([e["low"] or 0.0 for _, e, _ in rows] + [0.0])) / 2
    figure = intervals(rows, title="Straightness", span=(max(-1.0, lowest), 1.0))
    course = ""
    if part["checkpoints"]:
        steps = [c["step"] for c in part["checkpoints"]]
        curve = Curve("straightness", steps, [c["straightness"] for c in part["checkpoints"]], 0)
        course = lines(
            [curve], title="Straightness against training", labels=("training step", "mean cosine")
        )
    table = "".join(f"<tr><td>{n}</td><td>{_figure(e)}</td></tr>" for n, e, _ in rows)
    return (
        "<p>The mean cosine between one latent step and the next: 1 on a straight line, about 0 on "
        "a random walk, −½ on points that have nothing to do with each other. LeWM’s loss does not "
        "ask for it.</p>"
        f"<figure>{figure}{course}<figcaption>Mean over {part['trained']['n']} episodes, 95 % "
        "intervals.</figcaption></figure>"
        f'<div class="wide"><table><tbody>{table}</tbody></table></div>'
    )


def spread(part: Part) -> str:
    """Effective rank, spectrum and SIGReg's report."""
    r = part["report"]
    chart = area(part["spectrum"], title="Spectrum", labels=("direction", "share of the variance"))
    p = "p < 10⁻⁸" if r["p_value"] <= 1e-8 else f"p = {r['p_value']:.2g}"
    return (
        f"<p>Effective rank {_figure(part['effective_rank'])} of {part['embedding_dims']:,} "
        "dimensions: 1 is a line, all of them an even ball.</p>"
        f"<figure>{chart}<figcaption>How the variance of held-out embeddings is shared out, over "
        f"{part['effective_rank']['n']} episodes (interval by jackknife).</figcaption></figure>"
        f'<p class="small">SIGReg of {r["num_batches"]} batches, one frame of each of '
        f"{r['num_samples']} episodes: <em>{html.escape(part['verdict'])}</em>. It scores "
        f"{r['statistic']:.3g}, where Gaussian samples score {r['floor']:.3g} and total collapse "
        f"is 100 % ({100 * r['collapse']:.1f} % here); {p}. Standard deviation "
        f"{r['scale']:.3g}, mean off by {r['mean_error']:.2g}, covariance by "
        f"{r['covariance_error']:.2g}. {r['num_samples']} Gaussian samples of this width would "
        f"show a rank of {r['gaussian_rank']:.3g}. A world of a few coordinates fills few "
        "directions: that is no collapse of the model, of which the top of this page would "
        "tell.</p>"
    )


def pictures(part: Part) -> str:
    """Truth, decoded embeddings and decoded rollouts, frame by frame."""
    heads = "".join(f"<th>{'now' if c == 0 else f'+{c}'}" for c in part["columns"])
    tables = []
    for strip in part["pictures"]:
        rows = []
        for words, key in (("truth", "truth"), ("decoded", "seen"), ("foreseen", "dreamt")):
            cells = "".join(
                "<td class=no>–</td>"
                if p is None
                else f"<td><img alt='{words}, {i}' src='{png(p)}'></td>"
                for i, p in enumerate(strip[key])
            )
            rows.append(f"<tr><th>{words}</th>{cells}</tr>")
        tables.append(
            f"<table class=film><thead><tr><th>{heads}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )
    return (
        "<p>A small decoder, trained afterwards and unknown to the model, paints embeddings. "
        "<em>Decoded</em> is what an embedding kept of its frame; <em>foreseen</em> is a rollout "
        "that looked last at “now”.</p>"
        f"{''.join(tables)}"
        f'<p class="small">The first {len(part["pictures"])} held-out episodes; none was picked. '
        f"Decoded pictures explain {_figure(part['explained_share'])} of what varies from pixel to "
        f"pixel around the mean picture ({part['explained_share']['n']} episodes, "
        f"{part['side']} × {part['side']} pixels, {part['steps']} steps).</p>"
    )


def latent_map(part: Part) -> str:
    """Two principal components in the colours of the true state."""
    states, time = part["states"], part["time"]
    if states is None:
        most = max(time) or 1
        colours = [f"hsl({220 - 200 * t / most:.0f} 62% 54%)" for t in time]
    else:
        columns = [[s[i] for s in states] for i in range(len(states[0]))]
        unit = [_unit(values) for values in columns]
        if len(unit) == 1:
            colours = [f"hsl({220 - 200 * u:.0f} 62% 54%)" for u in unit[0]]
        else:
            colours = [_blend(u, v) for u, v in zip(*unit, strict=True)]
    share = part["share"]
    by = html.escape(part["coloured_by"])
    charts = scatter(
        part["points"],
        colours,
        title="Latent map",
        labels=(f"first principal component ({share[0]:.0%})", f"second ({share[-1]:.0%})"),
    )
    if states is not None and len(states[0]) == 2:
        charts = (
            f'<div class="two"><div>{charts}</div><div>'
            + scatter(
                [(s[0], -s[1]) for s in states],
                colours,
                title="True states",
                labels=("x", "y, upwards"),
            )
            + "</div></div>"
        )
    return (
        "<p>Held-out embeddings along the two directions in which they vary most, coloured by "
        f"{by}{'; beside them the same frames where they truly were' if states else ''}.</p>"
        f"<figure>{charts}<figcaption>Each point is a frame, {len(part['points']):,} of them. "
        "</figcaption></figure>"
    )


def _unit(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low) / ((high - low) or 1.0) for v in values]


def _blend(u: float, v: float) -> str:
    """A colour for a point of the unit square, between four corners."""
    corners = (((60, 111, 209), (222, 73, 55)), ((47, 158, 111), (240, 176, 48)))
    mixed = [
        (a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v
        for a, b, c, d in zip(*corners[0], *corners[1], strict=True)
    ]
    return "#" + "".join(f"{round(c):02x}" for c in mixed)


def steps(number: int) -> str:
    """1 step, 2 steps."""
    return f"{number} step{'s' * (number != 1)}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.3f}" if 0.1 <= size < 10 else f"{value:.2g}" if size >= 1e-4 else "0"
    if size >= 10:
        text = f"{value:.4g}"
    return text.replace("-", "−")


def short(estimate: dict[str, Any]) -> str:
    """A figure without its interval."""
    value = estimate["value"]
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _figure(estimate: dict[str, Any]) -> str:
    value = _number(estimate["value"])
    if estimate["value"] is None:
        return value
    if estimate["low"] is None:
        return f"{value}<small> n = {estimate['n']}, no interval</small>"
    return f"{value}<small> {_number(estimate['low'])} … {_number(estimate['high'])}</small>"


def _percent(estimate: dict[str, Any]) -> str:
    return f"{100 * estimate['value']:.2g} %"


def _p(value: float) -> str:
    return "&lt; 10⁻¹²" if value < 1e-12 else f"{value:.2g}"
