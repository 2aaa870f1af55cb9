"""Charts by matplotlib: SVG in the colours of the page, PNG in those of its light theme."""

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planners import Plan
from worldmodel._files import write_atomically
from worldmodel.study import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, HAIR = "#24272f", "#6c707b", "#e3e1d9"
PALETTE = ("#3566c4", "#d1452f", "#2c8a5f", "#a8731b")
"""Colours of the lines, in turn; style.css has those of the dark theme too."""
_ROLES = {INK: "ink", FAINT: "faint", HAIR: "hair"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}
Floats = NDArray[np.float64]


@contextmanager
def _styled() -> Iterator[None]:
    """Give matplotlib the style of our charts while the block runs."""
    from matplotlib import rc_context

    with rc_context(fname=Path(__file__).parent / "templates" / "charts.mplstyle"):
        yield


class Line(NamedTuple):
    """A line, with a band if y are estimates; "" has no legend entry, NaN is not drawn."""

    name: str
    x: Sequence[float]
    y: Sequence[float] | Sequence[Estimate]
    colour: int | None = None  #: index in the palette; None: its index in the panel


class Panel(NamedTuple):
    """Lines on one pair of axes; `level` is a value of y to mark, `moment` one of x, with names."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    level: tuple[float, str] | None = None
    moment: tuple[float, str] | None = None


class LatentMap(NamedTuple):
    """Embeddings along their directions of largest variance, and the true states."""

    share: Sequence[float]  #: of the variance, by direction
    points: Floats  #: [N, 1 or 2]
    places: Floats  #: [N, 1 or 2], true states; frame numbers if there are none
    in_picture: bool = False  #: whether they are places in the picture, y downwards


@_styled()
def panels(*shown: Panel) -> "Figure":
    """Panels, one above the other; ValueError if one has nothing to draw."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    figure, places = _new(400, 240, rows=len(shown))
    for axes, panel in zip(places, shown, strict=True):
        _name(axes, panel.x_label, panel.y_label)
        drawn = 0
        for place, line in enumerate(panel.lines):
            colour = PALETTE[(place if line.colour is None else line.colour) % len(PALETTE)]
            look: dict[str, Any] = {"color": colour, "zorder": 3 - place / 9}
            x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
            if y.ndim > 1:
                y, low, high = y.T[:3]
                axes.fill_between(x, low, high, alpha=0.17, linewidth=0, **look)
            kept = np.isfinite(y) & ((y > 0) | (not panel.log_y))
            drawn += int(kept.sum())
            dots = "o-" if kept.sum() < 40 else "-"
            axes.plot(x[kept], y[kept], dots, label=_short(line.name) or "_", **look)
        if not drawn:
            raise ValueError("lines must hold a point, above 0 on a logarithmic axis, got none")
        scales = {True: "log", False: "linear"}
        axes.set(xscale=scales[panel.log_x], yscale=scales[panel.log_y])
        axes.minorticks_off()
        for axis, log, most in ((axes.xaxis, panel.log_x, 7), (axes.yaxis, panel.log_y, 6)):
            # Ticks at 1, 2 and 5 over few decades, at powers of ten over many.
            low, high = axis.get_view_interval()
            subs = (1, 2, 5) if log and math.log10(high / low) < 2.5 else (1,)
            even = MaxNLocator(most, steps=[1, 2, 5, 10])
            axis.set_major_locator(LogLocator(subs=subs, numticks=8) if log else even)
            axis.set_major_formatter(_number)
        for mark, line_at in ((panel.level, axes.axhline), (panel.moment, axes.axvline)):
            if mark is not None:
                line_at(mark[0], label=_short(mark[1]), color=FAINT, linewidth=1, dashes=(4, 3))
        if names := axes.get_legend_handles_labels()[1]:
            columns = 2 if sum(len(str(name)) for name in names) > 48 else 4
            axes.legend(ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1.08))
        axes.set_title(panel.title, loc="right", color=INK)
    return figure


