"""Planning with dynamics that are known, or learned by others: a cost from them, and GRASP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from planners._arguments import calls, floats, integer, numbers, row
from planners._common import best
from planners.contract import Cost, Scored
from planners.gradient import ADAM, GradientState, Memory, Rule, apart, descend
from planners.noise import Noise

__all__ = ["GRASP", "from_dynamics"]

Step = Callable[[Tensor, Tensor], Tensor]


def from_dynamics(
    step: Step, running_cost: Step, terminal_cost: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Cost]:
    """Cost functions for planning with known or learned dynamics.

        s_{h+1} = step(s_h, a_h)
        cost    = Σ_h running_cost(s_{h+1}, a_h) + terminal_cost(s_H)

    First `cost_from = from_dynamics(step, running_cost)`, then `planner.act(cost_from(state))`.
    The running cost sees the state after the step, as in pytorch_mppi, whose functions fit here.

    Args:
        step: (states [N, D], actions [N, A]) -> next states [N, D], N = B · S.
        running_cost: (states [N, D], actions [N, A]) -> [N].
        terminal_cost: states [N, D] -> [N]; None means 0.
    Returns: a function from states now, [B, D], to a cost [B, S, H, A] -> [B, S]. States may be an
        array; they are taken in the candidates' dtype and to their device.
    Raises: TypeError if a function is none; ValueError, from the cost, if the batches disagree.
    """
    calls("step", step, "(states [N, D], actions [N, A]) -> [N, D]")
    calls("running_cost", running_cost, "(states [N, D], actions [N, A]) -> [N]")
    calls("terminal_cost", terminal_cost, "states [N, D] -> [N]", optional=True)

    def cost_from(state: Tensor) -> Cost:
        def cost(candidates: Tensor) -> Tensor:
            B, S, H, _ = candidates.shape
            now = torch.as_tensor(state).to(candidates)
            floats("state", now, "B D", B=B)
            s = now.repeat_interleave(S, 0)
            total = candidates.new_zeros(B * S)
            for h in range(H):
                a = candidates[:, :, h].flatten(0, 1)
                s = step(s, a)
                total = total + running_cost(s, a)
            if terminal_cost is not None:
                total = total + terminal_cost(s)
            return total.view(B, S)

        return cost

    return cost_from


@dataclass(frozen=True, eq=False)
class GRASP:
    """Gradient-relaxed stochastic planner: dynamics as a soft constraint between virtual states.

        L(s, a) = Σ_h |F(s̄_h, a_h) − s_{h+1}|² + γ Σ_h |F(s̄_h, a_h) − g|²
        s_0 initial, s_H = g fixed; s̄: no gradient into the input of F; noise σ_s on s

    Each iteration takes one gradient step on the cost of the true rollout, then, in the first
    `lifted_iterations` iterations, `lifted_steps` steps on L, whose H model calls are independent
    and run as one batch. The source recommends it for long horizons, where the gradient of a
    rollout explodes or vanishes and sampling runs out of candidates. It needs the dynamics, and a
    goal in the space of their states. The plan is the best of the R plans as scored in the last
    iteration. Under `MPC`: `controller.act(cost, method=replace(grasp, initial=state))`.

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
    #: How far around the plan other starts are, a number or one per action dim.
    init_std: float | tuple[float, ...] = 0.5

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
        first = noise.iteration == 0
        actions = apart(state.actions, self.init_std, noise) if first else state.actions
        return actions.detach().clone().requires_grad_()

    def tell(self, state: GradientState, scored: Scored) -> GradientState:
        """One step on the rollout's cost, then steps on the lifted loss."""
        (actions,), memory = descend(self.rule, [scored.candidates], [scored.grads], state.memory)
        states = state.states
        if states is not None and scored.noise.iteration < self.lifted_iterations:
            actions, states = self._lift(actions, states, scored.noise)
            # The lifted steps moved the actions: what was remembered of the slope is stale.
            memory = ()
        return GradientState(actions, memory, *best(scored.candidates, scored.costs), states)

    def plan(self, state: GradientState) -> Tensor:
        """The best plan as scored in the last iteration."""
        return state.nominal

    def _lift(self, actions: Tensor, states: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        R, H, _ = actions.shape[1:]
        B, D = self.initial.shape
        first, goal = (
            x.detach()[:, None, None].expand(-1, R, -1, -1) for x in (self.initial, self.goal)
        )
        # Per problem, the typical size of a state's entry on the way: states have no unit of ours.
        squared = (self.goal - self.initial).detach().square()
        unit = (squared.sum(-1) / D).sqrt().clamp_min(1e-6)[:, None, None, None]
        rule_a = partial(torch.optim.Adam, lr=self.action_lr)
        rule_s = partial(torch.optim.Adam, lr=self.state_lr)
        memory_a: Memory = ()
        memory_s = memory_a
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
