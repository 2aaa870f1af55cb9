"""What holds for every method: a new one is one line in METHODS."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from planners import (
    CEM,
    GRASP,
    ICEM,
    MPPI,
    AugmentedLagrangian,
    BestSoFar,
    CategoricalCEM,
    Colored,
    GradientDescent,
    Integrated,
    Kernel,
    Plan,
    PredictiveSampling,
    Progress,
    Proposals,
    Refine,
    SimplexGradient,
    optimize,
)
from planners._record import take_apart

from . import known
from .known import Problem


@dataclass(frozen=True)
class Case:
    """A method, made for a problem, and how close to the minimum it must come.

    `small` is the same method on a budget, for truths that need no convergence, and `operations`
    what an iteration of it launches beside the cost, on average.
    """

    name: str
    problem: Callable[..., Problem]
    build: Callable[[Problem], Any]
    iterations: int
    regret: float
    small: Callable[[Problem], Any]
    operations: int


def grasp(problem: Problem, **settings: Any) -> GRASP:
    """GRASP on `reach`, whose dynamics are s + a from 0."""
    (goal,) = problem.parameters
    return GRASP(lambda s, a: s + a, torch.zeros_like(goal), goal, **settings)


def around(problem: Problem) -> Tensor:
    """Two proposals per problem: one near the minimum, and its opposite."""
    # A problem without data has a minimiser with data, on the host.
    near = 0.9 * (problem.start if problem.start.is_meta else problem.minimiser)
    return torch.stack([-near, near], dim=1)


def fixed(method: Any) -> Callable[[Problem], Any]:
    """A method that does not depend on the problem."""
    return lambda problem: method


METHODS = [
    Case("CEM", known.quadratic, fixed(CEM()), 30, 1e-8, fixed(CEM(20, 5, momentum=0.1)), 24),
    Case(
        "CEM best",
        known.active_bounds,
        fixed(CEM(returns="best")),
        30,
        1e-6,
        fixed(CEM(20, 5, returns="best", keep_mean=False, min_std=0.1)),
        19,
    ),
    Case(
        "ICEM",
        known.quadratic,
        fixed(ICEM(num_elites=30, init_std=1.0, beta=0.5, decay=1.0)),
        30,
        1e-6,
        fixed(ICEM(30, 4)),
        36,
    ),
    Case("MPPI", known.active_bounds, fixed(MPPI(1000, 0.02, 0.3)), 60, 0.02, fixed(MPPI(20)), 17),
    Case(
        "MPPI top-k",
        known.linear_quadratic,
        fixed(MPPI(500, 0.05, 0.3, top_k=64)),
        60,
        0.02,
        fixed(MPPI(20, top_k=4, adapt_std=True, min_std=0.05)),
        26,
    ),
    Case(
        "smooth MPPI",
        known.reach,
        fixed(MPPI(300, 0.05, 0.5, correlation=Integrated())),
        30,
        0.02,
        fixed(MPPI(20, correlation=Integrated())),
        25,
    ),
    Case(
        "kernel MPPI",
        known.reach,
        fixed(MPPI(300, 0.05, 0.5, correlation=Kernel(3))),
        30,
        0.02,
        fixed(MPPI(20, correlation=Kernel(3))),
        21,
    ),
    Case(
        "PredictiveSampling",
        known.linear_quadratic,
        fixed(PredictiveSampling(std=0.1)),
        60,
        0.02,
        fixed(PredictiveSampling(20, correlation=Colored(1.0))),
        23,
    ),
    Case(
        "GradientDescent",
        known.valley,
        fixed(GradientDescent()),
        150,
        1e-3,
        fixed(GradientDescent(num_restarts=3, noise_std=0.1)),
        40,
    ),
    Case(
        "GradientDescent restarts",
        known.two_basins,
        fixed(GradientDescent(num_restarts=16, init_std=2.0)),
        80,
        2e-3,
        fixed(GradientDescent(num_restarts=3)),
        40,
    ),
    Case(
        "Refine",
        known.two_basins,
        fixed(Refine(CEM(init_std=2.0), GradientDescent(), after=10)),
        60,
        2e-3,
        fixed(Refine(CEM(20, 5), GradientDescent(num_restarts=2), after=2)),
        40,
    ),
    Case(
        "GRASP",
        known.reach,
        grasp,
        60,
        0.01,
        lambda problem: grasp(problem, num_restarts=2, lifted_iterations=2, lifted_steps=3),
        40,
    ),
    Case(
        "AugmentedLagrangian",
        known.constrained,
        lambda problem: AugmentedLagrangian(CEM(), problem.limit, every=15),
        90,
        0.01,
        lambda problem: AugmentedLagrangian(
            GradientDescent(num_restarts=3), problem.limit, every=2
        ),
        105,
    ),
    Case(
        "CategoricalCEM",
        known.chain,
        fixed(CategoricalCEM()),
        10,
        1e-6,
        fixed(CategoricalCEM(20, 5)),
        37,
    ),
    Case(
        "SimplexGradient",
        known.chain,
        fixed(SimplexGradient()),
        30,
        1e-6,
        fixed(SimplexGradient(num_restarts=4)),
        35,
    ),
    Case(
        "BestSoFar",
        known.valley,
        fixed(BestSoFar(PredictiveSampling(std=0.05))),
        80,
        0.05,
        fixed(BestSoFar(MPPI(20))),
        23,
    ),
    Case(
        "Proposals",
        known.two_basins,
        lambda problem: Proposals(CEM(64, 8, init_std=0.5), around(problem)),
        40,
        2e-3,
        lambda problem: Proposals(CEM(20, 5, min_std=0.05), around(problem)),
        40,
    ),
]
EVERY = pytest.mark.parametrize("case", METHODS, ids=[case.name for case in METHODS])


def search(method: Any, problem: Problem, iterations: int, **given: Any) -> Plan:
    """`optimize`, without the warning that a known minimiser lies on the bounds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "most candidates", RuntimeWarning)
        return optimize(
            method,
            given.pop("cost", problem.cost),
            problem.start,
            iterations=iterations,
            bounds=problem.bounds,
            **given,
        )


