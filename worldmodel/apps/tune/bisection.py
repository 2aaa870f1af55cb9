"""Where a function of a positive number changes sign: bisection on its logarithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Bracket", "bisect_log"]


class Bracket(NamedTuple):
    """Two points between which the sign changes, and everything that was evaluated on the way.

    Attributes:
        low: the function is negative here.
        high: here it is not.
        evaluated: argument -> value, in the order of evaluation.
    """

    low: float
    high: float
    evaluated: dict[float, float]

    @property
    def middle(self) -> float:
        """The geometric middle: off by at most a factor of √(high / low)."""
        return math.sqrt(self.low * self.high)

    @property
    def monotone(self) -> bool:
        """Whether the evaluated signs change once, from negative to not, as they should."""
        signs = [self.evaluated[x] < 0 for x in sorted(self.evaluated)]
        return signs == sorted(signs, reverse=True)


def bisect_log(
    function: Callable[[float], float], low: float, high: float, evaluations: int
) -> Bracket:
    """Halve [low, high] on a logarithmic scale around a change from negative to positive.

        evaluations = 2 + n   leave   high / low = (high₀ / low₀)^(1 / 2ⁿ)

    Args:
        function: negative at `low`, positive or 0 at `high`.
        low: positive.
        high: larger than `low`.
        evaluations: of the function, both ends included; at least 3.
    Returns: Bracket.
    Raises: ValueError if the range is none, fewer than 3 evaluations are given, or the sign is the
        same at both ends.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"low and high must be finite with 0 < low < high, got {low} and {high}")
    if evaluations < 3:
        raise ValueError(f"evaluations must be at least 3, two ends and one, got {evaluations}")
    found: dict[float, float] = {}
    for end in (low, high):
        found[end] = function(end)
    if not found[low] < 0 <= found[high]:
        side = "below low" if found[low] >= 0 else "above high"
        raise ValueError(
            f"the sign must change from negative to positive between low and high, got "
            f"{found[low]:.3g} at {low:g} and {found[high]:.3g} at {high:g}: "
            f"what is sought lies {side}"
        )
    for _ in range(evaluations - 2):
        middle = math.sqrt(low * high)
        found[middle] = function(middle)
        low, high = (middle, high) if found[middle] < 0 else (low, middle)
    return Bracket(low, high, found)