@_styled()
def ranges(
    rows: Sequence[tuple[str, Estimate, int]], span: tuple[float, float], *, percent: bool = False
) -> "Figure":
    """A row for each estimate: name, dot and interval, cut at the ends of `span`."""
    figure, (axes,) = _new(400, 30 * len(rows) + 34)
    _name(axes)
    for y, (_, estimate, colour) in enumerate(rows):
        if math.isnan(estimate.value):
            axes.text(span[0], y, " not defined", color=FAINT, va="center")
            continue
        value, low, high = np.clip(estimate[:3], *span)
        axes.plot([low, high], [y, y], color=PALETTE[colour], clip_on=False)
        axes.plot([value], [y], "o", color=PALETTE[colour], markersize=9, clip_on=False)
    axes.set_yticks(range(len(rows)), [_short(name) for name, *_ in rows], color=INK)
    axes.tick_params(axis="y", pad=9)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=span)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    if percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return figure


@_styled()
def bars(values: Sequence[float], x_label: str, y_label: str) -> "Figure":
    """Bars of the values, the first at x = 1."""
    figure, (axes,) = _new(400, 210)
    _name(axes, x_label, y_label).bar(range(1, len(values) + 1), values, 0.72)
    return figure


@_styled()
def latent_map(part: LatentMap, *, apart: bool = False) -> "list[Figure]":
    """Two principal components, and the true places if they have two coordinates.

    A frame has the same colour in both plots. With `apart` each plot is a figure of its own.
    """
    # An embedding of one dim has no second component.
    points = np.hstack([part.points, np.zeros((len(part.points), 1))])[:, :2]
    first, second = [*(f" ({100 * share:.0f} %)" for share in part.share), ""][:2]
    shown = [(points, f"first principal component{first}", f"second{second}", False)]
    if part.places.shape[1] == 2:
        shown.append((part.places, "x", "true places, y", part.in_picture))
    each = 1 if apart else len(shown)
    made = [_new(300, 300, columns=each) for _ in range(len(shown) // each)]
    sides = [axes for _, places in made for axes in places]
    for axes, (cloud, x_label, y_label, down) in zip(sides, shown, strict=True):
        _name(axes, x_label, y_label).grid(axis="x")
        # As pixels: a thousand paths are larger than the rest of a page.
        colours = position_colours(part.places) / 255
        x, y = cloud.T
        axes.scatter(x, y, s=9, c=colours, linewidths=0, rasterized=True)
        if down:
            axes.invert_yaxis()
    return [figure for figure, _ in made]


def position_colours(places: Floats) -> NDArray[np.uint8]:
    """Colours [N, 3] of places [N, 1 or 2], blended between the ends or corners of their range."""
    unit = (places - places.min(0)) / np.where(np.ptp(places, 0) > 0, np.ptp(places, 0), 1)
    corners = np.asarray([[[53, 102, 196], [222, 73, 55]], [[47, 158, 111], [240, 176, 48]]])
    x, y = np.hstack([unit, np.zeros((len(unit), 1))])[:, :2, None].swapaxes(0, 1)
    top, bottom = ((1 - x) * left + x * right for left, right in corners)
    out: NDArray[np.uint8] = np.rint((1 - y) * top + y * bottom).astype(np.uint8)
    return out


def training_curves(
    train: Mapping[str, Sequence[float]], held_out: Mapping[str, Sequence[float]] | None = None, *,
    floor: float | None, objective: str = "lewm",
) -> "Figure":  # fmt: skip
    """Plot training and held-out losses and the effective rank, as far as the tables have them.

    The chart marks `floor`, the regularizer's value on a Gaussian batch. A regularizer that is
    always 0 has no panel. The objective "gcbc" predicts actions, not embeddings.
    Raises: ValueError if there is no loss to draw.
    """
    first = "Action loss" if objective == "gcbc" else "Prediction loss"
    mark = None if floor is None else (floor, f"Gaussian batch, {floor:.2f}")
    tables, shown = (("training", train), ("held out", held_out or {})), []
    for column, title, unit, log, level in (
        ("prediction", first, "mean square", True, None),
        ("regularization", "Regularizer", "statistic", True, mark),
        ("effective_rank", "Effective rank of a training batch", "directions", False, None),
    ):
        lines = [Line(name, table["step"], table[column])
                 for name, table in tables if len(table.get(column, ()))]  # fmt: skip
        if column == "prediction" or any(np.greater(line.y, 0).any() for line in lines):
            shown.append(Panel(lines, "optimizer step", unit, title, log_y=log, level=level))
    return panels(*shown)


def tune_chart(trials: Sequence[Mapping[str, float]], weight: float | None) -> "Figure":
    """Plot both shortfalls of trials over λ, and the weight where they are equal, if known."""
    ordered = sorted(trials, key=lambda trial: trial["weight"])
    weights, names = [trial["weight"] for trial in ordered], ("prediction", "distribution")
    lines = [Line(name, weights, [trial[name] for trial in ordered]) for name in names]
    found = None if weight is None else (weight, f"λ = {weight:.2g}")
    return panels(Panel(lines, "λ", "shortfall", log_x=True, moment=found))


def convergence(plan: Plan) -> "Figure":
    """Plot the cost by iteration, and the spread of the last candidates by step of the plan.

    The upper panel is `plan.history` of a plan of `planners.optimize` or of `MPC.last`: a line for
    each problem, or quartiles for more than four. Its axis is logarithmic if all costs are
    positive. The lower panel is `plan.spread` at each step of the horizon, averaged over action
    dims. If the cost still falls at the right edge, use more iterations. If the spread is zero
    while the cost is still high, use more elites.

    Returns: a Figure of matplotlib; `figure.savefig("plan.png")` writes it.
    Raises: ValueError if the history or the spread is not finite.
    """
    cost = plan.history.detach().double().cpu().numpy()
    spread = plan.spread.detach().double().mean(-1).T.cpu().numpy()
    if not (np.isfinite(cost).all() and np.isfinite(spread).all()):
        raise ValueError("plan must have a finite history and spread, got inf or nan")
    above = ("iteration", "lowest of the iteration", "cost", False, bool((cost > 0).all()))
    below = ("step of the plan", "standard deviation of the last candidates", "spread")
    figure = panels(Panel(_problems(cost), *above), Panel(_problems(spread), *below))
    with _styled():
        # Drawing makes the ticks in our style; the caller saves the figure without it.
        figure.draw_without_rendering()
    return figure


def _problems(values: Floats) -> list[Line]:
    """A line for each column of [N, B], or the median and quartiles of many."""
    x, B = list(range(1, len(values) + 1)), values.shape[1]
    if B <= len(PALETTE):
        names = (f"problem {b}" if B > 1 else "" for b in range(B))
        return [Line(name, x, y) for name, y in zip(names, values.T.tolist(), strict=True)]
    rows = np.quantile(values, (0.5, 0.25, 0.75), axis=1).T.tolist()
    return [Line("median and quartiles", x, [Estimate(y, low, high, B) for y, low, high in rows])]


@_styled()
def svg(figure: "Figure", title: str) -> str:
    """The figure as an SVG element, the same every time; screen readers read `title`."""
    memory = io.StringIO()
    figure.savefig(memory, format="svg", dpi=144, transparent=True, metadata={"Date": None})
    text = memory.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{html.escape(title)}" xmlns:xlink='
    text = head + '"http://www.w3.org/1999/xlink">' + text[text.index(">", box.end()) + 1 :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    # Ids of groups are not used, and a page would have each of them many times.
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)
    for colour, role in _ROLES.items():
        text = text.replace(colour, f"var(--{role})")
    return text


@_styled()
def save_chart(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=200, metadata={"Software": None})
    write_atomically(path, memory.getvalue())


def _new(
    width: float, height: float, *, rows: int = 1, columns: int = 1
) -> "tuple[Figure, list[Axes]]":
    """A figure of axes, each of that size in points, 72 to the inch as an SVG counts."""
    from matplotlib.figure import Figure

    figure = Figure((width / 72 * columns, height / 72 * rows))
    return figure, [figure.add_subplot(rows, columns, n + 1) for n in range(rows * columns)]


def _name(axes: "Axes", x_label: str = "", y_label: str = "") -> "Axes":
    """Label both axes; the label of y stands above them."""
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_number)
    return axes


def _short(name: str) -> str:
    return name if len(name) < 30 else name[:28] + "…"


def _number(value: float, _: object) -> str:
    return f"{value:g}".replace("-", "−")
