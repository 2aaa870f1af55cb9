"""Intervals of the right width, and a t-test that agrees with tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.study import bootstrap, jackknife, mean_estimate, paired_test, proportion


def test_the_interval_of_a_mean_is_two_standard_errors() -> None:
    """For many Gaussian values the bootstrap gives mean ± 1.96 σ / √n, and says n."""
    values = torch.randn(400, dtype=torch.float64) * 3 + 5
    found = mean_estimate(values)
    half = 1.96 * float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()))
    assert found.n == 400
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)


def test_the_jackknife_of_a_mean_is_the_standard_error() -> None:
    """Leaving one out at a time gives s / √n exactly for a mean, at any n."""
    values = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    sums = torch.stack([values, torch.ones_like(values)], dim=1)
    found = jackknife(sums, lambda total: total[..., 0] / total[..., 1])
    half = 1.959964 * float(values.std()) / 2
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4 - half, 4 + half))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Of 200 intervals for a mean of 40 values, about 95 % hold the true one."""
    hits = 0
    for seed in range(200):
        values = torch.randn(40, generator=torch.Generator().manual_seed(seed))
        found = mean_estimate(values, seed=seed)
        hits += found.low <= 0 <= found.high
    assert 180 <= hits <= 198


def test_an_episode_is_drawn_whole() -> None:
    """Ten equal rows of an episode tell no more than one: the interval is that of episodes."""
    episode = torch.randn(30, dtype=torch.float64)
    one = torch.stack([episode, torch.ones_like(episode)], dim=1)
    mean = lambda total: total[..., 0] / total[..., 1]  # noqa: E731
    assert bootstrap(one, mean) == pytest.approx(bootstrap(10 * one, mean))


def test_one_episode_has_a_value_and_no_interval() -> None:
    """With n = 1 the ends are NaN; with no value at all everything is, and n is 0."""
    alone = mean_estimate(torch.tensor([2.5]))
    assert alone.value == 2.5
    assert alone.n == 1
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    none = mean_estimate(torch.tensor([math.nan, math.nan]))
    assert none.n == 0
    assert math.isnan(none.value)


def test_what_is_not_defined_is_left_out() -> None:
    """NaN episodes change neither the mean nor n of the others."""
    values = torch.tensor([1.0, math.nan, 3.0])
    assert mean_estimate(values) == mean_estimate(values[[0, 2]])


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40, unique=True))
def test_the_t_test_is_the_one_of_scipy(values: list[float]) -> None:
    """Statistic and p-value agree with scipy's paired test, for even and odd freedom."""
    stats = pytest.importorskip("scipy.stats")
    first = torch.tensor(values, dtype=torch.float64)
    second = torch.linspace(-1, 1, len(values), dtype=torch.float64).flip(0)
    if float((first - second).std()) < 1e-6:
        return
    found, wanted = paired_test(first, second), stats.ttest_rel(first.numpy(), second.numpy())
    assert found.t == pytest.approx(wanted.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-13)
    assert found.difference.n == len(values)


def test_the_t_test_knows_a_table() -> None:
    """t = 2.262 with 9 degrees of freedom is the 5 % point of every textbook."""
    d = torch.linspace(-1, 1, 10, dtype=torch.float64)
    d = d / d.std() * math.sqrt(10) + 2.2621571628
    assert paired_test(d, torch.zeros(10)).p_value == pytest.approx(0.05, abs=1e-9)


def test_an_effect_is_a_mean_in_standard_deviations() -> None:
    """Differences of mean 2 and standard deviation 1 have an effect of 2, all of them larger."""
    d = torch.randn(200, dtype=torch.float64)
    d = (d - d.mean()) / d.std() * 0.5 + 1
    found = paired_test(d, torch.zeros(200))
    assert found.effect.value == pytest.approx(2.0)
    assert found.effect.low < 2 < found.effect.high
    assert found.larger.value == pytest.approx(float((d > 0).double().mean()))


def test_equal_differences_are_certain_or_nothing() -> None:
    """Without any spread t is infinite, and 0 where there is no difference either."""
    ones = torch.ones(5)
    assert paired_test(ones, torch.zeros(5)).t == math.inf
    assert paired_test(ones, torch.zeros(5)).p_value == 0
    assert paired_test(ones, ones).t == 0
    assert paired_test(ones, ones).p_value == pytest.approx(1)


def test_a_proportion_has_wilsons_interval() -> None:
    """8 of 10 lie between 0.490 and 0.943, as Wilson's formula gives; none of 10 starts at 0."""
    found = proportion(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert proportion(0, 10).low == 0


def test_wrong_shapes_are_named() -> None:
    """Messages say what must hold and what came."""
    with pytest.raises(ValueError, match=r"sums must be \[E >= 1, K\], got \[3\]"):
        bootstrap(torch.zeros(3), lambda t: t[..., 0])
    with pytest.raises(ValueError, match=r"sums must be \[E >= 1, K\], got \[0, 2\]"):
        jackknife(torch.zeros(0, 2), lambda t: t[..., 0])
    with pytest.raises(ValueError, match=r"\[N\] with N >= 2, got \[1\] and \[1\]"):
        paired_test(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"trials >= 1, got 0, 0"):
        proportion(0, 0)
