"""Categorical CEM: exact sampling, counting, groups of choices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planners import CategoricalCEM, Scored, optimize
from planners.choices import distributions, round_to_choices
from planners.noise import Noise, Stream

from .known import chain

NOISE = Noise(Stream(torch.tensor([0])), 0)


def test_choices_are_drawn_with_their_probability() -> None:
    """Frequencies over 20,000 draws are p, and an option of probability 0 is never drawn."""
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    method = CategoricalCEM(20_000, 10, restart=0.0)
    drawn = method.ask(method.init(p.view(1, 1, 4)), NOISE)
    torch.testing.assert_close(drawn.mean((0, 1, 2)), p, atol=0.015, rtol=0)
    assert drawn[..., 1].sum() == 0
    assert torch.equal(drawn.sum(-1), torch.ones(1, 20_000, 1))


def test_p_becomes_the_elites_frequencies() -> None:
    """Two elites of three choosing option 2: p = α/3 + (1 − α) (1/3, 2/3, 0), then the floor."""
    method = CategoricalCEM(4, 3, momentum=0.2, floor=0.1)
    candidates = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2]), 3).float().view(1, 4, 1, 3)
    costs = torch.tensor([[2.0, 1.0, 3.0, 9.0]])
    state = method.tell(
        method.init(torch.zeros(1, 1, 3)), Scored(candidates, costs, torch.empty(0), NOISE)
    )
    p = 0.2 / 3 + 0.8 * torch.tensor([1 / 3, 2 / 3, 0])
    torch.testing.assert_close(state.probability.flatten(), 0.9 * p + 0.1 / 3)
    assert torch.equal(method.plan(state).flatten(), torch.tensor([0.0, 1.0, 0.0]))
    assert state.cost.item() == 1.0


def test_several_choices_share_an_action() -> None:
    """With C = 3 and A = 6 an action holds two choices, each optimised as if alone."""
    target = torch.tensor([[0, 2], [1, 1], [2, 0]])
    wanted = torch.nn.functional.one_hot(target, 3).float().flatten(1)

    def cost(candidates: Tensor) -> Tensor:
        return -(candidates * wanted).sum((-1, -2))

    plan = optimize(CategoricalCEM(choices=3), cost, torch.zeros(1, 3, 6), iterations=10)
    assert torch.equal(plan.actions[0], wanted)


def test_a_shifted_plan_is_a_start() -> None:
    """One-hot rows lead the search, rows of zeros (the tail after a shift) begin uniform."""
    start = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    state = CategoricalCEM(restart=0.5).init(start)
    expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    torch.testing.assert_close(state.probability[0, :, 0], expected)


def test_rounding_keeps_the_likeliest() -> None:
    """Rounding is argmax per group; of equals the first."""
    row = torch.tensor([0.1, 0.9, 0.5, 0.5])
    assert round_to_choices(row, 2).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert round_to_choices(row, 4).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_it_finds_the_optimum_of_every_enumerable_chain() -> None:
    """On 64 chains of 256 sequences each, the plan is the best sequence in all but a few."""
    problem = chain(64)
    plan = optimize(CategoricalCEM(), problem.cost, problem.start, iterations=10)
    assert (problem.regret(plan.actions) < 1e-5).float().mean() > 0.9


def test_settings_out_of_range_are_refused() -> None:
    """A setting outside its range names itself."""
    for name, value in (("num_elites", 0), ("momentum", 1.0), ("floor", 1.5), ("restart", -0.1)):
        with pytest.raises(ValueError, match=name):
            CategoricalCEM(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choices must be at least 2 and divide A = 4, got 3"):
        distributions(torch.zeros(1, 1, 4), 3)
