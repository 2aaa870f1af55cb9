"""The one loop: ask, project to the bounds, score, tell."""

import time
import warnings
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from planners._arguments import calls, floats, instance, integer, number, require
from planners._common import gaussian, mirrored
from planners._record import choose
from planners.contract import Bounds, Cost, Method, Plan, Progress, Scored, State, StateT, Stopped
from planners.noise import Noise, Stream, problem_seeds

__all__ = ["optimize", "planning_step"]

LOOK = 5  # iterations between two checks of the plan
_Box = tuple[Tensor, Tensor]  # low and high, each [B or 1, 1, H or 1, A], in planning units


def optimize(
    method: Method[StateT],
    cost: Cost,
    plan: Tensor,
    *,
    iterations: int,
    bounds: Bounds | None = None,
    seed: int | Tensor = 0,
    stop: float | None = None,
    deadline: float | None = None,
    committed: Tensor | None = None,
    previous: StateT | None = None,
    steps: int = 0,
    callback: Callable[[Progress], None] | None = None,
) -> Plan:
    """Search for the actions of least cost, for B problems at once.

    The loop calls the cost once per iteration and never waits for the device, so the whole call can
    be compiled or captured as a CUDA graph. A problem's plan does not depend on its batch.

    Args:
        method: which planner, with its hyperparameters.
        cost: [B, S, H, A] -> [B, S]. Non-finite costs count as the worst and are never chosen.
        plan: [B, H, A], the start; it sets dtype and device. Bounds mirror what lies outside.
        iterations: the largest number of calls of the cost, at least 1.
        bounds: box of allowed actions, for every candidate and the result.
        seed: an integer, which gives each problem its own stream, or [B] integers, the streams.
        stop: ends the search when all problems have settled: for five iterations no entry of the
            plan has moved by more than this, in planning units, and the method's spread is no
            larger (`State.spread`). A GPU's answer is read five iterations later. Methods with a
            constant spread (predictive sampling, MPPI unless `adapt_std`) never settle.
        deadline: seconds for the whole call. An iteration begins only if one as long as the last
            would end in time; the first always begins.
        committed: [B, c, A], in planning units: the first c actions, executed during the search.
        previous: `Plan.state` of an earlier search by such a method, which keeps what still helps.
        steps: how many actions were executed since then.
        callback: called after each iteration.
    Returns: Plan; `Plan.stopped` says what ended the search.
    Raises: TypeError on an argument of another type, or a cost that returns no tensor; ValueError
        on disagreeing shapes, numbers out of range, bounds for a discrete method, and `stop` or
        `deadline` while a CUDA graph is captured or the call is compiled; FloatingPointError if all
        costs of a problem were non-finite in some iteration, naming the problem. This is checked
        once, after the loop, but not in a graph: there, look for inf in `Plan.history`.
    Warns: RuntimeWarning if most of the last iteration's candidates lie on a bound.
    """
    instance("method", method, Method, "CEM()")
    floats("plan", plan, "B H A")
    calls("cost", cost, "[B, S, H, A] -> [B, S]")
    calls("callback", callback, "Progress -> None", optional=True)
    integer("iterations", iterations, 1)
    integer("steps", steps, 0, plan.shape[1])
    instance("previous", previous, State, "Plan.state", optional=True)
    box, start = _box(method, plan, bounds, committed), plan.detach()
    if box is not None:
        start = mirrored(start.unsqueeze(1), *box)[:, 0]
    stream, in_graph = Stream(problem_seeds(seed, plan.shape[0], plan.device)), _in_graph(plan)
    timed = stop is not None or deadline is not None
    require(not (timed and in_graph), "stop and deadline must be None in a captured search")
    stopping = Stopping(stop, deadline, start) if timed else None
    stopped: Stopped = "iterations"
    lowest: list[Tensor] = []
    history: list[Tensor] = []
    with torch.no_grad():
        state = method.init(start, previous, steps)

        def now() -> Tensor:
            return _project(method.plan(state), box)

        def kept() -> tuple[Any, Tensor]:
            flat = scored.candidates.flatten(2).transpose(1, 2).contiguous()
            return state, gaussian(flat, flat.shape[-1], start)[1]

        for i in range(iterations):
            told, scored = _iterate(method, cost, state, Noise(stream, i), box)
            lowest.append(scored.costs.amin(1))
            # A graph cannot raise: a problem without a finite cost keeps its state.
            state = choose(lowest[-1] == torch.inf, state, told) if in_graph else told
            history.append(told.cost)
            if callback is not None:
                callback(Progress(i, scored.candidates, scored.costs, now(), state))
            if stopping is not None and i + 1 < iterations:
                stopped = stopping.over(i + 1, now, kept)
            if stopped != "iterations":
                break
        if not in_graph:
            _check(torch.stack(lowest), scored.candidates, box)
        state, wide = kept() if stopping is None else stopping.result(kept())
        return Plan(now(), state.cost, torch.stack(history), wide, stopped, state)


