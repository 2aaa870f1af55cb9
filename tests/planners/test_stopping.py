"""A search that ends early says why, keeps what it had, and never makes the device wait."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from planners import (
    CEM,
    ICEM,
    AugmentedLagrangian,
    BestSoFar,
    CategoricalCEM,
    GradientDescent,
    Method,
    PredictiveSampling,
    Progress,
    Refine,
    optimize,
)
from planners.optimize import LOOK, Stopping

from .known import constrained, quadratic


def bowl(candidates: Tensor) -> Tensor:
    """|a|², summed along memory."""
    return candidates.square().flatten(2).contiguous().sum(-1)


@pytest.mark.parametrize(
    "method", [CEM(), BestSoFar(CEM()), GradientDescent()], ids=lambda m: type(m).__name__
)
def test_a_settled_search_stops(method: Method[Any]) -> None:
    """Most of 500 iterations are left out, and all of them would have moved the plan no further."""
    problem = quadratic(condition=1.0)
    plan = optimize(method, problem.cost, problem.start, iterations=500, stop=1e-3)
    assert plan.stopped == "converged"
    assert len(plan.history) < 200
    assert len(plan.history) % LOOK == 0
    whole = optimize(method, problem.cost, problem.start, iterations=500)
    assert whole.stopped == "iterations"
    assert len(whole.history) == 500
    assert (plan.actions - whole.actions).abs().max() < 2e-3


@pytest.mark.parametrize(
    "method",
    [
        CEM(40, 8),
        ICEM(40, 8, decay=1.1),
        GradientDescent(),
        Refine(CEM(40, 8), GradientDescent(), after=7),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_problem_stops_alike_in_every_batch(method: Method[Any]) -> None:
    """A problem that has settled keeps its plan, cost and spread while others search on."""
    problem = quadratic(6)
    seeds = torch.arange(6)
    whole = optimize(method, problem.cost, problem.start, iterations=400, stop=0.05, seed=seeds)
    lengths = set()
    for b in range(6):
        one = problem.take(torch.tensor([b]))
        alone = optimize(method, one.cost, one.start, iterations=400, stop=0.05, seed=seeds[[b]])
        lengths.add(len(alone.history))
        for name in ("actions", "cost", "spread"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[b]), (name, b)
    assert len(lengths) > 1
    assert len(whole.history) == max(lengths)


def test_a_search_that_keeps_its_spread_does_not_settle() -> None:
    """Predictive sampling may always find something better; a deadline ends it."""
    plan = optimize(PredictiveSampling(), bowl, torch.zeros(1, 1, 1), iterations=40, stop=0.5)
    assert (plan.stopped, len(plan.history)) == ("iterations", 40)


def test_choices_have_settled_when_they_are_certain() -> None:
    """The best plan is found at once, but the search goes on until its distribution says so."""
    method = CategoricalCEM(200, 20, momentum=0.8, restart=1.0)
    wanted = torch.tensor([0.0, 0.0, 1.0])
    plan = optimize(
        method,
        lambda a: -(a * wanted).sum((-1, -2)),
        torch.zeros(1, 2, 3),
        iterations=200,
        stop=0.05,
    )
    assert plan.stopped == "converged"
    assert plan.history[0] == plan.history[-1]
    assert len(plan.history) > 2 * LOOK
    assert plan.state.probability.amax(-1).min() > 0.95


def test_a_wrapper_is_not_settled_before_its_work_is_done() -> None:
    """Refine has its second turn, and prices of constraints are found, however still a plan is."""
    problem = quadratic()
    both = Refine(CEM(), GradientDescent(), after=60)
    assert len(optimize(both, problem.cost, problem.start, iterations=300, stop=0.1).history) > 60
    limited, states = constrained(), []

    def watch(progress: Progress) -> None:
        states.append(progress.state)

    wrapped = AugmentedLagrangian(CEM(), limited.limit, every=15)
    plan = optimize(wrapped, limited.cost, limited.start, iterations=600, stop=3e-3, callback=watch)
    assert plan.stopped == "converged"
    assert plan.state.violation.max() == 0
    assert (plan.actions - limited.minimiser).abs().max() < 0.02
    assert len(states) > 2 * 15


def test_a_deadline_returns_what_there_is_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With iterations of 20, then 60 ms and 0.21 s, five are done: the sixth would be too long."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow(candidates: Tensor) -> Tensor:
        clock[0] += 0.02 if clock[0] < 0.05 else 0.06
        return bowl(candidates)

    plan = optimize(CEM(16, 4), slow, torch.ones(1, 2, 1), iterations=500, deadline=0.21)
    assert (plan.stopped, len(plan.history)) == ("deadline", 5)
    assert clock[0] == pytest.approx(0.18)
    same = optimize(CEM(16, 4), bowl, torch.ones(1, 2, 1), iterations=5)
    assert torch.equal(plan.actions, same.actions)


def test_the_clock_runs() -> None:
    """Without a clock of ones own the process's counts: a search of hours ends at once."""
    plan = optimize(CEM(16, 4), bowl, torch.ones(1, 2, 1), iterations=10**8, deadline=0.05)
    assert plan.stopped == "deadline"


