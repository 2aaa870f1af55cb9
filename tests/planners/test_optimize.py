"""The loop: shapes, bounds, broken costs, callbacks, compilation, any size of batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planners import (
    CEM,
    MPPI,
    Bounds,
    CategoricalCEM,
    GradientDescent,
    Plan,
    Progress,
    optimize,
)

from .known import quadratic

SAMPLERS = [CEM(16, 4), MPPI(16, 0.5, top_k=5, adapt_std=True)]


def bowl(candidates: Tensor) -> Tensor:
    """|a|², summed along memory: the same bits in any batch."""
    return candidates.square().flatten(2).contiguous().sum(-1)


@given(
    st.sampled_from(SAMPLERS),
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(1, 25),
    st.integers(0, 2**31),
    st.data(),
)
def test_plans_have_the_same_bits_in_every_batch(
    method: CEM | MPPI, B: int, H: int, A: int, seed: int, data: st.DataObject
) -> None:
    """For any sizes, planning all problems or some of them in any order gives equal bits."""
    start = torch.linspace(-2, 2, B * H * A).view(B, H, A)
    seeds = torch.arange(B) + seed
    order = torch.tensor(data.draw(st.permutations(range(B))))
    order = order[: data.draw(st.integers(1, B))]
    whole = optimize(method, bowl, start, iterations=2, seed=seeds)
    part = optimize(method, bowl, start[order], iterations=2, seed=seeds[order])
    assert torch.equal(part.actions, whole.actions[order])
    assert torch.equal(part.spread, whole.spread[order])
    assert torch.equal(part.history, whole.history[:, order])


@given(
    st.sampled_from([CEM(8, 2, init_std=3.0), MPPI(8, std=3.0), GradientDescent(num_restarts=2)]),
    st.lists(st.tuples(st.floats(-3, 3), st.floats(0, 3)), min_size=1, max_size=3),
    st.floats(-2, 2),
    st.floats(0.1, 5),
    st.integers(1, 3),
)
@pytest.mark.filterwarnings("ignore:most candidates")
def test_the_box_is_kept_in_the_environments_units(
    method: CEM, box: list[tuple[float, float]], mean: float, std: float, block: int
) -> None:
    """Whatever box, normalisation and block: each scored action, undone, lies in the box."""
    low = torch.tensor([edge for edge, _ in box])
    high = torch.tensor([edge + width for edge, width in box])
    bounds = Bounds(low, high, mean=mean, std=std)
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return bowl(candidates)

    start = torch.full((2, 3, len(box) * block), 0.3)
    plan = optimize(method, cost, start, iterations=3, bounds=bounds)
    for actions in (*seen, plan.actions):
        raw = actions.double() * std + mean
        slack = 1e-5 * (1 + raw.abs().max())
        assert (raw >= low.double().repeat(block) - slack).all()
        assert (raw <= high.double().repeat(block) + slack).all()
    inside = bounds.to_environment(plan.actions)
    assert (inside >= low.repeat(block)).all()
    assert (inside <= high.repeat(block)).all()


def test_the_history_is_the_plans_cost_over_time() -> None:
    """history[i] is what `cost` would be after i + 1 iterations."""
    start = torch.ones(3, 2, 2)
    plan = optimize(CEM(16, 4), bowl, start, iterations=4)
    for i in range(1, 4):
        assert torch.equal(
            optimize(CEM(16, 4), bowl, start, iterations=i).cost, plan.history[i - 1]
        )
    assert torch.equal(plan.cost, plan.history[-1])


def test_the_spread_is_that_of_the_last_candidates() -> None:
    """Plan.spread is the standard deviation over the samples of the last iteration."""
    last: list[Tensor] = []
    plan = optimize(
        CEM(16, 4),
        bowl,
        torch.ones(3, 2, 2),
        iterations=3,
        callback=lambda progress: last.append(progress.candidates),
    )
    torch.testing.assert_close(plan.spread, last[-1].std(1, correction=0))


def test_a_callback_sees_every_iteration() -> None:
    """It gets candidates, costs, plan and state, and what it sees last is what is returned."""
    seen: list[Progress] = []
    problem = quadratic(2)
    plan = optimize(CEM(), problem.cost, problem.start, iterations=5, callback=seen.append, seed=3)
    assert [progress.iteration for progress in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[-1].plan, plan.actions)
    for progress in seen:
        assert torch.equal(problem.cost(progress.candidates), progress.costs)
    assert torch.equal(torch.stack([p.state.cost for p in seen]), plan.history)


def test_an_int_seed_is_a_seed_per_problem() -> None:
    """Two equal problems of one call search differently; two seeds do too."""
    start = torch.zeros(2, 2, 2)
    plan = optimize(MPPI(16), bowl, start, iterations=1, seed=5)
    assert not torch.equal(plan.actions[0], plan.actions[1])
    other = optimize(MPPI(16), bowl, start, iterations=1, seed=6)
    assert not torch.equal(plan.actions, other.actions)
    twin = optimize(MPPI(16), bowl, start, iterations=1, seed=torch.tensor([5, 5]))
    assert torch.equal(twin.actions[0], twin.actions[1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_problem_without_a_finite_cost_is_named(value: float) -> None:
    """If all candidates of problems 1 and 3 are worthless, the error says 1 and 3."""

    def cost(candidates: Tensor) -> Tensor:
        costs = bowl(candidates)
        costs[1::2] = value
        return costs

    with pytest.raises(FloatingPointError, match=r"none for problem 1, 3$"):
        optimize(CEM(16, 4), cost, torch.zeros(4, 2, 2), iterations=3)


def test_one_bad_iteration_is_enough() -> None:
    """A problem whose costs were all non-finite once is an error, even if the last were finite."""
    calls = []

    def cost(candidates: Tensor) -> Tensor:
        calls.append(0)
        return bowl(candidates) * (torch.nan if len(calls) == 1 else 1.0)

    with pytest.raises(FloatingPointError, match="problem 0, 1"):
        optimize(CEM(16, 4), cost, torch.zeros(2, 2, 2), iterations=3)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    """Where the gradient is NaN (here |a| at 0) the coordinate stays, the others move on."""

    def cost(candidates: Tensor) -> Tensor:
        return candidates.square().sum(-1).sqrt().sum(-1)

    start = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    plan = optimize(GradientDescent(), cost, start, iterations=5)
    assert torch.equal(plan.actions[0, 0], start[0, 0])
    assert (plan.actions[0, 1] < 1).all()


def test_a_saturated_search_warns() -> None:
    """If most candidates lie on a bound the units are probably wrong, and a warning says so."""
    with pytest.warns(RuntimeWarning, match="lie on a bound") as told:
        optimize(CEM(), bowl, torch.zeros(1, 2, 2), iterations=1, bounds=Bounds(-0.1, 0.1))
    assert told[0].filename == __file__
    # A control that cannot move is not saturated.
    optimize(
        CEM(), bowl, torch.zeros(1, 2, 2), iterations=1, bounds=Bounds([0.0, -9.0], [0.0, 9.0])
    )


def test_wrong_arguments_are_named() -> None:
    """Each disagreement says which argument, the rule, and what came."""
    start = torch.zeros(2, 3, 4)
    with pytest.raises(
        ValueError, match=r"plan must be a float tensor \[B, H, A\], got .* \[3, 4\]"
    ):
        optimize(CEM(), bowl, start[0], iterations=1)
    with pytest.raises(ValueError, match=r"plan must be .* torch.int64"):
        optimize(CEM(), bowl, start.long(), iterations=1)
    with pytest.raises(ValueError, match="iterations must be an integer of at least 1, got 0"):
        optimize(CEM(), bowl, start, iterations=0)
    with pytest.raises(ValueError, match=r"cost must map .* = \[2, 300\], got .* \[2\]"):
        optimize(CEM(), lambda a: bowl(a).sum(1), start, iterations=1)
    with pytest.raises(ValueError, match="bounds must be None for CategoricalCEM"):
        optimize(CategoricalCEM(), bowl, start, iterations=1, bounds=Bounds(0.0, 1.0))
    with pytest.raises(ValueError, match="3 entries, which must divide A, got A = 4"):
        optimize(CEM(), bowl, start, iterations=1, bounds=Bounds([0.0] * 3, [1.0] * 3))


def test_the_start_is_not_written_into() -> None:
    """The caller's plan is as it was, also under in-place methods."""
    start = torch.zeros(1, 2, 2)
    optimize(GradientDescent(), bowl, start + 0, iterations=2)
    kept = start.clone()
    optimize(CEM(16, 4), bowl, start, iterations=2)
    assert torch.equal(start, kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_search_runs_in_the_plans_dtype(dtype: torch.dtype) -> None:
    """Candidates, plan and spread have the dtype of the start."""
    plan = optimize(CEM(16, 4), bowl, torch.ones(2, 2, 2, dtype=dtype), iterations=3)
    assert plan.actions.dtype == plan.spread.dtype == dtype
    assert plan.cost.mean() < 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_whole_loop_is_one_graph() -> None:
    """torch.compile traces `optimize` without a break, and the graph gives the eager plan."""
    problem = quadratic(2)
    bounds = Bounds(-5.0, 5.0)

    def plan(start: Tensor) -> Plan:
        return optimize(CEM(16, 4), problem.cost, start, iterations=3, bounds=bounds, seed=1)

    torch._dynamo.reset()
    compiled = torch.compile(plan, fullgraph=True, backend="aot_eager")(problem.start)
    eager = plan(problem.start)
    assert compiled.stopped == eager.stopped == "iterations"
    for name in ("actions", "cost", "history", "spread"):
        torch.testing.assert_close(getattr(compiled, name), getattr(eager, name))


def test_a_class_and_a_cost_without_tensor_are_named() -> None:
    """CEM for CEM(), and a cost that returns a list, end in one clear error each."""
    plan = torch.zeros(1, 2, 1)
    with pytest.raises(TypeError, match=r"must be an instance such as CEM\(\), got the class"):
        optimize(CEM, quadratic, plan, iterations=1)
    with pytest.raises(TypeError, match=r"cost must return a torch\.Tensor \[B, S\], got list"):
        optimize(CEM(8, 2), lambda _: [0.0], plan, iterations=1)