def planning_step(
    method: Method[StateT], bounds: Bounds | None = None
) -> Callable[[Cost, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """One iteration as a function of tensors alone, for a graph that runs without this package.

    Args:
        method: whose state has a mean and a std: `CEM`, or `MPPI` without a correlation.
        bounds: as in `optimize`.
    Returns: a function (cost, mean, std [B, H, A], noise [B, S, H, A], standard normal) -> the next
        mean and std, and the costs [B, S]. If all costs of a problem are non-finite, both stay.
    """
    instance("method", method, Method, "CEM()")
    instance("bounds", bounds, Bounds, "Bounds(-1, 1)", optional=True)

    def step(cost: Cost, mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        box = _box(method, mean, bounds)
        begun: Any = method.init(_project(mean, box))
        begun = begun._replace(spread=std)
        drawn = SimpleNamespace(iteration=0, normal=lambda _, *, dtype: noise.to(dtype))
        state, scored = _iterate(method, cost, begun, drawn, box)
        told: Any = choose(scored.costs.amin(1) == torch.inf, begun, state)
        return told.mean, told.spread, scored.costs

    return step


def _iterate(
    method: Method[StateT], cost: Cost, state: StateT, noise: Any, box: _Box | None
) -> tuple[StateT, Scored]:
    asked = method.ask(state, noise)
    needs_grad = asked.requires_grad
    candidates = _project(asked.detach() if needs_grad else asked, box)
    grads, shape = candidates.new_empty(0), list(candidates.shape)
    with torch.set_grad_enabled(needs_grad):
        leaf = candidates.detach().requires_grad_() if needs_grad else candidates
        costs = cost(leaf)
        if not isinstance(costs, Tensor):
            raise TypeError(f"cost must return a torch.Tensor [B, S], got {type(costs).__name__}")
        require(
            list(costs.shape) == shape[:2] and costs.is_floating_point(),
            f"cost must map [B, S, H, A] = {shape} to floats [B, S] = {shape[:2]}, "
            f"got {costs.dtype} {list(costs.shape)}",
        )
        if needs_grad:
            rule = "cost must be differentiable for a method that asks for its gradient"
            require(costs.requires_grad, rule)
            # Of the sum of all costs, because each depends on its own candidate alone.
            (grads,) = torch.autograd.grad(costs.sum(), leaf)
            grads = grads.nan_to_num(0.0, 0.0, 0.0)
    costs = costs.detach().nan_to_num(torch.inf, torch.inf, torch.inf)
    scored = Scored(candidates, costs, grads, noise)
    return method.tell(state, scored), scored


def _box(
    method: Method[Any], plan: Tensor, bounds: Bounds | None, committed: Tensor | None = None
) -> _Box | None:
    """The bounds as a box, in which committed actions are fixed."""
    instance("bounds", bounds, Bounds, "Bounds(-1, 1)", optional=True)
    if bounds is not None and method.discrete:
        raise ValueError(f"bounds must be None for {method}: its actions are choices")
    if bounds is None and committed is None:
        return None
    B, H, A = plan.shape
    wide = plan.new_full((A,), torch.inf)
    edges = (-wide, wide) if bounds is None else bounds.box(plan)
    low, high = (edge.view(1, 1, 1, A) for edge in edges)
    if committed is not None:
        floats("committed", committed, "B c A", B=B, A=A)
        rest = H - committed.shape[1]
        require(rest >= 0, f"committed must be at most H = {H} actions, got {H - rest}")
        first = committed.detach().to(plan).unsqueeze(1)
        low, high = (torch.cat([first, edge.expand(B, 1, rest, A)], 2) for edge in (low, high))
    return low, high


def _project(actions: Tensor, box: _Box | None) -> Tensor:
    """Actions [B, H, A] or candidates [B, S, H, A] moved into the box."""
    if box is None:
        return actions
    return actions.clamp(*box) if actions.ndim == 4 else actions.unsqueeze(1).clamp(*box)[:, 0]


def _in_graph(plan: Tensor) -> bool:
    # A function, because dynamo compiles it even where it gives up on the whole of `optimize`.
    if torch.compiler.is_compiling():
        return True
    return plan.is_cuda and torch.cuda.is_current_stream_capturing()


def _check(lowest: Tensor, candidates: Tensor, box: _Box | None) -> None:
    """The two checks that need the host, once after the loop."""
    dead = lowest.isinf().any(0)
    stuck = dead.new_zeros(())
    if box is not None:
        free = box[0] < box[1]
        on_bound = ((candidates <= box[0]) | (candidates >= box[1])) & free
        stuck = on_bound.sum() * 2 > free.expand_as(candidates).sum()
    any_dead, any_stuck = torch.stack([dead.any(), stuck]).tolist()
    if any_dead:
        raise FloatingPointError(
            "cost must be finite for at least one candidate of each problem, got none for problem "
            + ", ".join(map(str, dead.nonzero().flatten().tolist()))
        )
    if any_stuck:
        warnings.warn(
            "most candidates of the last iteration lie on a bound: the spread is large for this "
            "box, or bounds and plan are in different units (see Bounds' mean and std)",
            RuntimeWarning,
            stacklevel=3,
        )


class Stopping:
    """Decides whether a search has settled or its time is over.

    A problem has settled if its spread and last move are at most `stop`; it keeps that state.

    On a GPU the host reads the answer of the previous check, `LOOK` iterations old, so that the
    device always has work. The clock compares the time with the marks in the device's queue (made
    by `marks`) that the device has passed. It waits for the first mark only.
    """

    def __init__(
        self,
        stop: float | None,
        deadline: float | None,
        start: Tensor,
        marks: Callable[[], Any] | None = None,
    ) -> None:
        number("stop", stop, "(0, inf)", optional=True)
        number("deadline", deadline, "(0, inf)", optional=True)
        self._stop, self._deadline = stop, deadline
        self._began = time.perf_counter()
        self._marks = torch.cuda.Event if marks is None and start.is_cuda else marks
        self._queue: deque[Any] = deque()
        self._passed, self._at, self._pace = 0, self._began, 0.0
        self._plan = start
        self._settled = torch.zeros_like(start[:, 0, 0], dtype=torch.bool)
        self._kept: Any = None
        self._answer: tuple[Any, Tensor] | None = None

    def over(self, done: int, plan: Callable[[], Tensor], kept: Callable[[], Any]) -> Stopped:
        """What ends the search after `done` iterations; "iterations" if it continues.

        `plan` and `kept` return the present plan [B, H, A], and the state with all else.
        """
        if self._stop is not None and done % LOOK == 0 and self._look(plan(), kept(), self._stop):
            return "converged"
        late = self._deadline is not None and self._late(done, self._began + self._deadline)
        return "deadline" if late else "iterations"

    def result(self, kept: Any) -> Any:
        """The result; settled problems get the one they had when they settled."""
        return kept if self._kept is None else choose(self._settled, self._kept, kept)

    def _look(self, plan: Tensor, kept: Any, stop: float) -> bool:
        quiet = kept[0].spread <= stop
        if isinstance(quiet, Tensor):
            quiet = quiet.reshape(len(plan), -1).all(1)
        self._kept = self.result(kept)
        moved = (plan - self._plan).abs().flatten(1).amax(1)
        self._settled = self._settled | ((moved <= stop) & quiet)
        self._plan = plan
        answer = self._settled.all()
        if self._marks is None:
            return bool(answer)
        copied = torch.empty((), dtype=torch.bool, device="cpu", pin_memory=answer.is_cuda)
        copied.copy_(answer, non_blocking=True)
        before, self._answer = self._answer, (self._mark(), copied)
        if before is None:
            return False
        before[0].synchronize()
        return bool(before[1])

    def _late(self, done: int, limit: float) -> bool:
        """Whether the queued work and one more iteration would end after the limit."""
        if self._marks is not None:
            self._queue.append(self._mark())
            if not self._passed and done > 1:
                self._queue[0].synchronize()
            while self._queue and self._queue[0].query():
                self._queue.popleft()
        passed = done - len(self._queue)
        now = time.perf_counter()
        if passed > self._passed:
            self._pace = (now - self._at) / (passed - self._passed)
            self._passed, self._at = passed, now
        # The queued work began at the last mark that was passed.
        return now > limit or self._at + (done + 1 - passed) * self._pace > limit

    def _mark(self) -> Any:
        assert self._marks is not None
        mark = self._marks()
        mark.record()
        return mark
