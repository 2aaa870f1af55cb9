"""Planners that follow gradients, with any optimizer of torch: plain descent, and GRASP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, floats, integer, numbers, row
from planners._common import as_std, best, unscored
from planners.contract import Scored, Std, Step
from planners.noise import Noise

__all__ = ["ADAM", "GRASP", "GradientDescent", "GradientState", "Memory", "Rule"]

#: Makes an optimizer for tensors, e.g. functools.partial(torch.optim.Adam, lr=0.1).
Rule = Callable[[list[Tensor]], torch.optim.Optimizer]
#: The default rule.
ADAM: Rule = partial(torch.optim.Adam, lr=0.1)
#: What an optimizer remembers between two steps; empty before the first.
Memory = Mapping[str, Any]


def descend(rule: Rule, x: Tensor, grad: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """One step of an optimizer from x, as a pure function."""
    leaf = x.detach().clone().requires_grad_()
    leaf.grad = grad
    optimizer = rule([leaf])
    kept = {k: value.clone() if isinstance(value, Tensor) else value for k, value in memory.items()}
    optimizer.state[leaf] = kept
    optimizer.step()
    return leaf.detach(), optimizer.state[leaf]


def apart(actions: Tensor, std: Std, noise: Noise) -> Tensor:
    """Starts [B, R, H, A]; iteration 0 moves all but the first by random numbers."""
    R, H, A = actions.shape[1:]
    if R == 1 or noise.iteration:
        return actions
    around = noise.normal((R - 1, H, A), dtype=actions.dtype)
    around = around * as_std(std, actions[:, 0], "init_std").unsqueeze(1)
    return torch.cat([actions[:, :1], actions[:, 1:] + around], 1)


class GradientState(NamedTuple):
    """R plans during descent, and the best that was scored."""

    actions: Tensor  #: [B, R, H, A], to be scored next
    memory: Memory  #: of the optimizer
    nominal: Tensor  #: [B, H, A], the best when plans that can be executed were last scored
    cost: Tensor  #: [B], its cost
    start: Tensor  #: [B, 1, H, A], where the search began
    states: Tensor | None = None  #: [B, R, H − 1, D], of `GRASP`: states on the way to the goal
    spread: float = 0.0  #: 0, it follows a path

    @classmethod
    def of(cls, plan: Tensor, copies: int) -> "GradientState":
        """R copies of a start [B, H, A]."""
        start = plan.unsqueeze(1)
        return cls(start.expand(-1, copies, -1, -1), {}, plan, unscored(plan), start)

    def after(self, scored: Scored, actions: Tensor, memory: Memory) -> "GradientState":
        """The state once plans were scored and moved to `actions`."""
        nominal, cost = best(scored.candidates, scored.costs)
        return self._replace(actions=actions, memory=memory, nominal=nominal, cost=cost)


@dataclass(frozen=True)
class GradientDescent:
    """Follow the gradient of the cost from one or several starts.

        a_r ← project(rule(a_r, ∇(cost(a_r) + trust |a_r − a_0|²)) + noise_std ε)

    Choose it where the cost is smooth and the start is near a good plan. It needs few evaluations
    but ends in the nearest minimum. Restarts, noise, or a start from CEM (see `Refine`) help
    against that. The plan is the best of the R plans scored last, so its cost is known. `trust`
    keeps plans near a start a_0 that is already good, such as the best of `Proposals`, where a
    learned cost could be exploited.

    Source: Adam, arXiv:1412.6980; its lr of 0.1 for actions of unit scale is our choice. Trust
        region: LeWAM, arXiv:2610.12818, with a weight of 0.01.
    """

    #: Without a closure. A CUDA graph needs `capturable=True`; `fused=True` depends on the batch.
    rule: Rule = ADAM
    num_restarts: int = 1  #: R; the first starts at the plan, the others around it.
    init_std: Std = 1.0  #: How far around, a number or one per action dim, in planning units.
    noise_std: float = 0.0  #: Of the noise added before each iteration but the first.
    trust: float = 0.0  #: Weight of the squared distance from the start.
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        integer("num_restarts", self.num_restarts, 1)
        row("init_std", self.init_std)
        numbers(self, noise_std="[0, inf)", trust="[0, inf)")

    def init(self, plan: Tensor, *_: object) -> GradientState:
        """R copies of the start; `ask` moves them apart. The last search is ignored."""
        return GradientState.of(plan, self.num_restarts)

    def ask(self, state: GradientState, noise: Noise) -> Tensor:
        """The R plans, with noise; they require grad."""
        actions = apart(state.actions, self.init_std, noise)
        if self.noise_std and noise.iteration:
            shake = noise.normal(tuple(actions.shape[1:]), dtype=actions.dtype)
            actions = actions + self.noise_std * shake
        return actions.detach().clone().requires_grad_()

    def tell(self, state: GradientState, scored: Scored) -> GradientState:
        """One step of the rule for each plan."""
        grads = scored.grads
        if self.trust:
            grads = grads + 2 * self.trust * (scored.candidates.detach() - state.start)
        return state.after(scored, *descend(self.rule, scored.candidates, grads, state.memory))

    def plan(self, state: GradientState) -> Tensor:
        """The best plan as scored in the last iteration."""
        return state.nominal


@dataclass(frozen=True, eq=False)
class GRASP:
    """Gradient-relaxed stochastic planner: dynamics as a soft constraint between virtual states.

        L(s, a) = Σ_h |F(s̄_h, a_h) − s_{h+1}|² + γ Σ_h |F(s̄_h, a_h) − g|²
        s_0 initial, s_H = g fixed; s̄: no gradient into the input of F; noise σ_s on s

    Each iteration takes one gradient step on the cost of the true rollout. In the first
    `lifted_iterations` iterations, `lifted_steps` steps on L follow, whose H model calls are
    independent and run as one batch. The source recommends it for long horizons, where the gradient
    of a rollout explodes or vanishes and sampling fails. It needs the dynamics, and a goal state.
    The plan is the best of the R plans scored in the last iteration. Under `MPC`:
    `controller.act(cost, method=replace(grasp, initial=state))`.

    Source: Psenka et al., arXiv:2602.00475: the loss, the stopped gradient, the noise and the
        alternation with rollout steps. Step sizes, and scaling them by the distance, are ours.
    """

    step: Step  #: F, (states [N, D], actions [N, A]) -> next states [N, D].
    initial: Tensor  #: [B, D], states now.
    goal: Tensor  #: [B, D], states to reach.
    num_restarts: int = 8  #: R; the first starts at the plan, the others around it.
    lifted_iterations: int = 10  #: Iterations with lifted steps; the rest polish on the rollout.
    lifted_steps: int = 10  #: Steps on L per iteration.
    goal_weight: float = 1.0  #: γ.
    state_noise: float = 0.05  #: σ_s, relative to the distance from initial state to goal per dim.
    action_lr: float = 0.05  #: Step size of the actions on L (Adam).
    state_lr: float = 0.05  #: Step size of the virtual states on L, relative like `state_noise`.
    rule: Rule = ADAM  #: Of torch.optim, for the step on the rollout's cost.
    init_std: Std = 0.5  #: As in `GradientDescent`.
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        calls("step", self.step, "(states [N, D], actions [N, A]) -> [N, D]")
        floats("initial", self.initial, "B D")
        floats("goal", self.goal, "B D", **dict(zip("BD", self.initial.shape, strict=True)))
        integer("num_restarts", self.num_restarts, 1)
        integer("lifted_iterations", self.lifted_iterations, 0)
        integer("lifted_steps", self.lifted_steps, 1)
        numbers(self, goal_weight="[0, inf)", state_noise="[0, inf)")
        numbers(self, action_lr="[0, inf)", state_lr="[0, inf)")
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        row("init_std", self.init_std)

    def init(self, plan: Tensor, *_: object) -> GradientState:
        """Actions at the start; states on the straight line to the goal. Nothing is kept."""
        H = plan.shape[1]
        floats("initial", self.initial, "B D", B=len(plan))
        share = torch.arange(1, H, dtype=plan.dtype, device=plan.device) / H
        way = (self.goal - self.initial).detach()
        states = self.initial.detach()[:, None] + share[:, None] * way[:, None]
        states = states.unsqueeze(1).expand(-1, self.num_restarts, -1, -1)
        return GradientState.of(plan, self.num_restarts)._replace(states=states)

    def ask(self, state: GradientState, noise: Noise) -> Tensor:
        """The R plans; they require grad."""
        return apart(state.actions, self.init_std, noise).detach().clone().requires_grad_()

    def tell(self, state: GradientState, scored: Scored) -> GradientState:
        """One step on the rollout's cost, then steps on the lifted loss."""
        actions, memory = descend(self.rule, scored.candidates, scored.grads, state.memory)
        states = state.states
        if states is not None and scored.noise.iteration < self.lifted_iterations:
            actions, states = self._lift(actions, states, scored.noise)
            # The lifted steps moved the actions, so the optimizer's memory is out of date.
            memory = {}
        return state.after(scored, actions, memory)._replace(states=states)

    def plan(self, state: GradientState) -> Tensor:
        """The best plan as scored in the last iteration."""
        return state.nominal

    def _lift(self, actions: Tensor, states: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        R, H, _ = actions.shape[1:]
        B, D = self.initial.shape
        first, goal = (
            x.detach()[:, None, None].expand(-1, R, -1, -1) for x in (self.initial, self.goal)
        )
        # Per problem, the typical change of a state's entry: states may have any unit.
        squared = (self.goal - self.initial).detach().square()
        unit = (squared.sum(-1) / D).sqrt().clamp_min(1e-6)[:, None, None, None]
        rule_a = partial(torch.optim.Adam, lr=self.action_lr)
        rule_s = partial(torch.optim.Adam, lr=self.state_lr)
        memory_a: Memory = {}
        memory_s: Memory = {}
        shake = noise.normal((self.lifted_steps, R, H - 1, D), dtype=states.dtype, lane=1)
        for k in range(self.lifted_steps):
            with torch.enable_grad():
                a, s = actions.detach().requires_grad_(), states.detach().requires_grad_()
                before = torch.cat([first, states.detach()], 2)
                after = torch.cat([s, goal], 2)
                reached = self.step(before.reshape(B * R * H, D), a.reshape(B * R * H, -1))
                reached = reached.reshape(B, R, H, D)
                loss = (reached - after).square().sum()
                loss = loss + self.goal_weight * (reached - goal).square().sum()
                grad_a, grad_s = torch.autograd.grad(loss, [a, s])
            actions, memory_a = descend(rule_a, actions, grad_a, memory_a)
            moved, memory_s = descend(rule_s, states / unit, grad_s * unit, memory_s)
            states = (moved + self.state_noise * shake[:, k]) * unit
        return actions, states
