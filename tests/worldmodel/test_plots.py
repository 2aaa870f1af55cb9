"""The picture of a search shows its history and its spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor

from planners import CEM, Plan, optimize
from worldmodel.apps.charts import PALETTE
from worldmodel.apps.plots import _lines, convergence


def plan(problems: int, history: torch.Tensor | None = None) -> Plan:
    """A search with the given history, falling by tenths where none is given."""
    if history is None:
        history = 10.0 ** -torch.arange(4.0).unsqueeze(1).expand(-1, problems)
    B = history.shape[1]
    spread = torch.linspace(0, 1, 5).view(1, 5, 1).expand(B, 5, 2)
    return Plan(torch.zeros(B, 5, 2), history[-1], history, spread)


def coloured(image: Image.Image, colour: str) -> NDArray[np.int64]:
    """Rows and columns of pixels near a colour: [N, 2]."""
    apart = np.asarray(image, np.int64) - np.asarray(ImageColor.getrgb(colour))
    return np.argwhere(np.abs(apart).max(-1) < 40)


def test_a_cost_that_falls_by_tenths_is_a_straight_line() -> None:
    """The upper chart is logarithmic for positive costs: equal ratios are equal heights."""
    found = coloured(convergence(plan(1)), PALETTE[0])
    upper = found[found[:, 0] < 300]
    left, right = upper[:, 1].min(), upper[:, 1].max()

    def height(share: float) -> float:
        return float(upper[np.abs(upper[:, 1] - (left + share * (right - left))) < 4, 0].mean())

    assert height(0.0) < height(0.5) < height(1.0)
    assert height(0.5) == pytest.approx((height(0.02) + height(0.98)) / 2, abs=3)


def test_costs_below_zero_are_drawn_too() -> None:
    """A history that is not positive takes a linear axis, where its last value is lowest."""
    history = torch.tensor([[1.0], [0.0], [-1.0]])
    found = coloured(convergence(plan(1, history)), PALETTE[0])
    upper = found[found[:, 0] < 300]
    first, last = upper[upper[:, 1].argmin()], upper[upper[:, 1].argmax()]
    assert last[0] > first[0] + 100


def test_up_to_four_problems_have_a_line_each_and_more_have_quartiles() -> None:
    """Columns stay columns up to the palette's size; beyond, the middle and the quartiles."""
    values = np.arange(12.0).reshape(3, 4)
    assert [line.y.tolist() for line in _lines(values, first=1)] == values.T.tolist()
    many = np.tile(np.arange(101.0), (3, 1))
    lines = {line.name: line for line in _lines(many, first=1)}
    assert {name: line.y[0] for name, line in lines.items()} == {
        "median": 50, "first quartile": 25, "third quartile": 75,
    }  # fmt: skip
    assert lines["median"].x.tolist() == [1, 2, 3]


def test_it_draws_what_optimize_returns() -> None:
    """A plan from a search is a picture as it is, and a broken one is refused by name."""
    found = optimize(
        CEM(20, 5), lambda a: a.square().sum((-1, -2)), torch.ones(6, 3, 2), iterations=3
    )
    image = convergence(found)
    assert image.size[1] > image.size[0]
    with pytest.raises(ValueError, match="plan must have a finite history"):
        convergence(found._replace(history=found.history / 0))
