"""MPPI averages as its formula says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planners import MPC, MPPI, Scored, optimize
from planners.noise import Noise, Stream
from planners.sampling import Gaussian

NOISE = Noise(Stream(torch.tensor([0])), 0)
CANDIDATES = torch.tensor([0.0, 1.0, 2.0, 4.0]).view(1, 4, 1, 1)
COSTS = torch.tensor([[3.0, 1.0, 2.0, torch.inf]])


def after(method: MPPI, costs: Tensor = COSTS) -> Gaussian:
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


def test_a_sample_is_drawn_with_its_weight() -> None:
    """Of 4,000 problems as many take each candidate as its weight says, a broken one never."""
    B = 4000
    noise = Noise(Stream(torch.arange(B)), 0)
    method = MPPI(4, 0.7, returns="sample")
    state = method.tell(
        method.init(torch.zeros(B, 1, 1)),
        Scored(CANDIDATES.expand(B, -1, -1, -1), COSTS.expand(B, -1), torch.empty(0), noise),
    )
    weights = torch.softmax(torch.tensor([-3.0, -1.0, -2.0]) / 0.7, 0)
    taken = torch.stack([(state.taken == a).double().mean() for a in (0.0, 1.0, 2.0, 4.0)])
    torch.testing.assert_close(taken[:3], weights.double(), atol=0.02, rtol=0)
    assert taken[3] == 0
    assert torch.equal(method.plan(state), state.taken)


def test_a_sample_in_half_precision_has_weight() -> None:
    """In bfloat16 too, where uniform numbers round to 1, one of the two best is drawn."""
    B, S = 300, 64
    candidates = torch.arange(S, dtype=torch.bfloat16).view(1, S, 1, 1).expand(B, -1, -1, -1)
    costs = torch.arange(S, dtype=torch.bfloat16).expand(B, -1)
    method = MPPI(S, 1.0, top_k=2, returns="sample")
    noise = Noise(Stream(torch.arange(B)), 0)
    start = method.init(torch.zeros(B, 1, 1, dtype=torch.bfloat16))
    state = method.tell(start, Scored(candidates, costs, torch.empty(0), noise))
    assert state.taken.dtype == torch.bfloat16
    assert state.taken.max() == 1


def test_what_is_executed_is_not_where_the_next_search_starts() -> None:
    """As in TD-MPC2: a drawn candidate is executed, the mean moves on, σ is 2 again."""
    method = MPPI(64, 2.0, 2.0, top_k=8, adapt_std=True, min_std=0.05, returns="sample")
    control = MPC(method, horizon=3, action_dim=1, iterations=6)
    control.act(lambda a: (a - 0.5).square().sum((-1, -2)))
    assert control.last is not None
    state = control.last.state
    assert not torch.equal(control.last.actions, state.mean)
    following = method.init(control.start, state, 1)
    assert torch.equal(following.mean[:, :2], state.mean[:, 1:])
    assert (following.mean[:, 2] == 0).all()
    assert (following.spread == 2).all()


def test_a_problem_without_a_finite_cost_has_no_nan() -> None:
    """Traced into a graph, where no error can be raised, the plan of a dead problem stays."""

    def cost(candidates: Tensor) -> Tensor:
        alive = torch.tensor([[1.0], [torch.nan]])
        return candidates.square().sum((-1, -2)) * alive

    def plan(start: Tensor) -> tuple[Tensor, Tensor]:
        method = MPPI(8, adapt_std=True)
        found = optimize(method, cost, start, iterations=2)
        return found.actions, found.history

    start = torch.full((2, 1, 1), 0.5)
    actions, history = torch.compile(plan, backend="eager", fullgraph=True)(start)
    assert torch.equal(actions[1], start[1])
    assert not torch.equal(actions[0], start[0])
    assert history[:, 1].isinf().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 301}, "top_k"),
        ({"min_std": 0.1}, "min_std must be 0 without adapt_std"),
        ({"decay": 1.5}, "decay must be 1 without top_k"),
        ({"min_std": -0.1}, r"min_std must be a number in \[0, inf\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match=message):
        MPPI(**settings)  # type: ignore[arg-type]
