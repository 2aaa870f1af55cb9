"""Planners for discrete actions, one-hot over A choices: cross-entropy and projected gradient.

With `choices` = C an action is A / C of them side by side: blocks of steps, or several controls.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, integer, number, numbers, require
from planners._common import lowest, population, unscored
from planners.contract import Scored
from planners.gradient import GradientState, Rule, apart, descend
from planners.noise import Noise

__all__ = ["CategoricalCEM", "CategoricalState", "SimplexGradient"]


def distributions(plan: Tensor, choices: int | None) -> Tensor:
    """A start [B, H, A] as distributions [B, H, A / C, C]; zero rows become uniform."""
    A = plan.shape[-1]
    C = A if choices is None else choices
    require(C >= 2 and A % C == 0, f"choices must be at least 2 and divide A = {A}, got {C}")
    rows = plan.unflatten(-1, (-1, C)).clamp_min(0)
    total = rows.sum(-1, keepdim=True)
    return torch.where(total > 0, rows / total.clamp_min(1e-12), 1.0 / C)


def round_to_choices(actions: Tensor, choices: int) -> Tensor:
    """One-hot of the likeliest choice of each group, the same shape as `actions` [..., A]."""
    rows = actions.unflatten(-1, (-1, choices))
    chosen: Tensor = rows.argmax(-1, keepdim=True) == torch.arange(choices, device=actions.device)
    return chosen.to(actions.dtype).flatten(-2)


def project_to_simplex(rows: Tensor) -> Tensor:
    """The nearest probability vector to each row x [..., C]: max(x − θ, 0), θ such that Σ p = 1.

    Source: Duchi et al., Efficient projections onto the ℓ1-ball, ICML 2008, Figure 1.
    """
    x = rows.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    θ = (x.cumsum(-1) - 1) / count
    used = (x > θ).sum(-1, keepdim=True) - 1
    return (rows - θ.gather(-1, used)).clamp_min(0)


_ADAM: Rule = partial(torch.optim.Adam, lr=0.3)


class CategoricalState(NamedTuple):
    """One distribution per choice to make, and the best candidate."""

    probability: Tensor  #: [B, H, G, C], G = A / C groups
    nominal: Tensor  #: [B, H, A], best candidate of the last iteration
    cost: Tensor  #: [B], its cost

    @property
    def spread(self) -> Tensor:
        """1 − max p, [B, H, G]."""
        return 1 - self.probability.amax(-1)


@dataclass(frozen=True)
class CategoricalCEM:
    """Cross-entropy method over independent categorical distributions.

        a_s ~ Π_h Categorical(p_h), one-hot
        p   ← α p + (1 − α) frequency of each choice among the K elites,  kept above `floor` / C

    Choose it for discrete actions. A start of zeros means uniform; a start of one-hot rows (a
    shifted plan) is mixed with uniform. The plan is the best candidate of the last iteration.

    Source: Rubinstein & Kroese, The Cross-Entropy Method (2004), Section 2; S and K as in `CEM`,
        the rest is our choice.
    """

    num_samples: int = 300  #: S, candidates per iteration.
    num_elites: int = 30  #: K, in [1, S].
    choices: int | None = None  #: C, options per choice; None means A.
    momentum: float = 0.1  #: α, in [0, 1).
    floor: float = 0.01  #: Share of the uniform distribution in p; above 0 no choice dies out.
    restart: float = 0.5  #: Share of the uniform distribution in the start, in [0, 1].
    decay: float = 1.0  #: γ, at least 1; above 1 iteration i scores max(S γ^−i, 2K) candidates.
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 1)
        integer("num_elites", self.num_elites, 1, self.num_samples)
        integer("choices", 2 if self.choices is None else self.choices, 2)
        numbers(self, momentum="[0, 1)", floor="[0, 1]", restart="[0, 1]", decay="[1, inf)")

    def init(self, plan: Tensor, *_: object) -> CategoricalState:
        """The start, mixed with uniform; the last search is ignored."""
        p = distributions(plan, self.choices)
        p = (1 - self.restart) * p + self.restart / p.shape[-1]
        return CategoricalState(p, round_to_choices(p.flatten(-2), p.shape[-1]), unscored(plan))

    def ask(self, state: CategoricalState, noise: Noise) -> Tensor:
        """Draw S candidates by the inverse of the distribution function."""
        p = state.probability
        H, G, C = p.shape[1:]
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        u = noise.uniform((S, H, G), dtype=p.dtype)
        # The last edge is exactly 1, which a sum might miss.
        edges = p.cumsum(-1)[..., :-1].unsqueeze(1)
        choice = (u.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
        return (choice == torch.arange(C, device=p.device)).to(p.dtype).flatten(-2)

    def tell(self, state: CategoricalState, scored: Scored) -> CategoricalState:
        """Count the choices of the elites."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        p = state.probability
        frequency = (elites.sum(-1) / self.num_elites).view(p.shape)
        p = self.momentum * p + (1 - self.momentum) * frequency
        p = (1 - self.floor) * p + self.floor / p.shape[-1]
        return CategoricalState(p, elites[..., 0].reshape(state.nominal.shape), values[:, 0])

    def plan(self, state: CategoricalState) -> Tensor:
        """The best candidate of the last iteration, one-hot."""
        return state.nominal


