"""Pictures of a search for a plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from planners import Plan
from worldmodel.apps.charts import PALETTE, Series, line_chart, stack

__all__ = ["convergence"]


def convergence(plan: Plan) -> Image.Image:
    """How the cost fell from iteration to iteration, and how far apart the candidates still are.

    Above, `plan.history`: a line for each problem, or the quartiles of the problems where there
    are more than four; on a logarithmic axis if every cost is positive. Below, `plan.spread` at
    each step of the horizon, averaged over action dims, the same way. A cost that still falls at
    the right edge asks for more iterations; a spread of zero long before it, for more elites.

    Args:
        plan: what `planners.optimize` returned, or `MPC.last`.
    Returns: one picture, two charts above each other; `charts.save_picture` writes it.
    Raises: ValueError if the history or the spread is not finite.
    """
    cost = _numbers(plan.history.detach().double().cpu().numpy())
    spread = _numbers(plan.spread.detach().double().mean(-1).T.cpu().numpy())
    return stack(
        [
            line_chart(
                _lines(cost, first=1),
                title="cost",
                x_label="iteration",
                y_label="lowest of the iteration",
                log_y=bool((cost > 0).all()),
            ),
            line_chart(
                _lines(spread, first=1),
                title="spread",
                x_label="step of the plan",
                y_label="standard deviation of the last candidates",
            ),
        ]
    )


def _numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ValueError("plan must have a finite history and spread, got inf or nan")
    return values


def _lines(values: NDArray[np.float64], *, first: int) -> list[Series]:
    """Series of columns [N, B], or of their quartiles; x counts from `first`."""
    x = np.arange(first, first + len(values), dtype=np.float64)
    problems = values.shape[1]
    if problems <= len(PALETTE):
        names = [f"problem {b}" if problems > 1 else "" for b in range(problems)]
        return [Series(x, values[:, b], name) for b, name in enumerate(names)]
    quartiles = np.quantile(values, (0.5, 0.25, 0.75), axis=1)
    names = ["median", "first quartile", "third quartile"]
    return [Series(x, row, name) for row, name in zip(quartiles, names, strict=True)]
