"""GRASP: states and actions optimised together, so that no gradient crosses the whole horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, floats, integer, number, row
from planners._common import best
from planners.contract import Scored
from planners.gradient import ADAM, Memory, Rule, apart, descend
from planners.noise import Noise

__all__ = ["GRASP", "GRASPState"]


class GRASPState(NamedTuple):
    """R plans with the states they are meant to pass through, and the best that was scored."""

    actions: Tensor  # [B, R, H, A], to be scored next
    states: Tensor  # [B, R, H − 1, D], virtual states between the initial one and the goal
    memory: Memory  # of the optimizer of the rollout steps
    nominal: Tensor  # [B, H, A], the best of the last iteration
    cost: Tensor  # [B], its cost
    spread: float = 0.0  # 0, it follows a path


@dataclass(frozen=True, eq=False)
class GRASP:
    """Gradient-relaxed stochastic planner: dynamics as a soft constraint between virtual states.

        L(s, a) = Σ_h |F(s̄_h, a_h) − s_{h+1}|² + γ Σ_h |F(s̄_h, a_h) − g|²
        s_0 initial, s_H = g fixed; s̄: no gradient into the input of F; noise σ_s on s

    Each iteration takes one gradient step on the cost of the true rollout, then, in the first
    `lifted_iterations` iterations, `lifted_steps` steps on L, in which the horizon's H model calls
    are independent and run as one batch. The source recommends it for long horizons, where the
    gradient of a rollout explodes or vanishes and sampling runs out of candidates. It needs the
    dynamics, not only a cost, and a goal in the space of their states. The plan is the best of
    the R plans as scored in the last iteration. Under `MPC` give each step its own:
    `controller.act(cost, method=replace(grasp, initial=state))`.

    Args:
        step: F, (states [N, D], actions [N, A]) -> next states [N, D].
        initial: [B, D], states now.
        goal: [B, D], states to reach.
        num_restarts: R; the first starts at the plan, the others around it.
        lifted_iterations: iterations with lifted steps; the rest polish on the rollout alone.
        lifted_steps: steps on L per iteration.
        goal_weight: γ.
        state_noise: σ_s, relative to the distance from initial state to goal per dim.
        action_lr: step size of the actions on L (Adam).
        state_lr: step size of the virtual states on L (Adam), relative like `state_noise`.
        rule: of torch.optim, for the step on the rollout's cost.
        init_std: how far around the plan other starts are, a number or one per action dim.
    Raises: ValueError on a value outside its range, or disagreeing shapes of initial and goal;
        TypeError on one of another kind.
    Source: Psenka et al., arXiv:2602.00475: the loss, the stopped gradient, the noise and the
        alternation with rollout steps. Step sizes, and scaling them by the distance, are ours.
    """

    step: Callable[[Tensor, Tensor], Tensor]
    initial: Tensor
    goal: Tensor
    num_restarts: int = 8
    lifted_iterations: int = 10
    lifted_steps: int = 10
    goal_weight: float = 1.0
    state_noise: float = 0.05
    action_lr: float = 0.05
    state_lr: float = 0.05
    rule: Rule = ADAM
    init_std: float | tuple[float, ...] = 0.5

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        calls("step", self.step, "(states [N, D], actions [N, A]) -> [N, D]")
        floats("initial", self.initial, "B D")
        floats("goal", self.goal, "B D", B=self.initial.shape[0], D=self.initial.shape[1])
        integer("num_restarts", self.num_restarts, 1)
        integer("lifted_iterations", self.lifted_iterations, 0)
        integer("lifted_steps", self.lifted_steps, 1)
        for name in ("goal_weight", "state_noise", "action_lr", "state_lr"):
            number(name, getattr(self, name), "[0, inf)")
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        row("init_std", self.init_std)

    def init(self, plan: Tensor, *_: object) -> GRASPState:
        """Actions at the start; states on the straight line to the goal. Nothing is kept."""
        B, H = plan.shape[:2]
        floats("initial", self.initial, "B D", B=B)
        share = torch.arange(1, H, dtype=plan.dtype, device=plan.device) / H
        way = (self.goal - self.initial).detach()
        states = self.initial.detach()[:, None] + share[:, None] * way[:, None]
        R = self.num_restarts
        return GRASPState(
            plan.unsqueeze(1).expand(-1, R, -1, -1),
            states.unsqueeze(1).expand(-1, R, -1, -1),
            (),
            plan,
            plan.new_full((B,), torch.inf),
        )

    def ask(self, state: GRASPState, noise: Noise) -> Tensor:
        """The R plans; they require grad."""
        actions = state.actions
        if noise.iteration == 0:
            actions = apart(actions, self.init_std, noise)
        return actions.detach().clone().requires_grad_()

    def tell(self, state: GRASPState, scored: Scored) -> GRASPState:
        """One step on the rollout's cost, then steps on the lifted loss."""
        nominal, cost = best(scored.candidates, scored.costs)
        (actions,), memory = descend(self.rule, [scored.candidates], [scored.grads], state.memory)
        states = state.states
        if scored.noise.iteration < self.lifted_iterations:
            actions, states = self._lift(actions, states, scored.noise)
            # The lifted steps moved the actions: what was remembered of the slope is stale.
            memory = ()
        return GRASPState(actions, states, memory, nominal, cost)

    def plan(self, state: GRASPState) -> Tensor:
        """The best plan as scored in the last iteration."""
        return state.nominal

    def _lift(self, actions: Tensor, states: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        R, H, _ = actions.shape[1:]
        B, D = self.initial.shape
        first = self.initial.detach()[:, None, None].expand(-1, R, -1, -1)
        goal = self.goal.detach()[:, None, None].expand(-1, R, -1, -1)
        # Per problem, the typical size of a state's entry on the way: states have no unit of ours.
        squared = (self.goal - self.initial).detach().square()
        unit = (squared.sum(-1) / D).sqrt().clamp_min(1e-6)[:, None, None, None]
        rule_a = partial(torch.optim.Adam, lr=self.action_lr)
        rule_s = partial(torch.optim.Adam, lr=self.state_lr)
        memory_a: Memory = ()
        memory_s: Memory = ()
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
            (actions,), memory_a = descend(rule_a, [actions], [grad_a], memory_a)
            (moved,), memory_s = descend(rule_s, [states / unit], [grad_s * unit], memory_s)
            states = (moved + self.state_noise * shake[:, k]) * unit
        return actions, states
