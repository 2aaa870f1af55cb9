"""A cost from dynamics and running costs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

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
    Returns: a function from states now, [B, D], to a cost [B, S, H, A] -> [B, S].
    Raises: ValueError, from the cost, if the states' batch is not the candidates'.
    """

    def cost_from(state: Tensor) -> Cost:
        def cost(candidates: Tensor) -> Tensor:
            B, S, H, _ = candidates.shape
            if state.ndim != 2 or state.shape[0] != B:
                raise ValueError(
                    f"state must be [{B}, D] to match candidates {list(candidates.shape)}, "
                    f"got {list(state.shape)}"
                )
            s = state.repeat_interleave(S, 0)
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
