"""GRASP: lifted steps connect the states, and the model sees states as constants."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from planners import GRASP, GradientDescent, Scored, optimize
from planners.noise import Noise, Stream

from .known import reach


def test_lifted_steps_find_actions_that_connect_the_states() -> None:
    """For s' = s + a without goal term or noise, lifted steps alone reach the goal in H steps."""
    initial, goal = torch.zeros(1, 2), torch.tensor([[3.0, -1.0]])
    method = GRASP(
        lambda s, a: s + a,
        initial,
        goal,
        num_restarts=1,
        lifted_steps=400,
        goal_weight=0.0,
        state_noise=0.0,
        action_lr=0.02,
        rule=partial(torch.optim.SGD, lr=0.0),
    )
    noise = Noise(Stream(torch.tensor([0])), 0)
    state = method.init(torch.zeros(1, 4, 2))
    zero = torch.zeros(1, 1, 4, 2)
    state = method.tell(state, Scored(zero, torch.zeros(1, 1), zero, noise))
    torch.testing.assert_close(state.actions.sum(2)[0], goal, atol=0.02, rtol=0)
    assert state.states.shape == (1, 1, 3, 2)


def test_the_model_gets_no_gradient_through_its_input_state() -> None:
    """F is differentiated with respect to actions alone: states enter it as constants."""
    seen: list[bool] = []

    def step(s: Tensor, a: Tensor) -> Tensor:
        seen.append(s.requires_grad)
        return s + a

    goal = torch.ones(1, 2)
    method = GRASP(step, torch.zeros(1, 2), goal, lifted_steps=2)
    optimize(method, lambda a: a.square().sum((-1, -2)), torch.zeros(1, 3, 2), iterations=2)
    assert seen == [False] * 4


def test_states_begin_on_the_line_to_the_goal_and_are_shaken() -> None:
    """The virtual states start evenly spaced; the noise moves them by its share of the distance."""
    goal = torch.full((1, 400), 8.0)
    method = GRASP(
        lambda s, a: s, torch.zeros(1, 400), goal, num_restarts=1, lifted_steps=1,
        goal_weight=0.0, state_lr=0.0, state_noise=0.05,
    )  # fmt: skip
    state = method.init(torch.zeros(1, 4, 1))
    assert state.states[0, 0, :, 0].tolist() == [2.0, 4.0, 6.0]
    noise = Noise(Stream(torch.tensor([0])), 0)
    zero = torch.zeros(1, 1, 4, 1)

    def bind(s: Tensor, a: Tensor) -> Tensor:
        return s + 0 * a

    shaken = replace(method, step=bind).tell(state, Scored(zero, torch.zeros(1, 1), zero, noise))
    assert (shaken.states - state.states).std().item() == pytest.approx(0.05 * 8, rel=0.1)


def test_after_the_lifted_iterations_it_is_gradient_descent() -> None:
    """With no lifted iteration GRASP is gradient descent on the rollout, bit for bit."""
    problem = reach()
    (goal,) = problem.parameters
    lifted = GRASP(lambda s, a: s + a, torch.zeros_like(goal), goal, lifted_iterations=0)
    plain = GradientDescent(num_restarts=8, init_std=0.5)
    ours = optimize(lifted, problem.cost, problem.start, iterations=6)
    assert torch.equal(
        ours.actions, optimize(plain, problem.cost, problem.start, iterations=6).actions
    )


def test_wrong_settings_are_named() -> None:
    """Shapes that disagree and values outside their range say so."""

    def step(s: Tensor, a: Tensor) -> Tensor:
        return s + a

    with pytest.raises(ValueError, match=r"goal must be a float tensor \[2, 3\]"):
        GRASP(step, torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(
        ValueError, match=r"initial must be a float tensor \[3, D\], got .* \[2, 1\]"
    ):
        GRASP(step, torch.zeros(2, 1), torch.zeros(2, 1)).init(torch.zeros(3, 4, 1))
    for name, value in (("num_restarts", 0), ("lifted_steps", 0), ("state_noise", -1.0)):
        with pytest.raises(ValueError, match=name):
            GRASP(step, torch.zeros(2, 1), torch.zeros(2, 1), **{name: value})  # type: ignore[arg-type]
