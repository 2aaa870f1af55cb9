"""ICEM: the population shrinks, elites are kept, momentum and divisor are the source's."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from planners import ICEM, Colored, Scored, optimize
from planners.noise import Noise, Stream


def bowl(candidates: Tensor) -> Tensor:
    """|a − 1/2|²."""
    return (candidates - 0.5).square().sum((-1, -2))


def test_the_population_shrinks_to_twice_the_elites() -> None:
    """Iteration i scores max(S γ^−i, 2K) candidates."""
    sizes: list[int] = []

    def cost(candidates: Tensor) -> Tensor:
        sizes.append(candidates.shape[1])
        return bowl(candidates)

    optimize(ICEM(100, 10, decay=2.0), cost, torch.zeros(1, 3, 1), iterations=5)
    assert sizes == [100, 50, 25, 20, 20]


def test_the_best_elites_are_scored_again() -> None:
    """From the second iteration on the kept share of the last elites is among the candidates."""
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return bowl(candidates)

    plan = optimize(ICEM(40, 10, keep=0.5), cost, torch.zeros(1, 3, 1), iterations=3)
    for before, now in itertools.pairwise(seen):
        elites = before[0][bowl(before)[0].argsort()[:5]]
        torch.testing.assert_close(now[0, -5:], elites)
    assert (plan.history.diff(dim=0) <= 0).all()


def test_nothing_is_kept_before_something_was_scored() -> None:
    """In the first iteration all candidates but the mean are drawn."""
    method = ICEM(40, 10, keep=1.0)
    plan = torch.zeros(1, 3, 1)
    candidates = method.ask(method.init(plan), Noise(Stream(torch.tensor([0])), 0))
    assert (candidates[0].flatten(1).abs().amax(1) == 0).sum() == 1


def test_keeping_nothing_is_allowed() -> None:
    """ξ = 0 draws every candidate anew, and the plan is the best of the last iteration."""
    plan = optimize(ICEM(40, 10, keep=0.0), bowl, torch.zeros(2, 3, 1), iterations=5)
    torch.testing.assert_close(bowl(plan.actions[:, None])[:, 0], plan.cost)


def test_momentum_keeps_a_share_of_the_old_gaussian() -> None:
    """Elites 1 and 3 with α = 0.1: mean 1.8, std 0.1 · 0.5 + 0.9 · 1 (divisor K)."""
    method = ICEM(4, 2)
    candidates = torch.tensor([1.0, 3.0, 9.0, 9.0]).view(1, 4, 1, 1)
    costs = torch.tensor([[0.0, 1.0, 5.0, 6.0]])
    noise = Noise(Stream(torch.tensor([0])), 0)
    state = method.tell(
        method.init(torch.zeros(1, 1, 1)), Scored(candidates, costs, torch.empty(0), noise)
    )
    assert state.mean.item() == pytest.approx(1.8)
    assert state.spread.item() == pytest.approx(0.95)
    assert method.plan(state).item() == 1.0


def test_the_next_search_starts_around_the_shifted_mean() -> None:
    """As in the source: the mean and not the best elite moves on, its last action again, σ anew."""
    method, plan = ICEM(40, 4), torch.zeros(1, 3, 1)
    told = optimize(method, bowl, plan, iterations=2)
    shifted = method.init(told.actions, told.state, 1)
    mean = told.state.mean[:, [1, 2, 2]]
    assert torch.equal(shifted.mean, mean)
    assert not torch.equal(shifted.mean, told.actions[:, [1, 2, 2]])
    assert torch.equal(shifted.elites, told.state.elites[:, :, [1, 2, 2]])
    assert (shifted.spread == 0.5).all()
    # At the same moment the plan that is given leads, and the elites stay.
    here = method.init(plan, told.state)
    assert torch.equal(here.mean, plan)
    assert torch.equal(here.elites, told.state.elites)


@pytest.mark.parametrize(("horizon", "beta"), [(5, 2.0), (12, 0.25), (30, 4.0), (1, 2.0), (6, 0.0)])
def test_the_noise_has_the_sources_variance(horizon: int, beta: float) -> None:
    """The colorednoise package scales by 2 √(Σ w²) / H, w without the constant and half at 1/2."""
    f = torch.fft.rfftfreq(horizon, dtype=torch.float64).clamp_min(1 / horizon) ** (-beta / 2)
    w = f[1:].clone()
    if horizon % 2 == 0:
        w[-1] /= 2
    scale = 2 * w.square().sum().sqrt() / horizon
    # A real series: the constant and 1/2 are lone and doubled, each pair counts twice.
    power = torch.full_like(f, 4.0)
    power[0] = 2
    if horizon % 2 == 0:
        power[-1] = 2
    variance = (power * f.square()).sum() / horizon**2 / scale**2
    expected = 1.0 if horizon == 1 or beta == 0 else variance.sqrt().item()
    L = Colored(beta, unit=False).matrix(horizon)
    std = (L @ L.T).diagonal().sqrt()
    torch.testing.assert_close(std, torch.full_like(std, expected))
    method, plan = ICEM(4000, 4, beta=beta, init_std=1.0), torch.zeros(1, horizon, 1)
    drawn = method.ask(method.init(plan), Noise(Stream(torch.tensor([0])), 0))
    assert drawn.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_elites": 1},
        {"num_samples": 19},
        {"momentum": 1.0},
        {"keep": 1.1},
        {"decay": 0.9},
        {"beta": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        ICEM(**settings)  # type: ignore[arg-type]
