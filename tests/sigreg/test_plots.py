"""Curves of cost in the docs are drawn from the numbers of a result."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

PLOTS = Path(__file__).parents[2] / "benchmarks" / "plots.py"


def load() -> ModuleType:
    """benchmarks/plots.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("plots", PLOTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_linear_cost_lies_on_its_dashed_line() -> None:
    """Proportional times coincide with the guide; constant memory crosses it."""
    results = [
        {"sweep": "N", "N": n, "seconds": {"median": 2e-3 * n}, "bytes": 5 * 2**20}
        for n in (8, 32, 128)
    ]
    drawn = load().cost_curves(results)
    assert "\n\n" not in drawn
    ET.fromstring(drawn)
    lines = re.findall(r'points="([^"]*)" fill="none" stroke="([^"]*)"( [^/]*dash)?', drawn)
    points = [[tuple(map(float, p.split(","))) for p in text.split()] for text, _, _ in lines]
    curves = {color: p for p, (_, color, _) in zip(points, lines, strict=True) if len(p) == 3}
    slopes = {color: (p[2][1] - p[0][1]) / (p[2][0] - p[0][0]) for color, p in curves.items()}
    guides = [p for p, (_, color, _) in zip(points, lines, strict=True) if color not in curves]
    ends = {p[-1]: (p[1][1] - p[0][1]) / (p[1][0] - p[0][0]) for p in guides if p[0][1] != p[1][1]}
    time, memory = (color for color in curves)
    assert slopes[time] == pytest.approx(ends[curves[time][-1]], abs=0.01)
    assert slopes[memory] == 0
    assert ends[curves[memory][-1]] < 0
