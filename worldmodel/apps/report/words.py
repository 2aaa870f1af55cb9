"""Figures in words: one way to write a percentage, a number, an interval."""

from __future__ import annotations

import math

from worldmodel.study import Estimate

__all__ = ["interval", "number", "p_value", "percent", "plural", "points"]


def percent(share: float | None, digits: int = 1) -> str:
    """0.865 -> 86.5 %; nothing -> none."""
    return "none" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """0.035 -> +3.5 points."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def number(value: float | None) -> str:
    """Three significant digits, two of what is tiny; – for what is not defined."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.3g}" if size >= 0.01 else f"{value:.2g}"
    return text.replace("-", "−")


def interval(estimate: Estimate) -> str:
    """0.9 (0.85 to 0.94)."""
    if math.isnan(estimate.low):
        return f"{number(estimate.value)} (n = {estimate.n}, no interval)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def p_value(p: float) -> str:
    """Two digits, and a bound for what no sample can tell from 0."""
    return "< 10⁻¹²" if p < 1e-12 else f"{p:.2g}"


def plural(count: int, noun: str) -> str:
    """1 step, 2 steps."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
