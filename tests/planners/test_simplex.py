"""Projected gradient on the simplex."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planners import SimplexGradient, optimize
from planners.choices import project_to_simplex

from .known import chain

ROWS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12)


@given(ROWS)
def test_the_projection_is_the_nearest_probability_vector(row: list[float]) -> None:
    """p is on the simplex, and ⟨x − p, q − p⟩ ≤ 0 for every corner q (so for all q)."""
    x = torch.tensor(row, dtype=torch.float64)
    p = project_to_simplex(x)
    assert p.min() >= 0
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    gap = (torch.eye(len(row), dtype=x.dtype) - p) @ (x - p)
    assert gap.max() <= 1e-9


@given(ROWS)
def test_a_probability_vector_stays(row: list[float]) -> None:
    """Projecting twice is projecting once."""
    p = project_to_simplex(torch.tensor(row, dtype=torch.float64))
    torch.testing.assert_close(project_to_simplex(p), p)


def test_the_plan_is_a_real_one_with_its_real_cost() -> None:
    """The plan is one-hot and its cost is the cost of exactly these choices."""
    problem = chain()
    plan = optimize(SimplexGradient(), problem.cost, problem.start, iterations=10)
    assert set(plan.actions.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


def test_roundings_are_scored_without_a_gradient() -> None:
    """Real choices in even iterations, relaxed ones that require grad in odd ones."""
    problem = chain()
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return problem.cost(candidates)

    optimize(SimplexGradient(num_restarts=6), cost, problem.start, iterations=6)
    assert [candidates.requires_grad for candidates in seen] == [False, True] * 3
    for real, relaxed in zip(seen[::2], seen[1::2], strict=True):
        assert real.shape == relaxed.shape
        assert torch.equal(real.argmax(-1), relaxed.argmax(-1))
        assert set(real.unique().tolist()) == {0.0, 1.0}


def test_several_choices_share_an_action() -> None:
    """With C = 3 and A = 6 both groups of three stay on their own simplex and are solved."""
    wanted = torch.tensor([[1.0, 0, 0, 0, 0, 1.0]])
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return -(candidates * wanted).sum((-1, -2))

    method = SimplexGradient(num_restarts=4, choices=3)
    plan = optimize(method, cost, torch.zeros(1, 1, 6), iterations=10)
    assert torch.equal(plan.actions[0], wanted)
    groups = torch.stack(seen).unflatten(-1, (2, 3)).sum(-1)
    torch.testing.assert_close(groups, torch.ones_like(groups))


def test_settings_out_of_range_are_refused() -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match="num_restarts"):
        SimplexGradient(num_restarts=0)
    with pytest.raises(ValueError, match="init_std"):
        SimplexGradient(init_std=-1.0)
