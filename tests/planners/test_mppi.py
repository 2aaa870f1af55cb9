"""MPPI averages as its formula says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planners import MPPI, Scored
from planners.mppi import MPPIState
from planners.noise import Noise, Stream

NOISE = Noise(Stream(torch.tensor([0])), 0)
CANDIDATES = torch.tensor([0.0, 1.0, 2.0, 4.0]).view(1, 4, 1, 1)
COSTS = torch.tensor([[3.0, 1.0, 2.0, torch.inf]])


def after(method: MPPI, costs: Tensor = COSTS) -> MPPIState:
    """The state after one iteration."""
    start = method.init(torch.zeros(1, 1, 1))
    return method.tell(start, Scored(CANDIDATES, costs, torch.empty(0), NOISE))


def test_the_weights_are_a_softmax_of_the_costs() -> None:
    """μ = Σ softmax(−cost / λ) a, and an infinite cost has no weight."""
    weights = torch.softmax(torch.tensor([-3.0, -1.0, -2.0]) / 0.7, 0)
    expected = weights @ torch.tensor([0.0, 1.0, 2.0])
    state = after(MPPI(4, 0.7))
    torch.testing.assert_close(state.mean.flatten(), expected.view(1))
    assert state.cost.item() == 1.0


def test_temperature_goes_from_the_mean_to_the_best() -> None:
    """λ → ∞ averages all finite candidates, λ → 0 takes the cheapest."""
    assert after(MPPI(4, 1e6)).mean.item() == pytest.approx(1.0, abs=1e-5)
    assert after(MPPI(4, 1e-6)).mean.item() == 1.0
    costs = torch.tensor([[3.0, 1.0, 0.5, 9.0]])
    assert after(MPPI(4, 1e-6), costs).mean.item() == 2.0


def test_top_k_leaves_the_others_out() -> None:
    """With k = 2 only the candidates 1 and 2 count."""
    weights = torch.softmax(torch.tensor([-1.0, -2.0]), 0)
    expected = weights @ torch.tensor([1.0, 2.0])
    torch.testing.assert_close(after(MPPI(4, 1.0, top_k=2)).mean.flatten(), expected.view(1))


def test_an_adapted_spread_is_the_weighted_one() -> None:
    """σ² = Σ w (a − μ)², but never below its floor; without adaptation σ stays."""
    state = after(MPPI(4, 1e6, adapt_std=True))
    assert state.spread.item() == pytest.approx((2 / 3) ** 0.5, abs=1e-4)
    assert after(MPPI(4, 1e-6, adapt_std=True, min_std=0.05)).spread.item() == pytest.approx(0.05)
    assert after(MPPI(4, 1e-6, 0.3)).spread.item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 301}, "top_k"),
        ({"min_std": 0.1}, "min_std must be 0 without adapt_std"),
        ({"min_std": -0.1}, r"min_std must be a number in \[0, inf\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match=message):
        MPPI(**settings)  # type: ignore[arg-type]