def same(a: Plan, b: Plan) -> bool:
    """Whether two plans are equal bit for bit in every field."""
    ours, theirs = (take_apart(plan._asdict()) for plan in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@EVERY
def test_reaches_the_known_minimum(case: Case) -> None:
    """With its iterations a method comes as close to the known minimum as it promises."""
    problem = case.problem()
    plan = search(case.build(problem), problem, case.iterations)
    assert problem.regret(plan.actions).max() <= case.regret
    assert plan.actions.shape == problem.start.shape
    assert plan.cost.shape == problem.start.shape[:1]
    assert plan.history.shape == (case.iterations, problem.start.shape[0])
    assert plan.spread.shape == problem.start.shape


@EVERY
def test_every_candidate_and_the_plan_stay_in_bounds(case: Case) -> None:
    """No cost call sees an action outside the box, nor does a discrete one leave the simplex."""
    problem = case.problem()
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return problem.cost(candidates)

    method = case.small(problem)
    if not method.discrete:
        problem = replace(problem, bounds=known.Bounds(-0.25, 0.5))
    plan = search(method, problem, 5, cost=cost)
    for actions in (*seen, plan.actions):
        if method.discrete:
            assert actions.min() >= 0
            torch.testing.assert_close(actions.sum(-1), torch.ones_like(actions[..., 0]))
        else:
            assert actions.min() >= -0.25
            assert actions.max() <= 0.5


@EVERY
def test_a_box_without_zero_is_searched(case: Case) -> None:
    """In [5, 10] a search from zeros begins inside and finds a minimum that is not at an edge."""
    problem = known.far_box()
    method, first = case.build(problem), []
    if method.discrete:
        pytest.skip("choices have no bounds")

    def cost(candidates: Tensor) -> Tensor:
        first.append(candidates.detach())
        return problem.cost(candidates)

    plan = search(method, problem, case.iterations, cost=cost)
    inside = (first[0] > 5) & (first[0] < 10)
    assert inside.double().mean() > 0.5
    assert problem.regret(plan.actions).max() < 0.1


@EVERY
def test_a_control_can_be_held_at_a_value(case: Case) -> None:
    """Where low and high are equal no candidate and no plan has another value, to the last bit."""
    problem = replace(known.reach(), constraint=known.constrained().constraint)
    method, seen = case.small(problem), []
    if method.discrete:
        pytest.skip("choices have no bounds")

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return problem.cost(candidates)

    box = known.Bounds([-1.0, 0.3], [1.0, 0.3], mean=[0.0, 0.1], std=[1.0, 0.7])
    plan = search(method, replace(problem, bounds=box), 5, cost=cost)
    held = box.box(plan.actions)[0][1]
    for actions in (*seen, plan.actions):
        assert (actions[..., 1] == held).all()
        assert actions[..., 0].unique().numel() > 1
    assert (box.to_environment(plan.actions)[..., 1] == torch.tensor(0.3)).all()


@EVERY
def test_committed_actions_are_the_first_of_every_plan(case: Case) -> None:
    """What is being executed leads every candidate and the plan, whatever the method asks for."""
    problem = case.problem(3)
    committed = problem.minimiser[:, :1]
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return problem.cost(candidates)

    plan = search(case.small(problem), problem, 5, cost=cost, committed=committed)
    for actions in (*seen, plan.actions[:, None]):
        assert (actions[:, :, :1] == committed[:, None]).all()


@EVERY
def test_a_state_that_was_told_nothing_is_as_none(case: Case) -> None:
    """A search that goes on from such a state is a new search, bit for bit."""
    problem = case.problem(3)
    method = case.small(problem)
    new = search(method, problem, 4)
    untold = method.init(torch.zeros_like(problem.start))
    if problem.start.abs().max() == 0:
        assert same(new, search(method, problem, 4, previous=untold, steps=1))
    assert same(new, search(method, problem, 4, previous=untold))


@EVERY
def test_a_search_can_go_on(case: Case) -> None:
    """From the last state, shifted or not, the plan is finite and no worse than the start."""
    problem = case.problem(4)
    method = case.small(problem)
    first = search(method, problem, 4)
    for steps in (0, 1):
        again = search(method, problem, 4, previous=first.state, steps=steps, seed=1)
        assert again.actions.isfinite().all()
        assert again.history.isfinite().all()
        assert problem.regret(again.actions).mean() <= problem.regret(problem.start).mean()


@EVERY
def test_no_helper_is_made_on_the_default_device(case: Case) -> None:
    """Under a default device other than the plan's, a search gives the same bits."""
    problem = case.problem(2)
    method = case.small(problem)
    plain = search(method, problem, 5)
    with torch.device("meta"):
        assert same(plain, search(method, problem, 5))


@EVERY
def test_the_same_seed_gives_the_same_plan(case: Case) -> None:
    """A plan is a function of its arguments: repeated bit for bit, whatever the global seed is."""
    problem = case.problem(3)
    torch.manual_seed(1)
    first = search(case.small(problem), problem, 5, seed=7)
    torch.manual_seed(2)
    assert same(first, search(case.small(problem), problem, 5, seed=7))


@EVERY
def test_the_global_generator_is_never_touched(case: Case) -> None:
    """Planning neither draws from torch's generator nor seeds it."""
    problem = case.problem(3)
    before = torch.random.get_rng_state()
    search(case.small(problem), problem, 5)
    assert torch.equal(before, torch.random.get_rng_state())


@EVERY
def test_a_hundred_problems_at_once_are_a_hundred_alone(case: Case) -> None:
    """Problem b has the same bits alone, among 100, and in another order."""
    problem = case.problem(100)
    seed = torch.arange(100) * 13 + 5
    together = search(case.small(problem), problem, 5, seed=seed)
    order = torch.arange(99, -1, -1)
    turned = search(case.small(problem.take(order)), problem.take(order), 5, seed=seed[order])
    for b in range(100):
        only = torch.tensor([b])
        alone = search(case.small(problem.take(only)), problem.take(only), 5, seed=seed[only])
        for name in ("actions", "cost", "spread"):
            bits = getattr(together, name)[b]
            assert torch.equal(getattr(alone, name)[0], bits), f"{name} of problem {b} alone"
            assert torch.equal(getattr(turned, name)[99 - b], bits), f"{name} of {b} reversed"
        assert torch.equal(alone.history[:, 0], together.history[:, b])


@EVERY
def test_a_problem_ignores_the_other_problems(case: Case) -> None:
    """Making another problem's costs useless leaves this one's plan as it was."""
    problem = case.problem(2)

    def disturbed(candidates: Tensor) -> Tensor:
        return problem.cost(candidates) * torch.tensor([[1.0], [-3.0]])

    plan = search(case.small(problem), problem, 5)
    other = search(case.small(problem), problem, 5, cost=disturbed)
    assert torch.equal(plan.actions[0], other.actions[0])
    assert torch.equal(plan.history[:, 0], other.history[:, 0])


@EVERY
def test_one_cost_call_per_iteration(case: Case) -> None:
    """The cost is called once per iteration, for all problems and candidates together."""
    problem = case.problem(3)
    sizes: list[tuple[int, ...]] = []

    def cost(candidates: Tensor) -> Tensor:
        sizes.append(tuple(candidates.shape))
        return problem.cost(candidates)

    search(case.small(problem), problem, 6, cost=cost)
    assert len(sizes) == 6
    assert {(B, H, A) for B, _, H, A in sizes} == {tuple(problem.start.shape)}


@EVERY
def test_a_constant_added_to_the_cost_changes_nothing(case: Case) -> None:
    """Only differences between costs matter."""
    problem = case.problem(3)
    problem = replace(
        problem,
        parameters=tuple(parameter.double() for parameter in problem.parameters),
        start=problem.start.double(),
    )
    plan = search(case.small(problem), problem, 5)
    raised = search(case.small(problem), problem, 5, cost=lambda a: problem.cost(a) + 100.0)
    torch.testing.assert_close(raised.actions, plan.actions, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(raised.cost, plan.cost + 100.0)


@EVERY
def test_best_so_far_never_gets_worse(case: Case) -> None:
    """Under BestSoFar the history never rises and the plan's cost is the least ever scored."""
    problem = case.problem(4)
    if problem.constraint is not None:
        problem = replace(problem, constraint=lambda a, t: known._sum(a, 2)[..., None] - 1e9)
    least: list[Tensor] = []

    def watch(progress: Progress) -> None:
        least.append(progress.costs.amin(1))

    plan = search(BestSoFar(case.small(problem)), problem, 8, callback=watch)
    assert (plan.history.diff(dim=0) <= 0).all()
    assert torch.equal(plan.cost, torch.stack(least).amin(0))
    torch.testing.assert_close(problem.cost(plan.actions[:, None])[:, 0], plan.cost)


@EVERY
def test_non_finite_costs_are_never_chosen(case: Case) -> None:
    """Candidates without a finite cost are as if they cost most: the plan is finite and good."""
    problem = case.problem(6)
    worst = torch.tensor([torch.nan, torch.inf, -torch.inf])

    def cost(candidates: Tensor) -> Tensor:
        costs = problem.cost(candidates)
        broken = torch.arange(costs.shape[1]) % 4 == 1
        return torch.where(broken, worst[torch.arange(costs.shape[1]) % 3], costs)

    plan = search(case.small(problem), problem, 6, cost=cost)
    assert plan.actions.isfinite().all()
    assert plan.history.isfinite().all()


class Launches(TorchDispatchMode):
    """Counts operations, and keeps those that take data from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.from_host = 0, []

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run it; a host tensor without dimensions travels as an argument, not as a copy."""
        views = ("view", "expand", "select", "slice", "squeeze", "transpose", "detach", "alias")
        if not any(view in str(operation) for view in views):
            self.count += 1
        tensors = [x for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" and x.ndim for x in tensors):
            self.from_host.append(str(operation))
        return operation(*args, **(kwargs or {}))


@EVERY
def test_nothing_in_the_loop_asks_for_a_number(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without data no step waits for the device, or hands it data of the host.

    An iteration launches no more operations than stand in the table; torch's optimizers have some
    to spare, because their number is torch's.
    """
    problem = case.problem(2)
    empty = replace(
        problem,
        parameters=tuple(parameter.to("meta") for parameter in problem.parameters),
        start=problem.start.to("meta"),
    )
    # The two questions after the loop do ask.
    monkeypatch.setattr(sys.modules["planners.optimize"], "_check", lambda *_: None)

    def launches(iterations: int) -> Launches:
        with Launches() as counted:
            plan = search(case.small(empty), empty, iterations, cost=lambda a: a[:, :, 0, 0] * 1.0)
        assert plan.actions.is_meta
        assert plan.actions.shape == problem.start.shape
        return counted

    launches(24)
    few, many = launches(8), launches(24)
    assert many.from_host == []
    assert (many.count - few.count) / 16 <= case.operations


def test_every_public_method_is_in_the_suite() -> None:
    """Whatever in planners.__all__ can ask and tell is tested above."""
    import planners

    asked = {
        name
        for name in planners.__all__
        if isinstance(getattr(planners, name), type) and name not in ("Method", "MPC")
        if "ask" in vars(getattr(planners, name))
    }
    problem = known.constrained()
    tested = {type(case.build(case.problem())).__name__ for case in METHODS}
    assert asked == tested
    assert problem.multiplier is not None
