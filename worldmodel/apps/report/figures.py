"""The charts of run folders: curves of a training, a latent map, a search for λ or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planners import Plan
from worldmodel.apps.report.charts import (
    PALETTE,
    Cloud,
    Line,
    Panel,
    clouds,
    panels,
    position_colours,
    styled,
)
from worldmodel.apps.report.words import percent
from worldmodel.apps.study.records import LatentMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["convergence", "latent_map", "training_curves", "tune_chart"]

Table = Mapping[str, Sequence[float]]


def training_curves(
    train: Table, held_out: Table | None = None, *, floor: float | None, objective: str = "lewm"
) -> Figure:
    """Losses in training and held out, and the effective rank.

    Args:
        train: columns of curves.csv; step and prediction, and of regularization and
            effective_rank what there is.
        held_out: columns of held_out.csv.
        floor: what the regularizer scores on a Gaussian batch, to be marked.
        objective: what was minimised; a cloned policy predicts actions, not embeddings.
    Returns: Figure; without a panel for a regularizer that is 0 throughout.
    Raises: ValueError if there is no loss to draw.
    """
    first = "Action loss" if objective == "gcbc" else "Prediction loss"
    wanted = (
        ("prediction", first, "mean square", True),
        ("regularization", "Regularizer", "statistic", True),
        ("effective_rank", "Effective rank of a training batch", "directions", False),
    )
    shown = []
    for column, title, unit, log in wanted:
        tables = (("training", train), ("held out", held_out or {}))
        lines = [
            Line(name, table["step"], table[column], colour=place)
            for place, (name, table) in enumerate(tables)
            if len(table.get(column, ()))
        ]
        if column == "prediction" or any(y > 0 for line in lines for y in line.y):
            mark = None if floor is None else (floor, f"Gaussian batch, {floor:.2f}")
            level = mark if column == "regularization" else None
            shown.append(Panel(lines, "optimizer step", unit, title, log_y=log, level=level))
    return panels(*shown)


def latent_map(part: LatentMap, *, apart: bool = False) -> list[Figure]:
    """Two principal components, beside the true places where there are two coordinates of them.

    A frame has one colour on both sides. `apart` gives each side a figure of its own.
    """
    places = part.time[:, None] if part.states is None else part.states
    colours = position_colours(places)
    # An embedding of one dim has no second component.
    points = np.hstack([part.points, np.zeros((len(places), 1))])[:, :2]
    first, second = [*(f" ({percent(share, 0)})" for share in part.share), ""][:2]
    shown = [Cloud(points, f"first principal component{first}", f"second{second}")]
    if places.shape[1] == 2:
        shown.append(Cloud(places, "x", "true places, y", down=part.in_picture))
    return [clouds(*some, colours=colours) for some in ([[c] for c in shown] if apart else [shown])]


def tune_chart(trials: Sequence[Mapping[str, float]], weight: float | None) -> Figure:
    """Both shortfalls of trials over λ, and the weight where they meet if that is known."""
    ordered = sorted(trials, key=lambda trial: trial["weight"])
    lines = [
        Line(name, [t["weight"] for t in ordered], [t[name] for t in ordered], colour=place)
        for place, name in enumerate(("prediction", "distribution"))
    ]
    found = None if weight is None else (weight, f"λ = {weight:.2g}")
    return panels(Panel(lines, "λ", "shortfall", log_x=True, moment=found))


def convergence(plan: Plan) -> Figure:
    """How the cost fell from iteration to iteration, and how far apart the candidates still are.

    Above, `plan.history`: a line for each problem, or the quartiles of the problems where there
    are more than four; on a logarithmic axis if every cost is positive. Below, `plan.spread` at
    each step of the horizon, averaged over action dims, the same way. A cost that still falls at
    the right edge asks for more iterations; a spread of zero long before it, for more elites.

    Args:
        plan: what `planners.optimize` returned, or `MPC.last`.
    Returns: a Figure of matplotlib; `figure.savefig("plan.png")` writes it.
    Raises: ValueError if the history or the spread is not finite.
    """
    cost = plan.history.detach().double().cpu().numpy()
    spread = plan.spread.detach().double().mean(-1).T.cpu().numpy()
    if not (np.isfinite(cost).all() and np.isfinite(spread).all()):
        raise ValueError("plan must have a finite history and spread, got inf or nan")
    log, apart = bool((cost > 0).all()), "standard deviation of the last candidates"
    above = Panel(_problems(cost), "iteration", "lowest of the iteration", "cost", log_y=log)
    below = Panel(_problems(spread), "step of the plan", apart, "spread")
    figure = panels(above, below)
    with styled():
        # Ticks are made when they are drawn, and this figure is saved by somebody else.
        figure.draw_without_rendering()
    return figure


def _problems(values: NDArray[np.float64]) -> list[Line]:
    """A line for each column of [N, B], or the middle and quartiles of many."""
    x = list(range(1, len(values) + 1))
    problems = values.shape[1]
    if problems <= len(PALETTE):
        names = [f"problem {b}" if problems > 1 else "" for b in range(problems)]
        return [Line(name, x, values[:, b].tolist(), colour=b) for b, name in enumerate(names)]
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1).tolist()
    return [Line("median and quartiles", x, middle, low, high)]