@dataclass(frozen=True)
class SimplexGradient:
    """Gradient descent on relaxed choices, each projected back to the simplex.

        p_r ← project(rule(p_r, ∇cost(p_r)))

    Choose it for discrete actions if the model also takes mixtures of one-hot actions and has
    useful gradients there. A relaxed plan can be cheaper than any real one, so even iterations
    score the roundings of the R plans, and odd ones the relaxed plans, with gradients. The plan is
    the best rounding when they were last scored. Each start ends in a minimum near it. Choices that
    only pay together make many minima: take many starts, more for a long horizon.

    Source: projected gradient, Levitin & Polyak (1966); the rule and its lr are our choice.
    """

    num_restarts: int = 64  #: R; the first starts at the plan, the others at random mixtures.
    choices: int | None = None  #: C, options per choice; None means A.
    rule: Rule = _ADAM  #: As in `GradientDescent`.
    init_std: float = 1.0  #: Of the noise that moves the other starts before their projection.
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        integer("num_restarts", self.num_restarts, 1)
        integer("choices", 2 if self.choices is None else self.choices, 2)
        calls("rule", self.rule, "list of tensors -> torch.optim.Optimizer")
        number("init_std", self.init_std, "[0, inf)")

    def init(self, plan: Tensor, *_: object) -> GradientState:
        """R copies of the start; the first iteration moves them apart. Nothing is kept."""
        return GradientState.of(distributions(plan, self.choices).flatten(-2), self.num_restarts)

    def ask(self, state: GradientState, noise: Noise) -> Tensor:
        """The roundings, or the relaxed plans, which require grad."""
        actions = self._apart(state.actions, noise)
        if noise.iteration % 2:
            return actions.detach().clone().requires_grad_()
        return round_to_choices(actions, self.choices or actions.shape[-1])

    def tell(self, state: GradientState, scored: Scored) -> GradientState:
        """Keep the best rounding; or one step of the rule for each relaxed plan, projected."""
        if not scored.noise.iteration % 2:
            actions = self._apart(state.actions, scored.noise)
            return state.after(scored, actions, state.memory)
        actions, memory = descend(self.rule, scored.candidates, scored.grads, state.memory)
        return state._replace(actions=self._projected(actions), memory=memory)

    def plan(self, state: GradientState) -> Tensor:
        """The best rounding when they were last scored."""
        return state.nominal

    def _apart(self, actions: Tensor, noise: Noise) -> Tensor:
        """In the first iteration, move all plans but the first by the same numbers each time."""
        if noise.iteration or self.num_restarts == 1:
            return actions
        moved = apart(actions, self.init_std, noise)[:, 1:]
        return torch.cat([actions[:, :1], self._projected(moved)], 1)

    def _projected(self, actions: Tensor) -> Tensor:
        choices = self.choices or actions.shape[-1]
        return project_to_simplex(actions.unflatten(-1, (-1, choices))).flatten(-2)
