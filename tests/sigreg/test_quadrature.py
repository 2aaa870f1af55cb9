"""The rule that turns the integral over frequencies into a sum."""

import math

import pytest
import torch

from sigreg import trapezoid


def test_a_fine_rule_integrates_the_window() -> None:
    """The weights sum to ∫ e^{−t²/2} dt = √2π once the interval holds all of it."""
    assert float(trapezoid(65, 12.0).weight.sum()) == pytest.approx(math.sqrt(2 * math.pi))


def test_the_default_is_the_released_rule() -> None:
    """17 knots on [0, 3], weights 2Δt inside and Δt at the ends, times the window."""
    rule = trapezoid()
    assert rule.t.tolist() == [3 * k / 16 for k in range(17)]
    assert rule.spacing == 3 / 16
    width = torch.full((17,), 2 * 3 / 16, dtype=torch.float64)
    width[[0, -1]] /= 2
    torch.testing.assert_close(rule.weight, width * torch.exp(-(rule.t**2) / 2))
    torch.testing.assert_close(rule.target, torch.exp(-(rule.t**2) / 2))


def test_two_knots_are_the_least() -> None:
    """A trapezoid needs both its ends."""
    assert trapezoid(2).t.tolist() == [0.0, 3.0]
    with pytest.raises(ValueError, match="knots must be a whole number of at least 2, got 1"):
        trapezoid(1)


@pytest.mark.parametrize("t_max", [0.0, -1.0, math.inf, math.nan])
def test_t_max_is_positive_and_finite(t_max: float) -> None:
    """An interval without length or end is refused."""
    with pytest.raises(ValueError, match="t_max must be positive and finite"):
        trapezoid(17, t_max)
