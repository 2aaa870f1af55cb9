"""Constraints for any method, by augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic

import torch
from torch import Tensor

from planners._arguments import calls, instance, integer, number, require
from planners.contract import Cost, Method, Scored, StateT
from planners.noise import Noise

__all__ = ["AugmentedLagrangian", "LagrangianState"]


@dataclass(frozen=True)
class LagrangianState(Generic[StateT]):
    """The wrapped method's state, the multipliers, and the best candidate.

    Attributes:
        inner: of the wrapped method.
        iteration: how many iterations are done.
        since: the iteration the wrapped method last started anew in.
        multiplier: [B, C], λ ≥ 0.
        penalty: [B], ρ.
        broken: [B], largest max(c, 0) at the last update.
        total: [B], least cost with penalties since the last update.
        limits: [B, C], the constraints there.
        nominal: [B, H, A], the best candidate so far.
        cost: [B], its cost, without penalties.
        violation: [B], how far its worst constraint is beyond `tolerance`; 0 if feasible.
        before: [B, H, A], the best candidate at the last update.
        spread: [B], how far it moved from one update to the next; inf while it is not feasible.
        descends: whether gradients were asked for since the last update.
    """

    inner: StateT
    iteration: int
    since: int
    multiplier: Tensor
    penalty: Tensor
    broken: Tensor
    total: Tensor
    limits: Tensor
    nominal: Tensor
    cost: Tensor
    violation: Tensor
    before: Tensor
    spread: Tensor
    descends: bool = False


@dataclass(frozen=True)
class AugmentedLagrangian(Generic[StateT]):
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

    method: Method[StateT]
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
        self, plan: Tensor, previous: LagrangianState[StateT] | None = None, steps: int = 0
    ) -> LagrangianState[StateT]:
        """No prices yet, or those of the last search."""
        inf, none = plan.new_full(plan.shape[:1], torch.inf), plan.new_zeros(plan.shape[:1])
        return LagrangianState(
            inner=self.method.init(plan, None if previous is None else previous.inner, steps),
            iteration=0,
            since=0,
            multiplier=plan.new_zeros(plan.shape[0], 1)
            if previous is None
            else previous.multiplier,
            penalty=plan.new_full(plan.shape[:1], self.penalty),
            broken=none,
            total=inf,
            limits=plan.new_zeros(plan.shape[0], 1),
            nominal=plan,
            cost=inf,
            violation=inf,
            before=plan,
            spread=inf,
        )

    def ask(self, state: LagrangianState[StateT], noise: Noise) -> Tensor:
        """As the wrapped method."""
        return self.method.ask(state.inner, noise.later(state.since))

    def tell(self, state: LagrangianState[StateT], scored: Scored) -> LagrangianState[StateT]:
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
        state = replace(
            self._better(state, scored, c),
            inner=inner,
            iteration=state.iteration + 1,
            total=torch.where(better, least, state.total),
            limits=torch.where(better[:, None], limits, state.limits),
            descends=state.descends or wants_grad,
        )
        return state if state.iteration % self.every else self._update(state)

    def plan(self, state: LagrangianState[StateT]) -> Tensor:
        """The best candidate so far."""
        return state.nominal

    def _better(
        self, state: LagrangianState[StateT], scored: Scored, c: Tensor
    ) -> LagrangianState[StateT]:
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
        return replace(
            state,
            nominal=torch.where(better[:, None, None], nominal, state.nominal),
            cost=torch.where(better, cost, state.cost),
            violation=torch.where(better, violation, state.violation),
        )

    def _update(self, state: LagrangianState[StateT]) -> LagrangianState[StateT]:
        """New prices, from the constraints at the cheapest candidate since the last update."""
        λ, ρ, c = state.multiplier, state.penalty[:, None], state.limits
        broken = c.amax(-1).clamp_min(0)
        stays = (state.broken > self.tolerance) & (
            broken > torch.clamp(0.5 * state.broken, min=self.tolerance)
        )
        moved = (state.nominal - state.before).abs().flatten(1).amax(1)
        state = replace(
            state,
            multiplier=(λ + ρ * c).clamp_min(0),
            penalty=torch.where(stays, self.growth * state.penalty, state.penalty),
            broken=broken,
            total=torch.full_like(state.total, torch.inf),
            before=state.nominal,
            spread=torch.where(state.violation > 0, torch.inf, moved),
        )
        if state.descends:
            return replace(state, descends=False)
        inner = self.method.init(self.method.plan(state.inner), state.inner)
        return replace(state, inner=inner, since=state.iteration)
