"""The rule that turns the integral over frequencies into a sum."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sigreg import SIGReg, noise_floor, random_directions, sigreg_loss, student_t_cf, trapezoid_rule
from sigreg.directions import Sketch


def test_a_fine_rule_integrates_the_window() -> None:
    """The weights sum to ∫ e^{−t²/2} dt = √2π once the interval holds all of it."""
    assert float(trapezoid_rule(65, 12.0).weight.sum()) == pytest.approx(math.sqrt(2 * math.pi))


def test_the_default_is_the_released_rule() -> None:
    """17 knots on [0, 3], weights 2Δt inside and Δt at the ends, times the window."""
    rule = trapezoid_rule()
    assert rule.t.tolist() == [3 * k / 16 for k in range(17)]
    assert rule.spacing == 3 / 16
    width = torch.full((17,), 2 * 3 / 16, dtype=torch.float64)
    width[[0, -1]] /= 2
    torch.testing.assert_close(rule.weight, width * torch.exp(-(rule.t**2) / 2))
    torch.testing.assert_close(rule.target, torch.exp(-(rule.t**2) / 2))


def test_two_knots_are_the_least() -> None:
    """A trapezoid needs both its ends."""
    assert trapezoid_rule(2).t.tolist() == [0.0, 3.0]
    with pytest.raises(ValueError, match="knots must be a whole number of at least 2, got 1"):
        trapezoid_rule(1)


@pytest.mark.parametrize("t_max", [0.0, -1.0, math.inf, math.nan])
def test_t_max_is_positive_and_finite(t_max: float) -> None:
    """An interval without length or end is refused."""
    with pytest.raises(ValueError, match=r"t_max must be in \(0, inf\)"):
        trapezoid_rule(17, t_max)


def test_students_characteristic_function_is_closed() -> None:
    """For ν = 3 and 5 it is (1 + u) e^{−u} and (1 + u + u²/3) e^{−u}, u = √(ν − 2) |t|."""
    t = torch.linspace(0, 4, 41, dtype=torch.float64)
    for dof, polynomial in ((3, lambda u: 1 + u), (5, lambda u: 1 + u + u**2 / 3)):
        u = math.sqrt(dof - 2) * t
        torch.testing.assert_close(student_t_cf(dof)(t), polynomial(u) * torch.exp(-u))
        torch.testing.assert_close(student_t_cf(dof)(-t), student_t_cf(dof)(t))


@pytest.mark.parametrize("dof", [3, 4, 6, 9])
def test_it_is_the_mean_of_cosines_under_students_law(dof: int) -> None:
    """E cos tX over the density of X, integrated numerically, for X of variance 1."""
    scale = math.sqrt((dof - 2) / dof)
    quantile = (np.arange(400_000) + 0.5) / 400_000
    x = torch.from_numpy(stats.t(dof, scale=scale).ppf(quantile))
    for t in (0.2, 1.0, 2.7):
        value = student_t_cf(dof)(torch.tensor(t, dtype=torch.float64))
        assert float(value) == pytest.approx(float(torch.cos(t * x).mean()), abs=2e-5)


def test_many_degrees_of_freedom_are_a_gaussian() -> None:
    """For ν → ∞ Student's law is the normal one, and at 0 every target is exactly 1."""
    rule = trapezoid_rule()
    torch.testing.assert_close(student_t_cf(300)(rule.t), rule.target, rtol=0, atol=3e-3)
    for dof in (3, 4, 300):
        assert float(student_t_cf(dof)(rule.t)[0]) == 1


def test_a_target_needs_a_variance() -> None:
    """With two degrees of freedom there is none to set to 1."""
    with pytest.raises(ValueError, match="dof must be a whole number of at least 3, got 2"):
        student_t_cf(2)


def test_samples_of_the_target_score_its_floor() -> None:
    """Student samples score Σ w (1 − target²) against Student's target, Gaussian ones more."""
    dof, rule = 5, trapezoid_rule(target=student_t_cf(5))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 256, 6, generator=generator)
    chi = torch.randn(400, 256, dof, generator=generator).square().sum(-1, keepdim=True)
    heavy = z / (chi / dof).sqrt() * math.sqrt((dof - 2) / dof)
    a, floor = random_directions(16, 6, seed=0, step=0), noise_floor(rule)
    assert float(sigreg_loss(heavy, a, rule)) == pytest.approx(floor, rel=0.05)
    assert float(sigreg_loss(z, a, rule)) > 1.2 * floor
    layer = SIGReg(num_proj=16, quadrature=rule)
    torch.testing.assert_close(layer(z), sigreg_loss(z, Sketch(16).draw(z), rule))
