"""Projected gradient on the probability simplex, for discrete actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, integer, number
from planners._common import best
from planners.categorical import distributions, round_to_choices
from planners.contract import Scored
from planners.gradient import Memory, Rule, apart, descend
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
    """R relaxed plans, and the best rounded one that was scored."""

    actions: Tensor  # [B, R, H, A], rows on the simplex, to be scored next
    memory: Memory  # of the optimizer
    nominal: Tensor  # [B, H, A], one-hot, the best when roundings were last scored
    cost: Tensor  # [B], its cost
    spread: float = 0.0  # 0, it follows a path


@dataclass(frozen=True)
class SimplexGradient:
    """Gradient descent on relaxed choices, each projected back to the simplex.

        p_r ← project(rule(p_r, ∇cost(p_r)))

    Choose it for discrete actions whose model also takes mixtures of one-hot actions and has
    useful gradients there. A relaxed plan can be cheaper than any real one, so the roundings of
    the R plans are scored in iterations 0, 2, … without a gradient, the relaxed plans in 1, 3, …
    with one. The plan is the best rounding when they were last scored. Actions and `choices` as in
    `CategoricalCEM`.

    Each start ends in a minimum near it, and choices that only pay together make many of those,
    so a search with few starts misses the best plan often. The default solves the chains of the
    test suite; take more for longer ones.

    Args:
        num_restarts: R; the first starts at the plan, the others at random mixtures.
        choices: C, options per choice; None means A.
        rule: of torch.optim, as a function of the list of tensors.
        init_std: of the noise that moves the other starts before their projection.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: projected gradient, Levitin & Polyak (1966); the rule and its lr are our choice.
    """

    num_restarts: int = 64
    choices: int | None = None
    rule: Rule = _RULE
    init_std: float = 1.0

    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        integer("num_restarts", self.num_restarts, 1)
        if self.choices is not None:
            integer("choices", self.choices, 2)
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        number("init_std", self.init_std, "[0, inf)")

    def init(self, plan: Tensor, *_: object) -> SimplexState:
        """R copies of the start, moved apart in the first iteration; nothing is kept."""
        start = distributions(plan, self.choices or plan.shape[-1]).flatten(-2)
        actions = start.unsqueeze(1).expand(-1, self.num_restarts, -1, -1)
        return SimplexState(actions, (), start, plan.new_full(plan.shape[:1], torch.inf))

    def ask(self, state: SimplexState, noise: Noise) -> Tensor:
        """The roundings, or the relaxed plans, which require grad."""
        actions = self._apart(state.actions, noise)
        if noise.iteration % 2:
            return actions.detach().clone().requires_grad_()
        return round_to_choices(actions, self.choices or actions.shape[-1])

    def tell(self, state: SimplexState, scored: Scored) -> SimplexState:
        """Keep the best rounding; or one step of the rule for each relaxed plan, projected."""
        if not scored.noise.iteration % 2:
            nominal, cost = best(scored.candidates, scored.costs)
            actions = self._apart(state.actions, scored.noise)
            return SimplexState(actions, state.memory, nominal, cost)
        (actions,), memory = descend(self.rule, [scored.candidates], [scored.grads], state.memory)
        return state._replace(actions=self._projected(actions), memory=memory)

    def plan(self, state: SimplexState) -> Tensor:
        """The best rounding when they were last scored."""
        return state.nominal

    def _apart(self, actions: Tensor, noise: Noise) -> Tensor:
        """In the first iteration all plans but the first, moved by the same numbers each time."""
        if noise.iteration or self.num_restarts == 1:
            return actions
        moved = apart(actions, self.init_std, noise)[:, 1:]
        return torch.cat([actions[:, :1], self._projected(moved)], 1)

    def _projected(self, actions: Tensor) -> Tensor:
        choices = self.choices or actions.shape[-1]
        return project_to_simplex(actions.unflatten(-1, (-1, choices))).flatten(-2)
