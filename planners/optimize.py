"""The one loop: ask, project to the bounds, score, tell."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from planners._common import spread
from planners.contract import Bounds, Cost, Method, Plan, Progress, Scored, StateT
from planners.noise import Noise, Stream, problem_seeds

__all__ = ["optimize", "run"]

_INF = float("inf")


def optimize(
    method: Method[StateT],
    cost: Cost,
    plan: Tensor,
    *,
    iterations: int,
    bounds: Bounds | None = None,
    seed: int | Tensor = 0,
    callback: Callable[[Progress], None] | None = None,
) -> Plan:
    """Search for the actions of least cost, for B problems at once.

    The cost is called once per iteration, always with the same shape, and nothing inside the loop
    waits for the device: the whole call can be compiled or captured as a CUDA graph. Problems do
    not see each other: a problem's plan is the same alone, in a batch, or in another order.

    Args:
        method: which planner, with its hyperparameters.
        cost: [B, S, H, A] -> [B, S]. Non-finite costs count as the worst and are never chosen.
        plan: [B, H, A], where the search starts; its dtype and device are the search's.
        iterations: how many times the cost is called, at least 1.
        bounds: box of allowed actions, honoured by every candidate and by the result.
        seed: an int, from which each of the B problems gets its own stream, or [B] integers, the
            streams themselves. The global generator is never touched.
        callback: called after each iteration.
    Returns: Plan.

    Raises:
        TypeError: if `method` is a class, or the cost returns no tensor.
        ValueError: on disagreeing shapes, or bounds for a discrete method.
        FloatingPointError: if all costs of a problem were non-finite in some iteration; it names
            the problems. Checked once, after the loop, and left out while a CUDA graph is
            captured or the call is compiled: there, look for inf in `Plan.history`.
    Warns: RuntimeWarning if most of the last iteration's candidates lie on a bound.
    """
    if isinstance(method, type):
        raise TypeError(f"method must be an instance such as {method.__name__}(), got the class")
    if plan.ndim != 3 or not plan.is_floating_point():
        raise ValueError(f"plan must be [B, H, A] floats, got {list(plan.shape)} {plan.dtype}")
    streams = problem_seeds(seed, plan.shape[0], plan.device)
    with torch.no_grad():
        state = method.init(plan.detach())
    return run(method, cost, state, plan, iterations, bounds, streams, callback)[0]


def run(
    method: Method[StateT],
    cost: Cost,
    state: StateT,
    plan: Tensor,
    iterations: int,
    bounds: Bounds | None,
    streams: Tensor,
    callback: Callable[[Progress], None] | None = None,
) -> tuple[Plan, StateT]:
    """`optimize` from a given state; also returns the last state.

    Args:
        method: as in `optimize`.
        cost: as in `optimize`.
        state: where `method` starts.
        plan: [B, H, A], for its shape, dtype and device.
        iterations: as in `optimize`.
        bounds: as in `optimize`.
        streams: [B], int64, one seed per problem.
        callback: as in `optimize`.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if bounds is not None and method.discrete:
        raise ValueError(f"bounds must be None for {method}: its actions are choices")
    box = None if bounds is None else bounds.box(plan)
    stream = Stream(streams)
    lowest: list[Tensor] = []
    history: list[Tensor] = []
    with torch.no_grad():
        for i in range(iterations):
            noise = Noise(stream, i)
            asked = method.ask(state, noise)
            candidates = _project(asked.detach(), box)
            costs, grads = _score(cost, candidates, asked.requires_grad)
            state = method.tell(state, Scored(candidates, costs, grads, noise))
            lowest.append(costs.amin(1))
            history.append(state.cost)
            if callback is not None:
                here = _project(method.plan(state), box)
                callback(Progress(i, candidates, costs, here, state))
        result = Plan(
            actions=_project(method.plan(state), box),
            cost=state.cost,
            history=torch.stack(history),
            spread=spread(candidates),
        )
        if not _in_graph(plan):
            _check(torch.stack(lowest), candidates, box)
    return result, state


def _project(actions: Tensor, box: tuple[Tensor, Tensor] | None) -> Tensor:
    return actions if box is None else torch.clamp(actions, box[0], box[1])


def _score(cost: Cost, candidates: Tensor, needs_grad: bool) -> tuple[Tensor, Tensor]:
    grads = candidates.new_empty(0)
    if needs_grad:
        with torch.enable_grad():
            leaf = candidates.detach().requires_grad_()
            costs = cost(leaf)
            # The sum of all costs: a candidate's cost depends on its own actions alone.
            (grads,) = torch.autograd.grad(costs.sum(), leaf)
        grads = grads.nan_to_num(0.0, 0.0, 0.0)
        costs = costs.detach()
    else:
        costs = cost(candidates)
    if not isinstance(costs, Tensor):
        raise TypeError(f"cost must return a torch.Tensor [B, S], got {type(costs).__name__}")
    if costs.shape != candidates.shape[:2]:
        raise ValueError(
            f"cost must map [B, S, H, A] = {list(candidates.shape)} to [B, S] = "
            f"{list(candidates.shape[:2])}, got {list(costs.shape)}"
        )
    return costs.nan_to_num(_INF, _INF, _INF), grads


def _in_graph(plan: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return True
    return plan.is_cuda and torch.cuda.is_current_stream_capturing()


def _check(lowest: Tensor, candidates: Tensor, box: tuple[Tensor, Tensor] | None) -> None:
    """The two questions that need the host: asked once, after the loop."""
    dead = lowest.isinf().any(0)
    stuck = dead.new_zeros(())
    if box is not None:
        free = box[0] < box[1]
        on_bound = ((candidates <= box[0]) | (candidates >= box[1])) & free
        stuck = on_bound.sum() * 2 > free.expand_as(candidates).sum()
    any_dead, any_stuck = torch.stack([dead.any(), stuck]).tolist()
    if any_dead:
        problems = dead.nonzero().flatten().tolist()
        raise FloatingPointError(
            f"cost must be finite for at least one candidate of each problem, got none for "
            f"problem {', '.join(map(str, problems))}"
        )
    if any_stuck:
        warnings.warn(
            "most candidates of the last iteration lie on a bound: the spread is large for this "
            "box, or bounds and plan are in different units (see Bounds' mean and std)",
            RuntimeWarning,
            stacklevel=4,
        )
