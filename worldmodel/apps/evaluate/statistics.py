"""What counts of successes are worth: an interval for one rate, an exact test for two."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["sign_test", "wilson"]


def wilson(successes: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default.

    Source: Wilson (1927).
    """
    rate, z2 = successes / trials, z * z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def sign_test(differences: Sequence[float]) -> float:
    """Two-sided exact p-value of the sign test; on single successes it is McNemar's exact test.

        p = min(1, 2 P(X ≤ min(n₊, n₋))),   X ~ Binomial(n₊ + n₋, 1/2)

    Ties say nothing about which is better and are left out.

    Source: McNemar (1947); the exact form is the binomial test of Dixon & Mood (1946).
    """
    better = sum(d > 0 for d in differences)
    worse = sum(d < 0 for d in differences)
    n, k = better + worse, min(better, worse)
    # Whole numbers until the one division: no rounding builds up.
    tail: int = sum(math.comb(n, i) for i in range(k + 1))
    return float(min(1.0, 2 * tail / (1 << n)))
