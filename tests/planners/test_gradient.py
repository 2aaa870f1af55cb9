"""Gradient descent: any rule of torch.optim, as a pure function."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from planners import Bounds, GradientDescent, Proposals, Scored, optimize
from planners.gradient import Memory, descend
from planners.noise import Noise, Stream

from .known import active_bounds, quadratic

RULES = [
    partial(torch.optim.SGD, lr=0.05),
    partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
    partial(torch.optim.Adam, lr=0.1),
    partial(torch.optim.AdamW, lr=0.1, weight_decay=0.0),
    partial(torch.optim.RMSprop, lr=0.05),
    partial(torch.optim.Adagrad, lr=0.5),
    partial(torch.optim.Rprop, lr=0.05),
]
IDS = ["SGD", "momentum", "Adam", "AdamW", "RMSprop", "Adagrad", "Rprop"]


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_a_step_is_the_optimizers_own(rule: partial[torch.optim.Optimizer]) -> None:
    """Five pure steps equal five steps of the optimizer kept alive, bit for bit."""
    start = torch.linspace(-1, 1, 12).view(1, 2, 3, 2)
    kept = start.clone().requires_grad_()
    optimizer = rule([kept])
    moved: Tensor = start
    memory: Memory = {}
    for k in range(5):
        grad = (moved - 0.3) * (k + 1)
        before = moved.clone()
        new, new_memory = descend(rule, moved, grad, memory)
        again, _ = descend(rule, moved, grad, memory)
        assert torch.equal(new, again)
        assert torch.equal(moved, before)
        kept.grad = grad.clone()
        optimizer.step()
        moved, memory = new, new_memory
        assert torch.equal(moved, kept.detach())


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_every_rule_descends(rule: partial[torch.optim.Optimizer]) -> None:
    """On a bowl each rule removes all but a hundredth of the cost."""
    problem = quadratic()
    plan = optimize(GradientDescent(rule), problem.cost, problem.start, iterations=150)
    assert (plan.cost / problem.regret(problem.start)).max() < 0.01


@pytest.mark.filterwarnings("ignore:most candidates")
def test_projected_steps_find_the_corner() -> None:
    """With plain gradient steps and projection the clamped target is reached exactly."""
    problem = active_bounds()
    plan = optimize(
        GradientDescent(partial(torch.optim.SGD, lr=0.25)),
        problem.cost,
        problem.start,
        iterations=30,
        bounds=Bounds(-1.0, 1.0),
    )
    torch.testing.assert_close(plan.actions, problem.minimiser, atol=1e-6, rtol=0)


def test_trust_holds_plans_near_their_start() -> None:
    """On |a − c|² with trust w from 0, descent ends at c / (1 + w), restarts too."""
    target = torch.tensor([[2.0, -1.0], [0.5, 3.0]])

    def cost(actions: Tensor) -> Tensor:
        return (actions - target).square().sum((-1, -2))

    for trust, restarts in ((0.0, 1), (0.25, 1), (3.0, 4)):
        rule = partial(torch.optim.SGD, lr=0.1)
        method = GradientDescent(rule, num_restarts=restarts, trust=trust)
        plan = optimize(method, cost, torch.zeros(1, 2, 2), iterations=200)
        torch.testing.assert_close(plan.actions, target[None] / (1 + trust), atol=1e-5, rtol=0)


def test_trust_keeps_a_proposal_that_a_wrong_cost_would_ruin() -> None:
    """A cost that falls forever drags a right proposal away; with trust w it moves by 1 / 2w."""
    right = torch.full((1, 1, 3, 2), 0.5)
    rule = partial(torch.optim.SGD, lr=0.05)

    def moved(trust: float) -> float:
        method = Proposals(GradientDescent(rule, trust=trust), right)
        plan = optimize(method, lambda a: -a.sum((-1, -2)), torch.zeros(1, 3, 2), iterations=200)
        return float((plan.actions - right[:, 0]).abs().max())

    assert moved(0.0) > 9
    assert moved(5.0) == pytest.approx(0.1, abs=1e-3)


def test_its_plan_was_scored() -> None:
    """The cost of the plan is the cost of its actions."""
    problem = quadratic()
    plan = optimize(GradientDescent(num_restarts=4), problem.cost, problem.start, iterations=7)
    torch.testing.assert_close(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


def test_the_first_start_is_the_plan_and_the_others_lie_around_it() -> None:
    """Restart 0 is the start itself; the rest have the given spread, and need gradients."""
    method = GradientDescent(num_restarts=2001, init_std=0.5)
    plan = torch.full((1, 2, 2), 3.0)
    asked = method.ask(method.init(plan), Noise(Stream(torch.tensor([0])), 0))
    assert asked.requires_grad
    assert torch.equal(asked[:, 0], plan)
    assert asked[:, 1:].std().item() == pytest.approx(0.5, rel=0.05)


def test_noise_comes_with_every_later_iteration() -> None:
    """noise_std moves the plans before each iteration but the first."""
    method = GradientDescent(noise_std=0.1)
    state = method.init(torch.zeros(1, 50, 50))
    stream = Stream(torch.tensor([0]))
    assert method.ask(state, Noise(stream, 0)).abs().max() == 0
    assert method.ask(state, Noise(stream, 1)).std().item() == pytest.approx(0.1, rel=0.1)


def test_a_rule_that_needs_a_closure_is_refused() -> None:
    """LBFGS, which couples all coordinates, fails loudly."""
    tensor = torch.zeros(1)
    with pytest.raises(TypeError, match="closure"):
        descend(torch.optim.LBFGS, tensor, tensor, {})


def test_settings_out_of_range_are_refused() -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match="num_restarts"):
        GradientDescent(num_restarts=0)
    with pytest.raises(ValueError, match="noise_std"):
        GradientDescent(noise_std=-1.0)


def test_tell_leaves_the_state_as_it_was() -> None:
    """Telling twice from one state gives the same next state."""
    method = GradientDescent()
    noise = Noise(Stream(torch.tensor([0])), 0)
    state = method.init(torch.ones(1, 2, 2))

    def scored(at: Tensor) -> Scored:
        return Scored(at, at.square().sum((-1, -2)), 2 * at, noise)

    state = method.tell(state, scored(state.actions))
    first = method.tell(state, scored(state.actions))
    second = method.tell(state, scored(state.actions))
    assert torch.equal(first.actions, second.actions)
