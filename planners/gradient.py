"""Gradient descent through the cost, with any rule of torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, integer, numbers, row
from planners._common import as_std, best, unscored
from planners.contract import Scored
from planners.noise import Noise

__all__ = ["ADAM", "GradientDescent", "GradientState", "Memory", "Rule", "apart", "descend"]

#: Makes an optimizer for tensors, e.g. functools.partial(torch.optim.Adam, lr=0.1).
Rule = Callable[[list[Tensor]], torch.optim.Optimizer]
#: The rule unless another is given.
ADAM: Rule = partial(torch.optim.Adam, lr=0.1)
#: What an optimizer remembers of each tensor between two steps; empty before the first.
Memory = tuple[Mapping[str, Any], ...]


def descend(
    rule: Rule, tensors: Sequence[Tensor], grads: Sequence[Tensor], memory: Memory
) -> tuple[list[Tensor], Memory]:
    """One step of an optimizer as a function: the arguments stay as they are.

    Returns: the new tensors, and the memory for the next step.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    optimizer = rule(leaves)
    for leaf, grad in zip(leaves, grads, strict=True):
        leaf.grad = grad
    for leaf, kept in zip(leaves, memory, strict=False):
        copied = {k: x.clone() if isinstance(x, Tensor) else x for k, x in kept.items()}
        optimizer.state[leaf] = copied
    optimizer.step()
    return [leaf.detach() for leaf in leaves], tuple(optimizer.state[leaf] for leaf in leaves)


def apart(actions: Tensor, std: float | tuple[float, ...], noise: Noise) -> Tensor:
    """Starts [B, R, H, A]: the first stays, the others are moved at random around it."""
    R, H, A = actions.shape[1:]
    if R == 1:
        return actions
    around = noise.normal((R - 1, H, A), dtype=actions.dtype)
    around = around * as_std(std, actions[:, 0], "init_std").unsqueeze(1)
    return torch.cat([actions[:, :1], actions[:, 1:] + around], 1)


class GradientState(NamedTuple):
    """R plans on their way down, and the best that was scored."""

    actions: Tensor  #: [B, R, H, A], to be scored next
    memory: Memory  #: of the optimizer
    nominal: Tensor  #: [B, H, A], the best when plans that can be executed were last scored
    cost: Tensor  #: [B], its cost
    states: Tensor | None = None  #: [B, R, H − 1, D], of `GRASP`: states on the way to the goal
    spread: float = 0.0  #: 0, it follows a path

    @classmethod
    def of(cls, plan: Tensor, copies: int) -> GradientState:
        """R copies of a start [B, H, A]."""
        return cls(plan.unsqueeze(1).expand(-1, copies, -1, -1), (), plan, unscored(plan))


@dataclass(frozen=True)
class GradientDescent:
    """Follow the gradient of the cost from one or several starts.

        a_r ← project(rule(a_r, ∇cost(a_r)) + noise_std ε)

    Choose it where the cost is smooth and the start is near a good plan: it makes the most of an
    evaluation, but ends in the nearest valley. Restarts and noise help against that; so does
    starting it from CEM, see `Refine`. The plan is the best of the R plans as scored in the last
    iteration, so its cost is known.

    Source: Adam, arXiv:1412.6980; its lr of 0.1 for actions of unit scale is our choice.
    """

    #: Of torch.optim. A `fused=True` rule has other bits in another batch; a CUDA graph needs
    #: `capturable=True`. Torch refuses rules that need a closure (LBFGS).
    rule: Rule = ADAM
    num_restarts: int = 1  #: R; the first starts at the plan, the others around it.
    #: How far around, a number or one per action dim, in planning units.
    init_std: float | tuple[float, ...] = 1.0
    noise_std: float = 0.0  #: Of the noise added before each iteration but the first.

    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        integer("num_restarts", self.num_restarts, 1)
        row("init_std", self.init_std)
        numbers(self, noise_std="[0, inf)")

    def init(self, plan: Tensor, *_: object) -> GradientState:
        """R copies of the start; `ask` moves them apart. Nothing is kept."""
        return GradientState.of(plan, self.num_restarts)

    def ask(self, state: GradientState, noise: Noise) -> Tensor:
        """The R plans, with noise; they require grad."""
        actions = state.actions
        if noise.iteration == 0:
            actions = apart(actions, self.init_std, noise)
        elif self.noise_std:
            shake = noise.normal(tuple(actions.shape[1:]), dtype=actions.dtype)
            actions = actions + self.noise_std * shake
        return actions.detach().clone().requires_grad_()

    def tell(self, state: GradientState, scored: Scored) -> GradientState:
        """One step of the rule for each plan."""
        (actions,), memory = descend(self.rule, [scored.candidates], [scored.grads], state.memory)
        return GradientState(actions, memory, *best(scored.candidates, scored.costs))

    def plan(self, state: GradientState) -> Tensor:
        """The best plan as scored in the last iteration."""
        return state.nominal
