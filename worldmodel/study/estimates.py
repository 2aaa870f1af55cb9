"""Figures with confidence intervals: bootstrap over episodes, proportions, paired differences.

Frames of one episode are alike, so whole episodes are drawn, never parts of one.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.records import as_seed

__all__ = [
    "Estimate", "PairedTest", "bootstrap", "jackknife", "mean_estimate", "paired_test",
    "proportion", "rank_correlation", "sign_test",
]  # fmt: skip

_ROUNDS = 2000
_Z = 1.959964  # 97.5 % point of N(0, 1)
Figure = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """A figure, its 95 % interval, and the number of episodes behind it."""

    value: float  #: NaN where it is not defined (a cosine of a path that never moves).
    low: float  #: Lower end of the interval; NaN where n is below 2.
    high: float  #: Upper end.
    n: int  #: Number of episodes.


class PairedTest(NamedTuple):
    """Do the differences of N pairs have mean 0?"""

    difference: Estimate  #: Mean difference.
    effect: Estimate  #: Mean over standard deviation of the differences (Cohen's d_z).
    t: float  #: Student's statistic, with n − 1 degrees of freedom.
    p_value: float  #: Two-sided, of Student's paired test.
    larger: Estimate  #: Share of the pairs whose difference is above 0.


@checked(sums="E K")
def bootstrap(sums: Tensor, figure: Figure, *, seed: int = 0) -> Estimate:
    """A figure of totals over episodes, with a percentile bootstrap interval.

        value = f(Σ_e s_e),   interval: 2.5 % and 97.5 % points of f(Σ_e m_e s_e)

    m counts how often each of E episodes is drawn when E are drawn with replacement. Means, ratios,
    R² and correlations depend on totals alone, so 2000 rounds are one matrix product.

    Args:
        sums: [E, K], what each episode adds to each of K totals.
        figure: totals [..., K] -> [...].
    Returns: Estimate; rounds where the figure is not defined do not enter the interval.
    Raises: ValueError if `sums` is not [E, K] with at least one episode.
    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), Chapter 13.
    """
    sums = sums.double().cpu()
    num, value = len(sums), float(figure(sums.sum(0)))
    if num >= 2 and math.isfinite(value):
        generator = torch.Generator().manual_seed(as_seed(seed))
        drawn = torch.randint(num, (_ROUNDS, num), generator=generator, device="cpu")
        counts = torch.zeros(_ROUNDS, num, dtype=torch.float64, device="cpu")
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        again = figure(counts @ sums)
        again = again[again.isfinite()]
        if len(again) >= _ROUNDS // 2:
            ends = torch.quantile(again, again.new_tensor([0.025, 0.975]))
            low, high = ends.tolist()
            return Estimate(value, low, high, num)
    return Estimate(value, math.nan, math.nan, num)


@checked(sums="E K")
def jackknife(sums: Tensor, figure: Figure) -> Estimate:
    """As `bootstrap`, by leaving out one episode at a time.

        value ± 1.96 √((E − 1) / E · Σ_e (f₋ₑ − f̄₋)²)

    For figures that repeated episodes distort, such as an effective rank, which they lower.

    Source: Efron & Tibshirani (1993), Chapter 11.
    """
    sums = sums.double().cpu()
    num, value, half = len(sums), float(figure(sums.sum(0))), math.nan
    if num >= 2 and math.isfinite(value):
        without = figure(sums.sum(0) - sums)
        half = _Z * math.sqrt((num - 1) / num * float((without - without.mean()).square().sum()))
    return Estimate(value, value - half, value + half, num)


@checked(values="any E")
def mean_estimate(values: Tensor, *, seed: int = 0) -> Estimate:
    """Mean of one value per episode [E], without values that are not finite.

    Returns: Estimate by `bootstrap`; all NaN with n = 0 if no episode has a value.
    """
    known = values.double().cpu()
    known = known[known.isfinite()]
    if len(known) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    sums = torch.stack([known, torch.ones_like(known)], dim=1)
    return bootstrap(sums, lambda total: total[..., 0] / total[..., 1], seed=seed)


@checked(costs="B S>=2", truths="B S")
def rank_correlation(costs: Tensor, truths: Tensor) -> Tensor:
    """Spearman's rank correlation of each row, by scipy's ranks: do they order S things alike?

    Returns: [B], from −1 to 1; NaN where a row does not vary.
    """
    from scipy.stats import rankdata

    ranks = (torch.from_numpy(rankdata(x.cpu().numpy(), axis=1)) for x in (costs, truths))
    a, b = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


@checked(successes="[0, inf)")
def proportion(successes: float, trials: int) -> Estimate:
    """Share of successes with Wilson's score interval.

    For a number of successes that is not whole, the ends are interpolated.

    Returns: Estimate; none of N starts at exactly 0, all of N ends at exactly 1.
    Raises: ValueError unless 0 ≤ successes ≤ trials and trials ≥ 1.
    Source: Wilson (1927), by scipy.
    """
    if successes > trials:
        raise ValueError(f"successes must be in 0…trials, got {successes}, {trials}")
    from scipy.stats import binomtest

    below = math.floor(successes)
    part = successes - below
    one, two = (
        binomtest(count, trials).proportion_ci(method="wilson")
        for count in (below, math.ceil(successes))
    )
    low, high = ((1 - part) * a + part * b for a, b in zip(one, two, strict=True))
    return Estimate(successes / trials, float(low), float(high), trials)


@checked()
def sign_test(differences: Sequence[float]) -> float:
    """Two-sided exact p-value of the sign test; on single successes it is McNemar's exact test.

        p = min(1, 2 P(X ≤ min(n₊, n₋))),   X ~ Binomial(n₊ + n₋, 1/2)

    Ties are left out; with ties alone p is 1.

    Raises: ValueError if a difference is NaN.
    Source: McNemar (1947); the exact form is the binomial test of Dixon & Mood (1946), by scipy.
    """
    from scipy.stats import binomtest

    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


@checked(first="N>=2", second="N")
def paired_test(first: Tensor, second: Tensor, *, seed: int = 0) -> PairedTest:
    """Is `first` [N] larger than `second` [N], episode by episode?

        t = d̄ / (s / √n),   d = first − second,   effect = d̄ / s

    Returns: PairedTest; all differences equal gives t = ±∞ (0 if they are 0).
    Raises: ValueError if shapes disagree, N < 2, or a value is not finite.
    Source: Student (1908), by scipy; d_z of Lakens, Frontiers in Psychology 4 (2013), Equation 6.
    """
    d = (first.double() - second.double()).cpu()
    if bad := int((~d.isfinite()).sum()):
        found = f"{bad} differences of {len(d)} that are not"
        raise ValueError(f"first and second must be finite, got {found}")
    t, p = 0.0, 1.0
    # Without this, differences equal up to rounding would have a meaningless variance.
    if float(d.std()) > 1e-12 * float(d.abs().max()):
        from scipy.stats import ttest_rel

        found = ttest_rel(first.double().cpu().numpy(), second.double().cpu().numpy())
        t, p = float(found.statistic), float(found.pvalue)
    elif float(d[0]) != 0:
        t, p = math.copysign(math.inf, float(d[0])), 0.0

    def effect(total: Tensor) -> Tensor:
        centre = total[..., 0] / total[..., 2]
        spread = (total[..., 1] / total[..., 2] - centre.square()).clamp_min(0)
        return centre / (spread * total[..., 2] / (total[..., 2] - 1)).sqrt()

    sums = torch.stack([d, d.square(), torch.ones_like(d)], dim=1)
    larger = proportion(int((d > 0).sum()), len(d))
    return PairedTest(mean_estimate(d, seed=seed), bootstrap(sums, effect, seed=seed), t, p, larger)