def test_one_iteration_is_always_done() -> None:
    """A deadline that no iteration can meet still gives a plan."""
    plan = optimize(CEM(16, 4), bowl, torch.ones(1, 2, 1), iterations=5, deadline=1e-9)
    assert (plan.stopped, len(plan.history)) == ("deadline", 1)


class Spread(NamedTuple):
    """All of a state that is looked at."""

    spread: float


class Device:
    """A queue of work with a clock: each iteration takes 10 ms there, and no time on the host."""

    def __init__(self) -> None:
        self.queued, self.now, self.launched = 0.0, 0.0, 0
        self.waits: list[int] = []

    def launch(self) -> None:
        """One more iteration behind what is queued."""
        self.launched += 1
        self.queued = max(self.queued, self.now) + 0.01

    def mark(self) -> Any:
        """A mark of this device, at the end of its queue once recorded."""
        device = self

        class Mark:
            at, iteration = 0.0, 0

            def record(self) -> None:
                self.at, self.iteration = device.queued, device.launched

            def query(self) -> bool:
                return device.now >= self.at

            def synchronize(self) -> None:
                if not self.query():
                    device.waits.append(device.launched - self.iteration)
                    device.now = self.at

        return Mark()


def test_the_host_never_waits_for_the_last_iterations() -> None:
    """It reads the answer of the look before, so LOOK iterations stay queued, and stops later."""
    device = Device()
    start = torch.zeros(2, 1, 1)
    stopping = Stopping(0.1, None, start, marks=device.mark)
    settles = 23
    for done in range(1, 100):
        device.launch()
        far = torch.full_like(start, 0.0 if done >= settles else float(done))
        kept = (Spread(0.0), torch.tensor([done, done]))
        if stopping.over(done, lambda x=far: x, lambda x=kept: x) == "converged":  # type: ignore[misc]
            break
    # The plan rests from 23 on: seen to move at 25, at rest at 30, and read at 35.
    assert done == 35
    assert device.waits
    assert min(device.waits) >= LOOK
    _, numbers = stopping.result(kept)
    assert numbers.tolist() == [30, 30]


def test_the_clock_counts_what_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host runs ahead of the device, yet all that it has queued ends before the deadline."""
    device = Device()
    monkeypatch.setattr(time, "perf_counter", lambda: device.now)
    start = torch.zeros(1, 1, 1)
    stopping = Stopping(None, 0.1, start, marks=device.mark)
    for done in range(1, 500):
        device.launch()
        # Launching takes a tenth of the time that the device needs.
        device.now += 0.001
        if stopping.over(done, lambda: start, lambda: ()) == "deadline":
            break
    assert device.queued <= 0.1 + 1e-9
    assert 8 <= done <= 10
    assert len(device.waits) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_graph_cannot_stop() -> None:
    """A compiled search refuses both, because nothing in it can ask the host."""

    def plan(start: Tensor, **given: float) -> Tensor:
        return optimize(CEM(8, 2), bowl, start, iterations=2, **given).actions  # type: ignore[arg-type]

    compiled = torch.compile(plan, backend="eager")
    with pytest.raises(Exception, match="stop and deadline must be None"):
        compiled(torch.zeros(1, 1, 1), stop=0.1)


@pytest.mark.parametrize("name", ["stop", "deadline"])
def test_nonsense_is_refused(name: str) -> None:
    """Zero, NaN and words are no tolerance and no time."""
    for value in (0.0, float("nan"), -1):
        with pytest.raises(ValueError, match=rf"{name} must be a number in \(0, inf\)"):
            optimize(CEM(), bowl, torch.zeros(1, 1, 1), iterations=2, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        optimize(CEM(), bowl, torch.zeros(1, 1, 1), iterations=2, **{name: "soon"})  # type: ignore[arg-type]
