"""Methods around methods: best of all iterations, search then polish, constraints."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, instance, integer, numbers, require
from planners._common import pick, unscored
from planners.contract import Cost, Method, Scored
from planners.noise import Noise
from planners.sampling import Best

__all__ = ["AugmentedLagrangian", "BestSoFar", "LagrangianState", "Refine", "Turns"]


@dataclass(frozen=True)
class BestSoFar:
    """The cheapest candidate of all iterations, whatever the method returns.

    Choose it when the plan is executed as it is and the cost can be trusted; its cost never rises.
    An average (CEM's mean, MPPI) is safer where the cost has errors that a search exploits.
    """

    method: Method[Any]  #: Any method.

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")

    @property
    def discrete(self) -> bool:
        """As the wrapped method."""
        return self.method.discrete

    def init(self, plan: Tensor, previous: Best | None = None, steps: int = 0) -> Best:
        """The start is the plan until something is scored. The wrapped method's state is inside."""
        inner = self.method.init(plan, previous and previous.inner, steps)
        return Best(plan, unscored(plan), inner.spread, inner)

    def ask(self, state: Best, noise: Noise) -> Tensor:
        """As the wrapped method."""
        return self.method.ask(state.inner, noise)

    def tell(self, state: Best, scored: Scored) -> Best:
        """Compare the best candidate of this iteration with the best so far."""
        inner = self.method.tell(state.inner, scored)
        return state.improved(scored)._replace(spread=inner.spread, inner=inner)

    def plan(self, state: Best) -> Tensor:
        """The best candidate so far."""
        return state.nominal


class Turns(NamedTuple):
    """The states of both methods, and whose turn it is."""

    iteration: int  #: how many are done
    first: Any
    second: Any  #: during the first one's turn, what it keeps of the last search
    cost: Tensor  #: [B], of the last active method
    spread: Tensor | float = torch.inf  #: of the second; inf before its turn


@dataclass(frozen=True)
class Refine:
    """A first method for `after` iterations, then a second one from its plan.

    Choose `Refine(CEM(), GradientDescent(), after=…)` where the cost is smooth but has several
    minima: sampling finds the valley, gradients its lowest point. `discrete` must agree.

    Source: CEM then gradient descent: Huang et al., CEM-GD, arXiv:2112.07746.
    """

    first: Method[Any]  #: Any method.
    then: Method[Any]  #: Any method; it starts at the first one's plan.
    after: int  #: Iterations of the first, at least 1.

    def __post_init__(self) -> None:
        instance("first", self.first, Method, "CEM()")
        instance("then", self.then, Method, "GradientDescent()")
        integer("after", self.after, 1)
        alike = self.first.discrete == self.then.discrete
        both = f"{self.first} and {self.then}"
        require(alike, f"first and then must both be discrete or both not, got {both}")

    @property
    def discrete(self) -> bool:
        """As both methods."""
        return self.first.discrete

    def init(self, plan: Tensor, previous: Turns | None = None, steps: int = 0) -> Turns:
        """The states of both methods; each keeps what it keeps of its own last search."""
        first = self.first.init(plan, previous and previous.first, steps)
        second = self.then.init(plan, previous and previous.second, steps)
        return Turns(0, first, second, first.cost)

    def ask(self, state: Turns, noise: Noise) -> Tensor:
        """Candidates of the active method."""
        if state.iteration < self.after:
            return self.first.ask(state.first, noise)
        return self.then.ask(state.second, noise.later(self.after))

    def tell(self, state: Turns, scored: Scored) -> Turns:
        """The active method's update; the second starts at the first one's plan."""
        done, first, second = state.iteration + 1, state.first, state.second
        if done > self.after:
            scored = scored._replace(noise=scored.noise.later(self.after))
            second = self.then.tell(second, scored)
            return Turns(done, first, second, second.cost, second.spread)
        first = self.first.tell(first, scored)
        if done == self.after:
            second = self.then.init(self.first.plan(first), second)
        return Turns(done, first, second, first.cost)

    def plan(self, state: Turns) -> Tensor:
        """The plan of the method that was active last."""
        second = state.iteration > self.after
        return self.then.plan(state.second) if second else self.first.plan(state.first)


class LagrangianState(NamedTuple):
    """The wrapped method's state, the multipliers, and the best candidate."""

    inner: Any
    multiplier: Tensor  #: [B, C], λ ≥ 0
    penalty: Tensor  #: [B], ρ
    broken: Tensor  #: [B], largest max(c, 0) at the last update
    total: Tensor  #: [B], least cost with penalties since the last update
    limits: Tensor  #: [B, C], the constraints there
    nominal: Tensor  #: [B, H, A], the best candidate so far
    cost: Tensor  #: [B], its cost, without penalties
    violation: Tensor  #: [B], how far its worst constraint is beyond `tolerance`; 0 if feasible
    before: Tensor  #: [B, H, A], the best candidate at the last update
    spread: Tensor  #: [B], how far it moved between two updates; inf while infeasible
    since: int = 0  #: iteration of the wrapped method's last restart
    descends: bool = False  #: whether gradients were used since the last update


@dataclass(frozen=True)
class AugmentedLagrangian:
    """Least cost subject to c(a) ≤ 0, for any method.

        method minimises  cost + ρ/2 Σ_j max(0, λ_j/ρ + c_j)² − Σ_j λ_j²/2ρ
        every `every` iterations:  λ_j ← max(0, λ_j + ρ c_j),  ρ ← γρ where c stays broken

    Choose it when a plan must satisfy a constraint, not only pay for breaking it; a fixed weight
    would have to be very large. The plan is the cheapest candidate so far whose constraints hold up
    to `tolerance`, or else the one that breaks them least: read `LagrangianState.violation` in a
    callback before you trust it. Wrap the method directly, because `BestSoFar` outside would not
    know the constraints. The next control step keeps λ and what the wrapped method keeps. It may
    have its own constraint with as many rows: `controller.act(cost, method=replace(method,
    constraint=…))`.

    After an update a sampling method starts again from its plan, because its spread has shrunk. A
    gradient method goes on, because a new Adam begins with long steps. A constraint "stays broken"
    if two updates in a row remove less than half of c: an optimizer may still swing through c = 0.

    Source: Hestenes (1969), Powell (1969); inequality form: Nocedal & Wright, Numerical
        Optimization, Section 17.4, whose rule for ρ expects a converged method at each update.
    """

    method: Method[Any]  #: Any method.
    constraint: Cost  #: [B, S, H, A] -> [B, S, C], satisfied where ≤ 0; once per iteration.
    #: Iterations between updates of λ. A gradient method with one start needs more than half of it.
    every: int = 10
    #: ρ at the start, in units of cost per squared constraint; scale it with the cost.
    penalty: float = 10.0
    growth: float = 2.0  #: γ, at least 1.
    tolerance: float = 1e-3  #: Largest c that still counts as satisfied.

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")
        calls("constraint", self.constraint, "[B, S, H, A] -> [B, S, C]")
        integer("every", self.every, 1)
        numbers(self, penalty="(0, inf)", growth="[1, inf)", tolerance="[0, inf)")

    @property
    def discrete(self) -> bool:
        """As the wrapped method."""
        return self.method.discrete

    def init(
        self, plan: Tensor, previous: LagrangianState | None = None, steps: int = 0
    ) -> LagrangianState:
        """No multipliers yet, or those of the last search."""
        inner, inf = self.method.init(plan, previous and previous.inner, steps), unscored(plan)
        none = plan.new_zeros(len(plan), 1)
        λ, ρ = previous.multiplier if previous else none, torch.full_like(inf, self.penalty)
        return LagrangianState(inner, λ, ρ, none[:, 0], inf, none, plan, inf, inf, plan, inf)

    def ask(self, state: LagrangianState, noise: Noise) -> Tensor:
        """Candidates of the wrapped method."""
        return self.method.ask(state.inner, noise.later(state.since))

    def tell(self, state: LagrangianState, scored: Scored) -> LagrangianState:
        """Add the penalties, update the method, and the multipliers when it is time."""
        a, costs, grads = scored.candidates, scored.costs, scored.grads
        λ, ρ = state.multiplier[:, None], state.penalty[:, None, None]
        wants_grad = grads.numel() > 0
        with torch.set_grad_enabled(wants_grad):
            leaf = a.detach().requires_grad_(wants_grad)
            c = self.constraint(leaf)
            C, (B, S), shape = λ.shape[-1], a.shape[:2], list(c.shape)
            fits = len(shape) == 3 and shape[:2] == [B, S]
            require(fits, f"constraint must map {list(a.shape)} to [{B}, {S}, C], got {shape}")
            require(C in (1, shape[2]), f"constraint must keep its C = {C}, got {shape[2]}")
            added = (ρ / 2 * (λ / ρ + c).clamp_min(0).square() - λ.square() / (2 * ρ)).sum(-1)
            if wants_grad:
                grads = grads + torch.autograd.grad(added.sum(), leaf)[0].nan_to_num(0, 0, 0)
        # A constraint that is not finite counts as broken.
        c = c.detach().nan_to_num(torch.inf, torch.inf, -torch.inf)
        total = (costs + added.detach()).nan_to_num(torch.inf, torch.inf, torch.inf)
        inner = Scored(a, total, grads, scored.noise.later(state.since))
        least, index = total.min(1)
        limits = c.take_along_dim(index[:, None, None], 1)[:, 0]
        cheaper = least < state.total
        # The best candidate of this iteration: least violation, then least cost.
        worst = c.amax(-1)
        violations = torch.where(worst <= self.tolerance, 0.0, worst)
        violations = torch.where(costs.isinf(), torch.inf, violations)
        violation = violations.amin(1)
        cost, index = torch.where(violations == violation[:, None], costs, torch.inf).min(1)
        equal = violation == state.violation
        better = (violation < state.violation) | (equal & (cost < state.cost))
        state = state._replace(
            inner=self.method.tell(state.inner, inner),
            total=torch.where(cheaper, least, state.total),
            limits=torch.where(cheaper[:, None], limits, state.limits),
            nominal=torch.where(better[:, None, None], pick(a, index), state.nominal),
            cost=torch.where(better, cost, state.cost),
            violation=torch.where(better, violation, state.violation),
            descends=state.descends or wants_grad,
        )
        done = scored.noise.iteration + 1
        return state if done % self.every else self._update(state, done)

    def plan(self, state: LagrangianState) -> Tensor:
        """The best candidate so far."""
        return state.nominal

    def _update(self, state: LagrangianState, done: int) -> LagrangianState:
        """New multipliers, from the constraints at the cheapest candidate since the last update."""
        λ, ρ, c = state.multiplier, state.penalty[:, None], state.limits
        broken = c.amax(-1).clamp_min(0)
        stays = broken > torch.clamp(0.5 * state.broken, min=self.tolerance)
        stays &= state.broken > self.tolerance
        moved = (state.nominal - state.before).abs().amax((1, 2))
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
        return state._replace(inner=inner, since=done)
