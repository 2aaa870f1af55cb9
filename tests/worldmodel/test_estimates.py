"""Intervals of the right width, and a t-test that agrees with tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from worldmodel.study import (
    bootstrap,
    jackknife,
    mean_estimate,
    paired_test,
    proportion,
    rank_correlation,
    sign_test,
)


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


def test_what_is_not_a_number_is_no_evidence() -> None:
    """One NaN or infinity among the pairs is an error, not a p-value of 0."""
    good = torch.arange(5.0)
    for bad in (math.nan, math.inf):
        spoilt = good.clone()
        spoilt[2] = bad
        with pytest.raises(ValueError, match="must be finite, got 1 differences of 5"):
            paired_test(spoilt, good)
    with pytest.raises(ValueError, match="differences must be each a finite number"):
        sign_test([0.5, math.nan])


def test_nearly_equal_differences_are_equal() -> None:
    """Differences that vary by rounding alone are certain, without a warning."""
    d = torch.full((6,), 0.1, dtype=torch.float64)
    d[0] += 1e-16
    assert paired_test(d, torch.zeros(6)).t == math.inf


@given(st.integers(1, 300), st.data())
def test_a_proportion_has_wilsons_interval(trials: int, data: st.DataObject) -> None:
    """The ends solve |p̂ − p| = z √(p (1 − p) / n); 0 and 1 are reached exactly."""
    successes = data.draw(st.integers(0, trials))
    found = proportion(successes, trials)
    for end in (found.low, found.high):
        away = abs(found.value - end)
        assert away == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / trials), abs=1e-6)
    assert (found.low == 0) == (successes == 0)
    assert (found.high == 1) == (successes == trials)


def test_eight_of_ten_and_a_fraction_between() -> None:
    """8 of 10 lie between 0.490 and 0.943, as in textbooks; 7.5 of 10 between those of 7 and 8."""
    eight, seven, between = proportion(8, 10), proportion(7, 10), proportion(7.5, 10)
    assert (eight.low, eight.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert between.value == 0.75
    assert between.low == pytest.approx((eight.low + seven.low) / 2)
    assert between.high == pytest.approx((eight.high + seven.high) / 2)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 1 / 16), (7, 1, 18 / 256), (3, 3, 1.0)],
)
def test_the_sign_test_counts_coins(better: int, worse: int, p: float) -> None:
    """The p-value is that of fair coins, ties do not count, and sides are alike."""
    differences = [0.5] * better + [-1.0] * worse + [0.0] * 4
    assert sign_test(differences) == sign_test([-d for d in differences]) == pytest.approx(p)


def test_the_sign_test_survives_many_pairs() -> None:
    """Two thousand coins overflow no float: an even split is 1, a lopsided one nearly 0."""
    assert sign_test([1.0, -1.0] * 1000) == pytest.approx(1)
    assert 0 <= sign_test([1.0] * 2000) < 1e-300


def test_wrong_shapes_are_named() -> None:
    """Messages say what must hold and what came."""
    with pytest.raises(ValueError, match=r"sums must be a tensor of floats \[E, K\]"):
        bootstrap(torch.zeros(3), lambda t: t[..., 0])
    with pytest.raises(ValueError, match=r"without an empty axis"):
        jackknife(torch.zeros(0, 2), lambda t: t[..., 0])
    with pytest.raises(ValueError, match=r"first must be .*\[N >= 2\], got .*\[1\]"):
        paired_test(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"trials must be an integer of at least 1, got 0"):
        proportion(0, 0)


def test_a_rank_correlation_is_scipys_and_nan_where_nothing_varies() -> None:
    """Ties share their rank; a monotone map changes nothing; a constant row has no order."""
    costs = torch.randn(4, 30).round(decimals=1)
    truths = costs + torch.randn(4, 30).round(decimals=1)
    expected = [spearmanr(a, b).statistic for a, b in zip(costs, truths, strict=True)]
    assert rank_correlation(costs, truths).tolist() == pytest.approx(expected)
    assert rank_correlation(costs, costs.exp()).tolist() == pytest.approx([1] * 4)
    assert rank_correlation(costs, torch.zeros(4, 30)).isnan().all()
