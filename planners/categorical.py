"""Cross-entropy method for discrete actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from planners._arguments import integer, number, require
from planners._common import lowest, population
from planners.contract import Scored
from planners.noise import Noise

__all__ = ["CategoricalCEM", "CategoricalState", "distributions", "round_to_choices"]


def distributions(plan: Tensor, choices: int) -> Tensor:
    """A start [B, H, A] as distributions [B, H, A / choices, choices]; zero rows become uniform."""
    require(
        choices >= 2 and plan.shape[-1] % choices == 0,
        f"choices must be at least 2 and divide A = {plan.shape[-1]}, got {choices}",
    )
    rows = plan.unflatten(-1, (-1, choices)).clamp_min(0)
    total = rows.sum(-1, keepdim=True)
    return torch.where(total > 0, rows / total.clamp_min(1e-12), 1.0 / choices)


def round_to_choices(actions: Tensor, choices: int) -> Tensor:
    """One-hot of the likeliest choice of each group, the same shape as `actions` [..., A]."""
    rows = actions.unflatten(-1, (-1, choices))
    options = torch.arange(choices, device=actions.device)
    chosen: Tensor = rows.argmax(-1, keepdim=True) == options
    return chosen.to(actions.dtype).flatten(-2)


class CategoricalState(NamedTuple):
    """One distribution per choice to make, and the best candidate."""

    probability: Tensor  # [B, H, G, C], G = A / C groups
    nominal: Tensor  # [B, H, A], best candidate of the last iteration
    cost: Tensor  # [B], its cost

    @property
    def spread(self) -> Tensor:
        """1 − max p, [B, H, G]."""
        return 1 - self.probability.amax(-1)


@dataclass(frozen=True)
class CategoricalCEM:
    """Cross-entropy method over independent categorical distributions.

        a_s ~ Π_h Categorical(p_h), one-hot
        p   ← α p + (1 − α) frequency of each choice among the K elites,  kept above `floor` / C

    Choose it for discrete actions. Actions are one-hot over A choices; with `choices = C` an
    action is A / C of them side by side (blocks of steps, or several discrete controls). A start
    of zeros means uniform; a start of one-hot rows (a shifted plan) is mixed with uniform. The
    plan is the best candidate of the last iteration.

    Args:
        num_samples: S, candidates per iteration.
        num_elites: K, in [1, S].
        choices: C; None means A.
        momentum: α, in [0, 1).
        floor: share of the uniform distribution in p, in [0, 1]; above 0 no choice dies out.
        restart: share of the uniform distribution in the start, in [0, 1].
        decay: γ, at least 1; above 1 iteration i scores max(S γ^−i, 2K) candidates.
    Raises: ValueError on a value outside these ranges, TypeError on one of another kind.
    Source: Rubinstein & Kroese, The Cross-Entropy Method (2004), Section 2; S and K as in `CEM`,
        the rest is our choice.
    """

    num_samples: int = 300
    num_elites: int = 30
    choices: int | None = None
    momentum: float = 0.1
    floor: float = 0.01
    restart: float = 0.5
    decay: float = 1.0

    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        integer("num_samples", self.num_samples, 1)
        integer("num_elites", self.num_elites, 1, self.num_samples)
        if self.choices is not None:
            integer("choices", self.choices, 2)
        number("momentum", self.momentum, "[0, 1)")
        number("floor", self.floor, "[0, 1]")
        number("restart", self.restart, "[0, 1]")
        number("decay", self.decay, "[1, inf)")

    def init(self, plan: Tensor, *_: object) -> CategoricalState:
        """The start, mixed with uniform; nothing is kept."""
        C = self.choices or plan.shape[-1]
        p = (1 - self.restart) * distributions(plan, C) + self.restart / C
        return CategoricalState(
            p, round_to_choices(p.flatten(-2), C), plan.new_full(plan.shape[:1], torch.inf)
        )

    def ask(self, state: CategoricalState, noise: Noise) -> Tensor:
        """Draw S candidates by inverting the distribution function."""
        p = state.probability
        H, G, C = p.shape[1:]
        S = population(self.num_samples, self.decay, noise.iteration, 2 * self.num_elites)
        u = noise.uniform((S, H, G), dtype=p.dtype)
        # The last edge is 1 by definition, not by summation.
        edges = p.cumsum(-1)[..., :-1].unsqueeze(1)
        choice = (u.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
        return (choice == torch.arange(C, device=p.device)).to(p.dtype).flatten(-2)

    def tell(self, state: CategoricalState, scored: Scored) -> CategoricalState:
        """Count the elites' choices."""
        elites, values = lowest(scored.candidates, scored.costs, self.num_elites)
        shape, p = state.nominal.shape, state.probability
        frequency = (elites.sum(-1) / self.num_elites).view(p.shape)
        p = self.momentum * p + (1 - self.momentum) * frequency
        p = (1 - self.floor) * p + self.floor / p.shape[-1]
        return CategoricalState(p, elites[..., 0].reshape(shape), values[:, 0])

    def plan(self, state: CategoricalState) -> Tensor:
        """The best candidate of the last iteration, one-hot."""
        return state.nominal
