"""The charts of run folders: curves of a training, a latent map, a search for λ or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planners import Plan
from worldmodel.apps.report.charts import PALETTE, Cloud, Line, Panel, clouds, panels
from worldmodel.apps.report.charts import position_colours as colours_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["convergence", "latent_map", "training_curves", "tune_chart"]

Table = Mapping[str, Sequence[float]]
_ERRORS = {"gcbc": ("Action loss", "mean square of actions")}


def training_curves(
    train: Table, held_out: Table | None = None, *, floor: float | None, objective: str = "lewm"
) -> Figure:
    """Losses in training and held out, and the effective rank.

    Args:
        train: columns of curves.csv: step, prediction, and what there is of regularization (or
            sigreg) and effective_rank.
        held_out: columns of held_out.csv.
        floor: what the regularizer scores on a Gaussian batch, to be marked.
        objective: what was minimised; a policy that was cloned has an error of actions.
    Returns: Figure; a regularizer that is 0 throughout has no panel.
    Raises: ValueError if there is no row to draw.
    """
    level = None if floor is None else (floor, f"Gaussian batch, {floor:.2f}")
    title, unit = _ERRORS.get(objective, ("Prediction loss", "mean square of the next embedding"))

    def panel(title: str, unit: str, *columns: str, log: bool = True) -> Panel | None:
        lines = [
            Line(name, table["step"], table[column], colour=place)
            for place, (name, table) in enumerate((("training", train), ("held out", held_out)))
            for column in columns
            if table is not None and column in table and len(table["step"])
        ]
        if column_is_empty(lines):
            return None
        mark = level if "regularization" in columns else None
        return Panel(lines, "optimizer step", unit, title, log_y=log, level=mark)

    found = [
        panel(title, unit, "prediction"),
        panel("Regularizer", "statistic", "regularization", "sigreg"),
        panel("Effective rank of a batch", "directions", "effective_rank", log=False),
    ]
    if found[0] is None:
        raise ValueError("curves.csv must hold a row with a loss above 0, got none")
    return panels(*(p for p in found if p is not None), width=560, height=230)


def column_is_empty(lines: Sequence[Line]) -> bool:
    """Whether no line has a value above 0."""
    return not any(y > 0 for line in lines for y in line.y)


def latent_map(
    points: NDArray[np.floating[Any]],
    share: Sequence[float],
    places: NDArray[np.floating[Any]],
) -> Figure:
    """Two principal components beside the world, each frame in the colour of its true place.

    Args:
        points: [N, 2].
        share: of the variance, by direction.
        places: [N, 2], in the picture, y downwards.
    Returns: Figure.
    """
    first, second = (f"{100 * part:.0f} % of the variance" for part in share[:2])
    return clouds(
        Cloud(points, f"first principal component ({first})", f"second ({second})"),
        Cloud(places, "x", "y", "the same frames where they were", down=True),
        colours=colours_of(places),
        side=380,
    )


def tune_chart(trials: Sequence[Mapping[str, float]], weight: float | None) -> Figure:
    """Both shortfalls over λ, and where they meet if that is known.

    Args:
        trials: with weight, prediction and distribution.
        weight: λ that was found.
    Returns: Figure.
    """
    ordered = sorted(trials, key=lambda trial: trial["weight"])
    lines = [
        Line(name, [t["weight"] for t in ordered], [t[name] for t in ordered], colour=place)
        for place, name in enumerate(("prediction", "distribution"))
    ]
    found = None if weight is None else (weight, f"λ = {weight:.2g}")
    return panels(Panel(lines, "λ", "shortfall", log_x=True, moment=found), width=500, height=300)


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
    of_spread = "standard deviation of the last candidates"
    return panels(
        Panel(_problems(cost), "iteration", "lowest of the iteration", "cost",
              log_y=bool((cost > 0).all())),
        Panel(_problems(spread), "step of the plan", of_spread, "spread"),
        width=560, height=280,
    )  # fmt: skip


def _problems(values: NDArray[np.float64]) -> list[Line]:
    """A line for each column of [N, B], or the middle and quartiles of many."""
    x = list(range(1, len(values) + 1))
    problems = values.shape[1]
    if problems <= len(PALETTE):
        names = [f"problem {b}" if problems > 1 else "" for b in range(problems)]
        return [Line(name, x, values[:, b].tolist(), colour=b) for b, name in enumerate(names)]
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
    return [Line("median and quartiles", x, *(q.tolist() for q in (middle, low, high)))]
