"""CEM follows the published rule iteration by iteration; its options do what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planners import CEM, Progress, Scored, optimize
from planners.noise import Noise, Stream, problem_seeds
from planners.sampling import Gaussian

from .known import Problem, quadratic, valley


def published_rule(
    z: Tensor, cost: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, topk: int = 30
) -> tuple[Tensor, Tensor, Tensor]:
    """One iteration of the solver in LeWM's release, for one problem, fed its noise [S, H, A].

    The first candidate is the mean; then mean and unbiased std of the `topk` cheapest.
    """
    candidates = z * std + mean
    candidates[0] = mean
    costs = cost(candidates[None])[0]
    elites = candidates[torch.topk(costs, topk, largest=False).indices]
    return elites.mean(0), torch.std(elites, 0), costs.min()


@pytest.mark.parametrize("problem", [quadratic(4, 5, 10), valley(4, 5, 2)], ids=["bowl", "valley"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_published_rule_in_every_iteration(problem: Problem, dtype: torch.dtype) -> None:
    """Fed the same noise, mean, std and least cost agree with the released solver's 30 times."""
    B, H, A = problem.start.shape
    seed = problem_seeds(9, B, torch.device("cpu"))
    noise = [Noise(Stream(seed), i).normal((300, H, A), dtype=dtype) for i in range(30)]
    states: list[Gaussian] = []

    def watch(progress: Progress) -> None:
        assert isinstance(progress.state, Gaussian)
        states.append(progress.state)

    start = problem.start.to(dtype)
    optimize(CEM(), problem.cost, start, iterations=30, seed=9, callback=watch)
    # In float64 the 30 iterations are chained. In float32 each starts from ours: two costs that
    # are equal but for rounding may change places, and the search would carry that along.
    tolerance, rounding = {torch.float32: (1e-4, 1e-6), torch.float64: (1e-8, 1e-14)}[dtype]
    for b in range(B):
        alone = problem.take(torch.tensor([b]))
        mean, std = start[b], torch.ones_like(start[b])
        for z, state in zip(noise, states, strict=True):
            mean, std, least = published_rule(z[b], alone.cost, mean, std)
            for ours, theirs in ((state.mean[b], mean), (state.spread[b], std)):
                assert (ours - theirs).abs().max() <= tolerance * std.max() + rounding
            torch.testing.assert_close(state.cost[b], least, rtol=tolerance, atol=tolerance)
            if dtype == torch.float32:
                mean, std = state.mean[b], state.spread[b]


def test_defaults_are_the_published_ones() -> None:
    """300 candidates, 30 elites, unit std, the mean as first candidate and as result."""
    method = CEM()
    assert (method.num_samples, method.num_elites, method.init_std) == (300, 30, 1.0)
    assert (method.keep_mean, method.returns, method.momentum) == (True, "mean", 0.0)


def state_of(method: CEM, costs: Tensor, candidates: Tensor) -> Gaussian:
    """The state after one iteration with the given candidates and costs."""
    start = method.init(torch.zeros_like(candidates[:, 0]))
    noise = Noise(Stream(torch.zeros(1, dtype=torch.long)), 0)
    return method.tell(start, Scored(candidates, costs, candidates.new_empty(0), noise))


def test_elites_are_the_cheapest_and_their_spread_is_unbiased() -> None:
    """Of 1, 2, 3, 10 with costs 1, 0, 2, 9 and three elites: mean 2, std 1, best 2."""
    candidates = torch.tensor([1.0, 2.0, 3.0, 10.0]).view(1, 4, 1, 1)
    state = state_of(CEM(4, 3), torch.tensor([[1.0, 0.0, 2.0, 9.0]]), candidates)
    assert [x.item() for x in state] == [2.0, 1.0, 2.0, 0.0]


def test_an_infinite_cost_is_never_an_elite() -> None:
    """With one finite candidate of four, it alone makes the Gaussian."""
    candidates = torch.tensor([1.0, 2.0, 3.0, 10.0]).view(1, 4, 1, 1)
    costs = torch.tensor([[torch.inf, torch.inf, 2.0, torch.inf]])
    state = state_of(CEM(4, 3), costs, candidates)
    assert [x.item() for x in state] == [3.0, 0.0, 3.0, 2.0]


def test_momentum_and_least_std() -> None:
    """Momentum mixes old and new Gaussian; the std never falls below its floor."""
    candidates = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1)
    state = state_of(CEM(2, 2, momentum=0.25, min_std=0.5), torch.zeros(1, 2), candidates)
    assert state.mean.item() == 0.75
    assert state.spread.item() == 0.5
    assert state_of(CEM(2, 2, momentum=0.75), torch.zeros(1, 2), candidates).spread.item() == 0.75


def test_a_population_can_shrink() -> None:
    """Iteration i scores max(S γ^−i, 2K) candidates, never more than S."""
    sizes: list[int] = []

    def cost(candidates: Tensor) -> Tensor:
        sizes.append(candidates.shape[1])
        return candidates.square().sum((-1, -2))

    optimize(CEM(100, 10, decay=2.0), cost, torch.zeros(1, 3, 1), iterations=5)
    optimize(CEM(15, 10, decay=2.0), cost, torch.zeros(1, 3, 1), iterations=2)
    assert sizes == [100, 50, 25, 20, 20, 15, 15]


def test_one_spread_per_action_dim() -> None:
    """A tuple gives each action dim its own initial std."""
    plan = torch.zeros(1, 3, 2)
    z = CEM(2000, 2, init_std=(0.1, 2.0)).ask(
        CEM(2000, 2, init_std=(0.1, 2.0)).init(plan), Noise(Stream(torch.tensor([0])), 0)
    )
    torch.testing.assert_close(z.std((0, 1, 2)), torch.tensor([0.1, 2.0]), rtol=0.05, atol=0)
    with pytest.raises(ValueError, match="one entry per action dim, 2, got 3"):
        CEM(init_std=(1.0, 1.0, 1.0)).init(plan)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_elites": 1}, "num_elites must be an integer in"),
        ({"num_elites": 301}, "num_elites must be an integer in"),
        ({"min_std": -1.0}, "min_std"),
        ({"momentum": 1.0}, "momentum"),
        ({"returns": "median"}, "returns"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match=message):
        CEM(**settings)  # type: ignore[arg-type]


def test_a_spread_that_is_not_positive_is_refused() -> None:
    """A search with no spread could not move."""
    with pytest.raises(ValueError, match=r"init_std must be a number in \(0, inf\), got 0.0"):
        CEM(init_std=0.0)
