"""The curves of a training run as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldmodel.apps.charts import Series, line_chart, save_picture, stack
from worldmodel.apps.train.reports import read_table

__all__ = ["draw_curves"]


def draw_curves(folder: Path, floor: float | None) -> Path:
    """Both losses, in training and held out, and the effective rank: `curves.png`.

    An objective without regularizer has no panel for one.

    Args:
        folder: a run folder with curves.csv and held_out.csv.
        floor: of the regularizer, to be marked.
    Returns: the picture's path.
    Raises: ValueError if there is no row to draw.
    """
    train, held_out = read_table(folder / "curves.csv"), read_table(folder / "held_out.csv")

    def lines(column: str) -> list[Series]:
        tables = (("training", train), ("held out", held_out))
        return [
            Series(np.asarray(table["step"]), np.asarray(table[column]), name)
            for name, table in tables
            if column in table and table["step"]
        ]

    mark = [] if floor is None else [(floor, f"Gaussian batch {floor:.2f}")]
    x_label = "optimizer step"
    pictures = [
        line_chart(
            lines("prediction"),
            title="Prediction loss",
            x_label=x_label,
            y_label="mean square",
            log_y=True,
        ),
        line_chart(
            lines("effective_rank"),
            title="Effective rank of a training batch",
            x_label=x_label,
            y_label="directions",
        ),
    ]
    regularized = lines("regularization")
    if any((series.y > 0).any() for series in regularized):
        pictures.insert(
            1,
            line_chart(
                regularized,
                title="Regularizer",
                x_label=x_label,
                y_label="statistic",
                log_y=True,
                marks=mark,
            ),
        )
    path = folder / "curves.png"
    save_picture(stack(pictures), path)
    return path
