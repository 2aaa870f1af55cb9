"""Charts: what is drawn is what was given, in the page's colours, whatever the names are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from planners import CEM, Plan, optimize
from worldmodel.apps.report import (
    convergence,
    latent_map,
    save_chart,
    training_curves,
    tune_chart,
)
from worldmodel.apps.report.charts import (
    PALETTE,
    LatentMap,
    Line,
    Panel,
    bars,
    panels,
    position_colours,
    ranges,
    svg,
)
from worldmodel.study import Estimate

HOSTILE = "<script>alert('$x_1$')</script> \" & ${7*7}"
ROW, NONE = Estimate(0.5, 0.25, 0.75, 10), Estimate(np.nan, np.nan, np.nan, 0)


def panel(*y: float, **how: Any) -> Panel:
    """Values over 0, 1, 2 and so on."""
    return Panel([Line("a", range(len(y)), y)], "x", "y", **how)


def drawn(figure: Any, axes: int = 0, line: int = 0) -> list[float]:
    """The heights of a line."""
    return list(figure.axes[axes].lines[line].get_ydata())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: panels(
            Panel([Line(HOSTILE, [1, 2], [Estimate(3, 2, 4, 9), ROW])], HOSTILE, HOSTILE, HOSTILE,
                  level=(1, HOSTILE), moment=(1, HOSTILE))
        ),
        lambda: ranges([(HOSTILE[:25], ROW, 0), (HOSTILE, NONE, 1)], (0, 1)),
        lambda: bars([3, 2, 1], HOSTILE, HOSTILE),
    ],
    ids=["panels", "ranges", "bars"],
)  # fmt: skip
def test_a_chart_is_one_element_that_fetches_nothing(draw: Callable[[], Any]) -> None:
    """Well-formed, the same every time, colours by role, a hostile name a text like any other."""
    text = svg(draw(), HOSTILE)
    assert svg(draw(), HOSTILE) == text
    root = ET.fromstring(text)
    assert root.get("aria-label") == HOSTILE
    assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "metadata")]
    words = [e.text for e in root.iter() if e.tag.rpartition("}")[2] == "text"]
    assert any((word or "").startswith(HOSTILE[:20]) for word in words)
    for address in re.findall(r'href="([^"]*)"', text):
        assert address.startswith(("#", "data:image/png;base64,"))
    assert "var(--faint)" in text
    assert not re.search("|".join((*PALETTE, "#24272f", "#6c707b", "#e3e1d9")), text)


def test_a_line_goes_through_its_points() -> None:
    """NaN is left out, and on a logarithmic axis what is not above 0; ticks fit the axis."""
    assert drawn(panels(panel(1, np.nan, 3))) == [1, 3]
    figure = panels(panel(0, -1, 1, 10, 100, log_y=True))
    assert drawn(figure) == [1, 10, 100]
    assert figure.axes[0].get_yscale() == "log"
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert {"1", "10", "100"} <= set(shown)
    both = svg(panels(panel(1, 2, 3, log_x=True, log_y=True)), "t")
    assert "mathdefault" not in both
    assert re.findall(r">([\d.]+)</text>", both).count("2") == 2


@pytest.mark.parametrize("log", [False, True])
def test_one_point_and_a_constant_are_drawn(log: bool) -> None:
    """No range is empty: a single step, or a value that never moves, has a chart."""
    for y in ((3.0,), (3.0, 3.0), (1e-9, 1e-9)):
        assert svg(panels(panel(*y, log_y=log, log_x=False)), "t").startswith("<svg")


def test_nothing_to_draw_is_refused() -> None:
    """A chart without a point, or without a positive one on a log axis, says so."""
    for empty in (panel(), panel(0, 0, log_y=True), panel(np.nan)):
        with pytest.raises(ValueError, match="lines must hold a point, above 0"):
            panels(empty)


def test_a_range_stops_at_the_ends_of_the_scale() -> None:
    """Dot and interval lie at their values, cut off where the scale ends; rows run downwards."""
    figure = ranges([("a", ROW, 0), ("b", Estimate(2.0, 0.9, 3.0, 10), 1)], (0, 1), percent=True)
    first, dot, second, end = figure.axes[0].lines
    assert first.get_xdata().tolist() == [0.25, 0.75]
    assert dot.get_xdata().tolist() == [0.5]
    assert second.get_xdata().tolist() == [0.9, 1.0]
    assert end.get_xdata().tolist() == [1.0]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top
    assert "50 %" in svg(figure, "t") or "40 %" in svg(figure, "t")


def test_position_colours_blend_between_four_corners() -> None:
    """The centre has the mean of its corners' colours; one coordinate runs between two ends."""
    corners = position_colours(np.asarray([[0.0, 0], [9, 0], [0, 9], [9, 9], [4.5, 4.5]]))
    np.testing.assert_allclose(corners[4], corners[:4].astype(float).mean(0), atol=1)
    assert len(np.unique(corners, axis=0)) == 5
    ends = position_colours(np.asarray([[2.0], [4.0], [3.0]]))
    np.testing.assert_allclose(ends[2], ends[:2].astype(float).mean(0), atol=1)
    assert len(np.unique(position_colours(np.ones((3, 2))), axis=0)) == 1


