"""Moments and Jarque-Bera."""

import math

import pytest
import torch
from scipy import stats

from sigreg import extended_jarque_bera, hermite_moments, jarque_bera


def _sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("order", [1, 2, 4, 6])
@pytest.mark.parametrize("n", [1, 10])
def test_hermite_floor_is_the_order(order, n):
    """Each moment adds exactly 1 to the expectation under N(0, 1), whatever N is."""
    values = hermite_moments(_sample(n, 400_000, seed=n), order)
    error = 5 * float(values.std()) / math.sqrt(400_000)
    assert float(values.mean()) == pytest.approx(order, abs=error)


def test_hermite_moments_of_two_points():
    """Samples at ±1 match mean, variance and skewness: only He_4(±1) = −2 is left, 4N/24."""
    x = torch.tensor([[-1.0], [1.0]] * 5, dtype=torch.float64)
    assert float(hermite_moments(x, 3)) == pytest.approx(0, abs=1e-12)
    assert float(hermite_moments(x, 4)) == pytest.approx(10 * 4 / 24)


def test_hermite_moments_match_scipys_polynomials():
    """The recurrence gives the probabilists' Hermite polynomials."""
    from scipy.special import eval_hermitenorm

    x = 1.2 * _sample(30) + 0.1
    expected = sum(
        30 * float(eval_hermitenorm(j, x.numpy()).mean()) ** 2 / math.factorial(j)
        for j in range(1, 6)
    )
    assert float(hermite_moments(x[:, None], 5)) == pytest.approx(expected, rel=1e-10)


def test_jarque_bera_is_scipys():
    """The statistic is scipy's."""
    x = _sample(40, 3).exp()
    expected = [stats.jarque_bera(column).statistic for column in x.T.numpy()]
    assert jarque_bera(x).tolist() == pytest.approx(expected, rel=1e-9)


def test_jarque_bera_sees_neither_mean_nor_scale():
    """A shift or a stretch leaves the plain test alone and moves the extended one."""
    x = _sample(100, 1)
    torch.testing.assert_close(jarque_bera(3 * x + 5), jarque_bera(x), rtol=1e-7, atol=0)
    for moved in (x + 1, 2 * x):
        assert float(extended_jarque_bera(moved)) > float(extended_jarque_bera(x)) + 10


@pytest.mark.parametrize(("statistic", "mean"), [(jarque_bera, 2), (extended_jarque_bera, 4)])
def test_jarque_bera_expectation(statistic, mean):
    """Large Gaussian samples score two or four on average, one per moment."""
    assert float(statistic(_sample(5000, 4000)).mean()) == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("statistic", [hermite_moments, jarque_bera, extended_jarque_bera])
def test_gradient(statistic):
    """The analytic gradient is the numerical one, and finite for equal samples."""
    assert torch.autograd.gradcheck(statistic, (_sample(9, 2).requires_grad_(),))
    x = torch.zeros(5, 2, requires_grad=True)
    statistic(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("statistic", [hermite_moments, jarque_bera, extended_jarque_bera])
def test_refuses_wrong_input(statistic):
    """Integers and missing axes are errors that name what came."""
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        statistic(torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got \[3\]"):
        statistic(torch.zeros(3))
    with pytest.raises(ValueError, match="order must be a whole number of at least 1, got 0"):
        hermite_moments(torch.zeros(3, 3), 0)
