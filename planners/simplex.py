"""Projected gradient on the probability simplex, for discrete actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._common import best, require
from planners.categorical import distributions, round_to_choices
from planners.contract import Scored
from planners.gradient import Memory, Rule, descend
from planners.noise import Noise

__all__ = ["SimplexGradient", "SimplexState", "project_to_simplex"]


_RULE: Rule = partial(torch.optim.Adam, lr=0.3)


def project_to_simplex(rows: Tensor) -> Tensor:
    """The nearest probability vector to each row [..., C].

        p = max(x − θ, 0),  θ such that Σ p = 1

    Source: Duchi et al., Efficient projections onto the ℓ1-ball, ICML 2008, Figure 1.
    """
    x = rows.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    θ = (x.cumsum(-1) - 1) / count
    used = (x > θ).sum(-1, keepdim=True) - 1
    return (rows - θ.gather(-1, used)).clamp_min(0)


class SimplexState(NamedTuple):
    """R relaxed plans, and the best rounded one that was scored.

    Attributes:
        actions: [B, R, H, A], rows on the simplex, to be scored next.
        memory: of the optimizer.
        nominal: [B, H, A], one-hot, the best of the last iteration.
        cost: [B], its cost.
    """

    actions: Tensor
    memory: Memory
    nominal: Tensor
    cost: Tensor


@dataclass(frozen=True)
class SimplexGradient:
    """Gradient descent on relaxed choices, each projected back to the simplex.

        p_r ← project(rule(p_r, ∇cost(p_r)))

    Choose it for discrete actions whose model also takes mixtures of one-hot actions and has
    useful gradients there. A relaxed plan can be cheaper than any real one, so each relaxed
    candidate is scored together with its rounding, S = 2R, and the plan is the best rounded one of
    the last iteration. Actions and `choices` as in `CategoricalCEM`.

    Each start ends in a minimum near it, and choices that only pay together make many of those,
    so a search with few starts misses the best plan often. The default solves the chains of the
    test suite; take more for longer ones.

    Args:
        num_restarts: R; the first starts at the plan, the others at random mixtures.
        choices: C, options per choice; None means A.
        rule: of torch.optim, as a function of the list of tensors.
        init_std: of the noise that moves the other starts before their projection.
    Raises: ValueError if `num_restarts` < 1 or `init_std` < 0.
    Source: projected gradient, Levitin & Polyak (1966); the rule and its lr are our choice.
    """

    num_restarts: int = 64
    choices: int | None = None
    rule: Rule = _RULE
    init_std: float = 1.0

    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.num_restarts >= 1, f"num_restarts must be at least 1, got {self.num_restarts}")
        require(self.init_std >= 0, f"init_std must be at least 0, got {self.init_std}")

    def init(self, plan: Tensor) -> SimplexState:
        """R copies of the start; `ask` moves them apart."""
        start = distributions(plan, self.choices or plan.shape[-1]).flatten(-2)
        actions = start.unsqueeze(1).expand(-1, self.num_restarts, -1, -1)
        return SimplexState(actions, (), start, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: SimplexState, noise: Noise) -> Tensor:
        """The relaxed plans, then their roundings; they require grad."""
        actions, (R, H, A) = state.actions, state.actions.shape[1:]
        C = self.choices or A
        if noise.iteration == 0 and R > 1:
            around = self.init_std * noise.normal((R - 1, H, A), dtype=actions.dtype)
            moved = self._project(actions[:, 1:] + around, C)
            actions = torch.cat([actions[:, :1], moved], 1)
        both = torch.cat([actions, round_to_choices(actions, C)], 1)
        return both.requires_grad_()

    def tell(self, state: SimplexState, scored: Scored) -> SimplexState:
        """One step of the rule for each relaxed plan, and back to the simplex."""
        R = self.num_restarts
        relaxed, grads = scored.candidates[:, :R], scored.grads[:, :R]
        (actions,), memory = descend(self.rule, [relaxed], [grads], state.memory)
        nominal, cost = best(scored.candidates[:, R:], scored.costs[:, R:])
        actions = self._project(actions, self.choices or actions.shape[-1])
        return SimplexState(actions, memory, nominal, cost)

    def plan(self, state: SimplexState) -> Tensor:
        """The best rounded plan of the last iteration."""
        return state.nominal

    @staticmethod
    def _project(actions: Tensor, choices: int) -> Tensor:
        return project_to_simplex(actions.unflatten(-1, (-1, choices))).flatten(-2)