def test_a_frame_has_one_colour_on_both_sides_of_the_map() -> None:
    """The point of a frame and its true place share a colour; y runs down where pictures do."""
    states = np.asarray([[0, 0], [224, 0], [0, 224], [224, 224]], np.float64)
    part = LatentMap([0.6, 0.3], states[::-1] / 9, states, in_picture=True)
    (both,) = latent_map(part)
    left, right = (axes.collections[0] for axes in both.axes)
    np.testing.assert_allclose(left.get_facecolors(), right.get_facecolors())
    np.testing.assert_allclose(left.get_offsets(), states[::-1] / 9)
    assert both.axes[1].yaxis_inverted()
    assert not both.axes[0].yaxis_inverted()
    assert len(latent_map(part, apart=True)) == 2
    flat = part._replace(share=[1.0], points=np.zeros((4, 1)), places=np.zeros((4, 1)))
    assert len(latent_map(flat)[0].axes) == 1


def test_curves_of_a_training_say_what_was_minimised() -> None:
    """A panel for each loss there is, the floor marked; a cloned policy has a loss of actions."""
    table = {"step": [1.0, 2.0], "prediction": [0.5, 0.2], "regularization": [9.0, np.nan],
             "effective_rank": [8.0, 8.0]}  # fmt: skip
    held_out = {"step": [2.0], "prediction": [0.3], "regularization": [2.0]}
    whole = training_curves(table, held_out, floor=1.05)
    titles = [axes.get_title(loc="right") for axes in whole.axes]
    assert titles == ["Prediction loss", "Regularizer", "Effective rank of a training batch"]
    assert drawn(whole, 1, 1) == [2.0]
    assert drawn(whole, 1, 2) == [1.05, 1.05]
    cloned = training_curves(table | {"regularization": [0.0, 0.0]}, floor=None, objective="gcbc")
    titles = [axes.get_title(loc="right") for axes in cloned.axes]
    assert titles == ["Action loss", "Effective rank of a training batch"]
    with pytest.raises(ValueError, match="lines must hold a point"):
        training_curves({"step": [], "prediction": []}, floor=None)


def test_a_search_is_drawn_in_the_order_of_its_weights() -> None:
    """Trials come in the order they were run in and are drawn from small λ to large."""
    trials = [{"weight": w, "prediction": w, "distribution": 1 - w} for w in (0.01, 1.0, 0.1)]
    figure = tune_chart(trials, 0.5)
    assert drawn(figure) == [0.01, 0.1, 1.0]
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].lines[2].get_xdata() == [0.5, 0.5]
    assert len(tune_chart(trials, None).axes[0].lines) == 2


def plan(history: torch.Tensor) -> Plan:
    """A search with the given history [iterations, B]."""
    B = history.shape[1]
    spread = torch.linspace(0, 1, 5).view(1, 5, 1).expand(B, 5, 2)
    return Plan(torch.zeros(B, 5, 2), history[-1], history, spread)


def test_a_positive_cost_is_drawn_by_its_logarithm() -> None:
    """Costs that fall by tenths take a logarithmic axis, those below zero a linear one."""
    falling = 10.0 ** -torch.arange(4.0).unsqueeze(1)
    figure = convergence(plan(falling))
    assert figure.axes[0].get_yscale() == "log"
    assert drawn(figure) == pytest.approx([1, 0.1, 0.01, 0.001])
    assert drawn(figure, 1) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    figure = convergence(plan(falling - 1))
    assert figure.axes[0].get_yscale() == "linear"


def test_up_to_four_problems_have_a_line_each_and_more_have_quartiles() -> None:
    """Columns stay columns up to the palette's size; beyond, the middle and the quartiles."""
    few = convergence(plan(torch.arange(12.0).view(3, 4)))
    assert [drawn(few, 0, b) for b in range(4)] == torch.arange(12.0).view(3, 4).T.tolist()
    many = convergence(plan(torch.arange(101.0).expand(3, -1)))
    assert drawn(many) == [50, 50, 50]
    band = many.axes[0].collections[0].get_paths()[0].vertices
    assert {25.0, 75.0} <= set(band[:, 1].tolist())


def test_it_draws_what_optimize_returns() -> None:
    """A plan from a search is a picture as it is, and a broken one is refused by name."""
    found = optimize(
        CEM(20, 5), lambda a: a.square().sum((-1, -2)), torch.ones(6, 3, 2), iterations=3
    )
    assert len(convergence(found).axes) == 2
    with pytest.raises(ValueError, match="plan must have a finite history"):
        convergence(found._replace(history=found.history / 0))


def test_a_saved_chart_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The file is whole under its name, the same bytes every time; no temporary one stays."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    save_chart(panels(panel(1, 2)), path)
    first = path.read_bytes()
    save_chart(panels(panel(1, 2)), path)
    assert path.read_bytes() == first
    with Image.open(path) as image:
        assert image.size[0] > image.size[1] > 300
        assert np.asarray(image.convert("L")).std() > 5
    assert list(tmp_path.iterdir()) == [path]
