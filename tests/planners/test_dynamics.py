"""from_dynamics sums what it is given along the rollout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planners import from_dynamics


def step(s: Tensor, a: Tensor) -> Tensor:
    """[N, D], [N, A] -> [N, D]."""
    return 2 * s + a


def test_the_cost_is_the_sum_along_the_rollout() -> None:
    """Against three steps written out for one candidate of one problem."""
    candidates = torch.arange(24.0).view(2, 2, 3, 2) / 10
    state = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    cost = from_dynamics(
        step, lambda s, a: s.sum(1) + 3 * a.square().sum(1), lambda s: 100 * s[:, 0]
    )(state)
    total, s = torch.tensor(0.0), state[1]
    for a in candidates[1, 0]:
        s = 2 * s + a
        total = total + s.sum() + 3 * a.square().sum()
    torch.testing.assert_close(cost(candidates)[1, 0], total + 100 * s[0])


def test_functions_see_flat_rows() -> None:
    """As in pytorch_mppi, states are [N, D] and actions [N, A] with all candidates in N."""
    shapes: set[tuple[int, ...]] = set()

    def running(s: Tensor, a: Tensor) -> Tensor:
        shapes.add(tuple(s.shape))
        shapes.add(tuple(a.shape))
        return s[:, 0]

    from_dynamics(step, running)(torch.zeros(2, 2))(torch.zeros(2, 5, 3, 2))
    assert shapes == {(10, 2)}


def test_the_gradient_reaches_the_actions() -> None:
    """The cost is differentiable where the functions are: d/da₀ of s₂ = 4 s + 2 a₀ + a₁ is 2."""
    cost = from_dynamics(step, lambda s, a: 0 * s[:, 0], lambda s: s[:, 0])(torch.ones(1, 1))
    a = torch.zeros(1, 1, 2, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(cost(a).sum(), a)
    assert slope.flatten().tolist() == [2.0, 1.0]


def test_states_are_taken_as_environments_give_them() -> None:
    """A float64 array is a state like a float32 tensor."""
    np = pytest.importorskip("numpy")
    cost_from = from_dynamics(step, lambda s, a: s[:, 0])
    candidates = torch.rand(2, 5, 3, 2)
    given = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(cost_from(given)(candidates), cost_from(torch.tensor(given))(candidates))
    with pytest.raises(TypeError, match="running_cost must be callable"):
        from_dynamics(step, 3.0)  # type: ignore[arg-type]


def test_a_state_of_another_batch_is_refused() -> None:
    """The state's problems must be the candidates'."""
    cost = from_dynamics(step, lambda s, a: s[:, 0])(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"state must be a float tensor \[2, D\]"):
        cost(torch.zeros(2, 5, 3, 2))
