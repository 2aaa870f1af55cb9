"""A cost from dynamics and running costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from planners._arguments import calls, floats
from planners.contract import Cost

__all__ = ["from_dynamics"]

Step = Callable[[Tensor, Tensor], Tensor]


def from_dynamics(
    step: Step, running_cost: Step, terminal_cost: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Cost]:
    """Cost functions for planning with known or learned dynamics.

        s_{h+1} = step(s_h, a_h)
        cost    = Σ_h running_cost(s_{h+1}, a_h) + terminal_cost(s_H)

    First `cost_from = from_dynamics(step, running_cost)`, then `planner.act(cost_from(state))`.
    The running cost sees the state after the step, as in pytorch_mppi, whose functions fit here
    unchanged; the state before the first step would only add a constant.

    Args:
        step: (states [N, D], actions [N, A]) -> next states [N, D], N = B · S.
        running_cost: (states [N, D], actions [N, A]) -> [N].
        terminal_cost: states [N, D] -> [N]; None means 0.
    Returns: a function from states now, [B, D], to a cost [B, S, H, A] -> [B, S]. States may be an
        array; they are taken in the candidates' dtype and to their device.
    Raises: TypeError if a function is none; ValueError, from the cost, if the states' batch is not
        the candidates'.
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
