"""Constraints for any method, by augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, instance, integer, number, require
from planners.contract import Cost, Method, Scored
from planners.noise import Noise

__all__ = ["AugmentedLagrangian", "LagrangianState"]


class LagrangianState(NamedTuple):
    """The wrapped method's state, the multipliers, and the best candidate."""

    inner: Any
    multiplier: Tensor  # [B, C], λ ≥ 0
    penalty: Tensor  # [B], ρ
    broken: Tensor  # [B], largest max(c, 0) at the last update
    total: Tensor  # [B], least cost with penalties since the last update
    limits: Tensor  # [B, C], the constraints there
    nominal: Tensor  # [B, H, A], the best candidate so far
    cost: Tensor  # [B], its cost, without penalties
    violation: Tensor  # [B], how far its worst constraint is beyond `tolerance`; 0 if feasible
    before: Tensor  # [B, H, A], the best candidate at the last update
    spread: Tensor  # [B], how far it moved between two updates; inf while it is not feasible
    iteration: int = 0  # how many are done
    since: int = 0  # the iteration the wrapped method last started anew in
    descends: bool = False  # whether gradients were asked for since the last update


@dataclass(frozen=True)
class AugmentedLagrangian:
    """Least cost subject to c(a) ≤ 0, for any method.

        method minimises  cost + ρ/2 Σ_j max(0, λ_j/ρ + c_j)² − Σ_j λ_j²/2ρ
        every `every` iterations:  λ_j ← max(0, λ_j + ρ c_j),  ρ ← γρ where c stays broken

    A sampling method, whose spread has shrunk by then, starts again from its plan; a gradient
    method goes on with what its rule remembers, because the first steps of a new Adam are long
    ones. "Stays broken" is two updates in a row with less than half of c gone: a rule that still
    swings through c = 0 is not to be answered with a stiffer problem.

    Choose it when a plan must keep out of somewhere, not merely be charged for it. Penalties alone
    need a weight that is large (a stiff problem) yet never large enough; multipliers find the
    price of each constraint. The plan is the cheapest candidate so far whose constraints hold up
    to `tolerance`; while there is none, the one that breaks them least, so read
    `LagrangianState.violation` (a callback sees it) before trusting it. Wrap the method directly:
    `BestSoFar` outside would not know the constraints. The next control step keeps λ and what the
    wrapped method keeps, and may have a constraint of its own, with as many rows:
    `controller.act(cost, method=replace(method, constraint=…))`.

    Args:
        method: any method.
        constraint: [B, S, H, A] -> [B, S, C]; satisfied where ≤ 0. Called once per iteration.
        every: iterations between two updates of λ, enough for the method to converge roughly. A
            gradient method with a single start does not settle within half the default.
        penalty: ρ at the start, in units of cost per squared constraint: the default suits costs
            and constraints of the order of 1; scale it with the cost.
        growth: γ, at least 1.
        tolerance: largest c that still counts as satisfied.
    Raises: ValueError on a value outside these ranges, or a constraint of another shape; TypeError
        on an argument of another kind.
    Source: Hestenes (1969), Powell (1969); inequality form: Nocedal & Wright, Numerical
        Optimization, Section 17.4. Their rule for ρ expects a converged method at each update; ours
        does not.
    """

    method: Method[Any]
    constraint: Cost
    every: int = 10
    penalty: float = 10.0
    growth: float = 2.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")
        calls("constraint", self.constraint, "[B, S, H, A] -> [B, S, C]")
        integer("every", self.every, 1)
        number("penalty", self.penalty, "(0, inf)")
        number("growth", self.growth, "[1, inf)")
        number("tolerance", self.tolerance, "[0, inf)")

    @property
    def discrete(self) -> bool:
        """As the wrapped method."""
        return self.method.discrete

    def init(
        self, plan: Tensor, previous: LagrangianState | None = None, steps: int = 0
    ) -> LagrangianState:
        """No prices yet, or those of the last search."""
        B, inf = len(plan), plan.new_full(plan.shape[:1], torch.inf)
        return LagrangianState(
            inner=self.method.init(plan, previous and previous.inner, steps),
            multiplier=previous.multiplier if previous else plan.new_zeros(B, 1),
            penalty=torch.full_like(inf, self.penalty),
            broken=torch.zeros_like(inf),
            total=inf,
            limits=plan.new_zeros(B, 1),
            nominal=plan,
            cost=inf,
            violation=inf,
            before=plan,
            spread=inf,
        )

    def ask(self, state: LagrangianState, noise: Noise) -> Tensor:
        """As the wrapped method."""
        return self.method.ask(state.inner, noise.later(state.since))

    def tell(self, state: LagrangianState, scored: Scored) -> LagrangianState:
        """Add the penalties, pass on, and update the multipliers when it is time."""
        a = scored.candidates
        λ, ρ = state.multiplier[:, None], state.penalty[:, None, None]
        wants_grad = scored.grads.numel() > 0
        with torch.set_grad_enabled(wants_grad):
            leaf = a.detach().requires_grad_(wants_grad)
            c = self.constraint(leaf)
            require(
                c.ndim == 3 and c.shape[:2] == a.shape[:2],
                f"constraint must map [B, S, H, A] = {list(a.shape)} to [B, S, C], "
                f"got {list(c.shape)}",
            )
            C = λ.shape[-1]
            require(C in (1, c.shape[-1]), f"constraint must keep its C = {C}, got {c.shape[-1]}")
            added = (ρ / 2 * (λ / ρ + c).clamp_min(0).square() - λ.square() / (2 * ρ)).sum(-1)
            grads = scored.grads
            if wants_grad:
                grads = grads + torch.autograd.grad(added.sum(), leaf)[0].nan_to_num(0, 0, 0)
        # A constraint without a value is broken.
        c = c.detach().nan_to_num(torch.inf, torch.inf, -torch.inf)
        total = (scored.costs + added.detach()).nan_to_num(torch.inf, torch.inf, torch.inf)
        local = Scored(a, total, grads, scored.noise.later(state.since))
        inner = self.method.tell(state.inner, local)
        index = total.argmin(1, keepdim=True)
        least = total.gather(1, index)[:, 0]
        limits = c.gather(1, index[..., None].expand(-1, 1, c.shape[-1]))[:, 0]
        better = least < state.total
        state = self._better(state, scored, c)._replace(
            inner=inner,
            iteration=state.iteration + 1,
            total=torch.where(better, least, state.total),
            limits=torch.where(better[:, None], limits, state.limits),
            descends=state.descends or wants_grad,
        )
        return state if state.iteration % self.every else self._update(state)

    def plan(self, state: LagrangianState) -> Tensor:
        """The best candidate so far."""
        return state.nominal

    def _better(self, state: LagrangianState, scored: Scored, c: Tensor) -> LagrangianState:
        """The best candidate of this iteration, if it beats the best so far."""
        worst = c.amax(-1)
        violation = torch.where(worst <= self.tolerance, 0.0, worst)
        violation = torch.where(scored.costs.isinf(), torch.inf, violation)
        least = violation.amin(1, keepdim=True)
        index = torch.where(violation == least, scored.costs, torch.inf).argmin(1, keepdim=True)
        cost, violation = scored.costs.gather(1, index)[:, 0], least[:, 0]
        chosen = index[:, :, None, None].expand(-1, 1, *scored.candidates.shape[2:])
        nominal = scored.candidates.gather(1, chosen)[:, 0]
        better = (violation < state.violation) | (
            (violation == state.violation) & (cost < state.cost)
        )
        return state._replace(
            nominal=torch.where(better[:, None, None], nominal, state.nominal),
            cost=torch.where(better, cost, state.cost),
            violation=torch.where(better, violation, state.violation),
        )

    def _update(self, state: LagrangianState) -> LagrangianState:
        """New prices, from the constraints at the cheapest candidate since the last update."""
        λ, ρ, c = state.multiplier, state.penalty[:, None], state.limits
        broken = c.amax(-1).clamp_min(0)
        stays = (state.broken > self.tolerance) & (
            broken > torch.clamp(0.5 * state.broken, min=self.tolerance)
        )
        moved = (state.nominal - state.before).abs().flatten(1).amax(1)
        state = state._replace(
            multiplier=(λ + ρ * c).clamp_min(0),
            penalty=torch.where(stays, self.growth * state.penalty, state.penalty),
            broken=broken,
            total=torch.full_like(state.total, torch.inf),
            before=state.nominal,
            spread=torch.where(state.violation > 0, torch.inf, moved),
        )
        if state.descends:
            return state._replace(descends=False)
        inner = self.method.init(self.method.plan(state.inner), state.inner)
        return state._replace(inner=inner, since=state.iteration)
