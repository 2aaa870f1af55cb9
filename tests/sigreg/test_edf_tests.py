"""Cramér-von Mises, Anderson-Darling and Watson."""

import math

import pytest
import torch
from scipy import stats

from sigreg import anderson_darling, cramer_von_mises, watson

ALL = [cramer_von_mises, anderson_darling, watson]


def _sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 7, 100])
def test_cramer_von_mises_is_scipys(n):
    """The statistic is scipy's for the standard normal."""
    x = 1.4 * _sample(n, 3) - 0.3
    expected = [stats.cramervonmises(column, "norm").statistic for column in x.T.numpy()]
    assert cramer_von_mises(x).tolist() == pytest.approx(expected, rel=1e-12)


def _probability(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_anderson_darling_is_its_definition(n):
    """The statistic is the sum in its definition, written out with the error function."""
    x = sorted((1.4 * _sample(n) - 0.3).tolist())
    total = sum(
        (2 * i + 1) * (math.log(_probability(x[i])) + math.log(1 - _probability(x[n - 1 - i])))
        for i in range(n)
    )
    value = float(anderson_darling(torch.tensor(x, dtype=torch.float64)[:, None]))
    assert value == pytest.approx(-n - total / n, rel=1e-10)


def test_anderson_darling_is_a_weighted_distance_of_distribution_functions():
    """It is N ∫ (F_N − Φ)² / (Φ (1 − Φ)) dΦ, integrated here on a fine grid."""
    x = 0.8 * _sample(20) + 0.2
    u = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    empirical = torch.searchsorted(torch.special.ndtr(x).sort().values, u) / 20
    integral = 20 * ((empirical - u).square() / (u * (1 - u))).mean()
    assert float(anderson_darling(x[:, None])) == pytest.approx(float(integral), rel=1e-4)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_watson_is_the_smallest_cramer_von_mises_on_the_circle(n):
    """U² is W² with a free constant added to F_N − Φ, at its best value."""
    x = _sample(n, 1, seed=n)
    u = torch.special.ndtr(x).sort(0).values
    shift = u.mean() - 0.5
    expected = cramer_von_mises(x) - n * shift.square()
    assert float(watson(x)) == pytest.approx(float(expected), rel=1e-12)
    assert float(watson(x)) <= float(cramer_von_mises(x))


@pytest.mark.parametrize("n", [1, 3, 30])
@pytest.mark.parametrize(
    ("statistic", "mean", "deviation"),
    [(cramer_von_mises, 1 / 6, 0.15), (anderson_darling, 1.0, 0.77), (watson, 1 / 12, 0.06)],
)
def test_expectation_under_the_null(statistic, mean, deviation, n):
    """The expectation for Gaussian samples is 1/6, 1 and 1/12 whatever N is."""
    draws = 40_000
    value = float(statistic(_sample(n, draws, seed=n)).mean())
    assert value == pytest.approx(mean, abs=4 * deviation / math.sqrt(draws))


@pytest.mark.parametrize("statistic", ALL)
def test_smallest_at_the_gaussian_quantiles(statistic):
    """The midpoint quantiles of N(0, 1) score less than the same points moved or stretched."""
    x = torch.special.ndtri((torch.arange(50, dtype=torch.float64) + 0.5) / 50)[:, None]
    best = float(statistic(x))
    for moved in (1.5 * x, 0.6 * x, x.abs() - 0.8, torch.zeros_like(x)):
        assert float(statistic(moved)) > best


@pytest.mark.parametrize("statistic", ALL)
def test_gradient(statistic):
    """The analytic gradient is the numerical one."""
    x = _sample(9, 2).requires_grad_()
    assert torch.autograd.gradcheck(statistic, (x,))


@pytest.mark.parametrize("statistic", ALL)
def test_far_out_and_collapsed_samples_have_finite_gradients(statistic):
    """Neither samples at ±1000 nor equal samples give infinities."""
    for x in (torch.tensor([[-1e3], [0.0], [1e3]]), torch.zeros(5, 1)):
        x = x.clone().requires_grad_()
        value = statistic(x).sum()
        value.backward()
        assert value.isfinite()
        assert x.grad.isfinite().all()


def test_anderson_darling_pulls_far_samples_back():
    """Its gradient grows with the distance where that of Cramér-von Mises has vanished."""
    x = torch.cat([_sample(30).float(), torch.tensor([12.0])])[:, None].requires_grad_()
    pull = torch.autograd.grad(anderson_darling(x).sum(), x)[0][-1]
    none = torch.autograd.grad(cramer_von_mises(x).sum(), x)[0][-1]
    assert float(pull) > 0.1
    assert float(none) < 1e-12


@pytest.mark.parametrize("statistic", ALL)
def test_columns_are_tested_alone_and_order_is_free(statistic):
    """[..., N, M] gives [..., M], each value of its own column, whatever the samples' order."""
    x = _sample(2, 11, 3)
    value = statistic(x)
    assert value.shape == (2, 3)
    torch.testing.assert_close(statistic(x[1][torch.randperm(11)])[2:], value[1, 2:])
    assert float(statistic(x[0][:, 1:2])) == pytest.approx(float(value[0, 1]), rel=1e-12)


@pytest.mark.parametrize("statistic", ALL)
def test_refuses_wrong_input(statistic):
    """Integers and missing axes are errors that name what came."""
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        statistic(torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got \[3\]"):
        statistic(torch.zeros(3))
