"""Receding horizon: plan, execute the first actions, shift, plan again."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, Literal, NamedTuple

import torch
from torch import Tensor

from planners._arguments import calls, floats, instance, integer, number, one_of, placed, require
from planners._common import mirrored, shift
from planners._record import choose, put_together, take_apart, walk
from planners.contract import Bounds, Cost, Method, Plan, StateT
from planners.noise import fold_in, problem_seeds
from planners.optimize import optimize

__all__ = ["MPC", "History", "MPCRecord", "split_blocks"]

_Observations = Tensor | Mapping[str, Tensor]  # a camera, or all sensors by name


class History(NamedTuple):
    """The last observations and actions of B environments; its tensors are never changed."""

    observations: _Observations | None  #: [B, length, …], the newest last; None before the first
    done: Tensor  #: [B, length − 1, A], the actions between them
    handed: Tensor  #: [B, n, A], returned actions without an observation yet
    fresh: Tensor  #: [B], whether the episode began after the last observation, with no-op actions
    seen: int = 0  #: observations since all problems began; earlier entries are filled up


class MPCRecord(NamedTuple):
    """The whole state of a controller between two steps. Its tensors are never changed in place."""

    start: Tensor  #: [B, H, A], the shifted plan; its first `committed` actions are being executed.
    state: Any  #: Of the method, after the last search.
    steps: Tensor  #: [B], control steps of each problem since it began.
    calls: int  #: Control steps since any problem began.
    history: History  #: The last observations, and what was done between them.


def split_blocks(actions: Tensor, block: int) -> Tensor:
    """Split actions that are blocks of environment steps into single steps, in time order.

    Args:
        actions: [..., k, block · A].
        block: steps per action.
    Returns: [..., k · block, A]; `block` must divide the width of an action.
    """
    instance("actions", actions, Tensor, "Plan.actions")
    require(actions.ndim >= 2, f"actions must be [..., k, block · A], got {list(actions.shape)}")
    *lead, k, width = actions.shape
    fits = width % integer("block", block, 1) == 0
    require(fits, f"block must divide the action's width {width}, got {block}")
    return actions.reshape(*lead, k * block, width // block)


@dataclass(eq=False, repr=False)
class MPC(Generic[StateT]):
    """Model-predictive control of B environments with any method.

    Each `act` starts from the last plan, shifted by the executed actions. The t-th call for problem
    b is a function of (seed, b, t) and of the costs. LeWM: H 5, 30 iterations, execute 5, block 5.

    With `committed=c` the environment executes the first c actions of every plan while it is
    computed, and `act` returns the next ones. An episode begins with c no-op actions.

    `record` holds the whole state; it can be kept, sent to another thread, and set again. `last` is
    the `Plan` of the last call of `act`, in planning units; None before the first.

    Raises: ValueError on a number out of range, TypeError on an argument of another type.
    Warns: RuntimeWarning if the cost looks at the last step alone and `act` executes only a part.
    """

    method: Method[StateT]  #: Which planner.
    _: KW_ONLY
    horizon: int  #: H, actions planned ahead.
    action_dim: int  #: A, controls times `block`.
    #: Of each `act`, or a function of the control step since any problem began.
    iterations: int | Callable[[int], int]
    execute: int = 1  #: Actions to return per call, in [1, horizon − committed].
    committed: int = 0  #: c, actions executed during planning; a no-op is 0, clipped to `bounds`.
    #: Allowed actions, in the environment's units, and how they were normalised.
    bounds: Bounds | None = None
    seed: int | Tensor = 0  #: An integer, or [batch] integers.
    batch: int = 1  #: B, environments.
    block: int = 1  #: Environment steps per action; `act` splits an action into that many.
    #: The end of a shifted plan: "zero" (as in LeWM's release; inside the bounds) or "repeat".
    tail: Literal["zero", "repeat"] = "zero"
    history: int = 1  #: Observations to keep, with the actions between them.
    stop: float | None = None  #: As in `optimize`.
    deadline: float | None = None  #: As in `optimize`.
    dtype: torch.dtype = torch.float32  #: Of the search.
    device: torch.device | str = "cpu"  #: Of the search.

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")
        one_of("tail", self.tail, ("zero", "repeat"))
        instance("bounds", self.bounds, Bounds, "Bounds(-1, 1)", optional=True)
        number("stop", self.stop, "(0, inf)", optional=True)
        number("deadline", self.deadline, "(0, inf)", optional=True)
        if not callable(self.iterations):
            integer("iterations", self.iterations, 1)
        placed(self.dtype, self.device)
        A, H = integer("action_dim", self.action_dim, 1), integer("horizon", self.horizon, 1)
        self.committed = integer("committed", self.committed, 0, H - 1)
        self.execute = integer("execute", self.execute, 1, H - self.committed)
        self.block = integer("block", self.block, 1)
        self.history = integer("history", self.history, 1)
        require(A % self.block == 0, f"block must divide action_dim = {A}, got {self.block}")
        if self.committed and self.method.discrete:
            raise ValueError("committed must be 0 for choices: no choice is a no-op")
        shape = integer("batch", self.batch, 1), H, A
        start = torch.zeros(shape, dtype=self.dtype, device=self.device)
        self._units = self.bounds or Bounds(-torch.inf, torch.inf)
        box = self._units.box(start)
        self._rest = self._units.from_environment(start[:, :1]).clamp(*box)
        self._start = mirrored(start, *box)
        self._streams = problem_seeds(self.seed, self.batch, start.device)
        self.last: Plan | None = None
        self.record = self.begin()

    def begin(self) -> MPCRecord:
        """The record of B environments at the start of an episode."""
        c, kept, steps = self.committed, self.history - 1, torch.zeros_like(self._streams)
        rest = self._rest.expand(-1, max(c, kept), -1)
        start = torch.cat([rest[:, :c], self._start[:, c:]], 1)
        history = History(None, rest[:, :kept], rest[:, : c if kept else 0], steps == 0)
        return MPCRecord(start, self.method.init(self._start), steps, 0, history)

    def step(
        self,
        record: MPCRecord,
        cost: Cost,
        *,
        method: Method[StateT] | None = None,
        start: Tensor | None = None,
    ) -> tuple[Tensor, MPCRecord, Plan]:
        """`act` as a function of a record: returns actions, the next record, and the plan."""
        calls("cost", cost, "[B, S, H, A] -> [B, S]")
        method, c = method or self.method, self.committed
        waiting = record.history.handed.shape[1] - c if self.history > 1 else 0
        require(waiting <= 0, f"see must be called after each action, {waiting} were not seen")
        state, steps, begin = record.state, self.execute, record.start
        if start is not None:
            state, steps = method.init(begin, state, steps), 0
            begin = torch.as_tensor(start, dtype=begin.dtype, device=begin.device)
            floats("start", begin, "B H A", **dict(zip("BHA", record.start.shape, strict=True)))
        iterations, H = self.iterations, begin.shape[1]
        marks: set[bool] = set()

        def scored(candidates: Tensor) -> Tensor:
            costs = cost(candidates)
            marks.update(bool(getattr(given, "last_step", False)) for given in (cost, costs))
            return costs

        plan = optimize(
            method,
            cost if record.calls or c + self.execute == H else scored,
            begin,
            iterations=iterations(record.calls) if callable(iterations) else iterations,
            bounds=self.bounds,
            seed=fold_in(self._streams, record.steps),
            stop=self.stop,
            deadline=self.deadline,
            committed=record.start[:, :c] if c else None,
            previous=state,
            steps=steps,
        )
        if True in marks:
            warnings.warn(
                f"the cost looks at the last of {H} actions alone, but {self.execute} are "
                "executed: plans that arrive in time cost the same, so the actions are arbitrary. "
                "Execute the whole plan, or let the cost look at all steps",
                RuntimeWarning,
                stacklevel=3,
            )
        return *self._moved_on(record, plan.actions, plan.state), plan

    def act(
        self, cost: Cost, *, method: Method[StateT] | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Plan and return the next actions.

        Args:
            cost: [B, S, H, A] -> [B, S], from the present state of the B environments.
            method: this step's, of the same type: constraints and goal states may change.
            start: [B, H, A], where to start instead of the shifted plan, in planning units.
        Returns: [B, execute · block, A / block], in the environment's units and inside `bounds`.
        """
        actions, self.record, self.last = self.step(self.record, cost, method=method, start=start)
        return actions

    def skip(self) -> Tensor:
        """Return the next actions of the present plan, as `act`, if a new one came too late."""
        state = self.method.init(self.record.start, self.record.state, self.execute)
        actions, self.record = self._moved_on(self.record, self.record.start, state)
        return actions

    def see(self, observation: Any, executed: Any = None) -> None:
        """Record an observation and the action before it; after each action if `history` > 1.

        A problem that begins while others continue gets its first observation and no-op actions.

        Args:
            observation: the present one: tensor, array, or mapping of them by name, [B, …].
            executed: [B, block, A / block], in the environment's units, the action since the last
                observation; None means the next one that `act` returned.
        """
        (past, done, handed, fresh, seen), length = self.record.history, self.history
        (B, _, A), home = self._rest.shape, self._rest.device

        def taken(name: str, value: Any) -> Tensor:
            # A copy, since environments write into their buffers; on the search's device.
            told = isinstance(value, Tensor)
            copied = value.detach().clone() if told else torch.tensor(value, device=home)
            shape = list(copied.shape)
            require(shape[:1] == [B], f"{name or 'observation'} must be [{B}, …], got {shape}")
            return copied.to(home).unsqueeze(1)

        def joined(_: str, now: Tensor, before: Tensor | None) -> Tensor:
            filled = now.expand(-1, length, *now.shape[2:])
            if before is None or length == 1:
                return filled
            return choose(fresh, filled, torch.cat([before[:, 1:], now], 1))

        new, action = walk(taken, observation), handed[:, :1]
        if executed is not None:
            given = torch.as_tensor(executed, dtype=self._rest.dtype, device=home)
            floats("executed", given, "B n a", B=B, n=self.block, a=A // self.block)
            action = self._units.from_environment(given.reshape(B, 1, A))
        if past is not None and length > 1:
            names = take_apart(past).keys()
            require(take_apart(new).keys() == names, f"observation must hold {', '.join(names)}")
            require(action.shape[1] > 0, "executed must be given if act returned nothing")
            action = torch.where(fresh[:, None, None], self._rest, action)
            done, handed = torch.cat([done, action], 1)[:, 1:], handed[:, 1:]
        known: Any = walk(joined, new, past)
        history = History(known, done, handed, torch.zeros_like(fresh), seen + 1)
        self.record = self.record._replace(history=history)

    @property
    def start(self) -> Tensor:
        """[B, H, A], where the next search starts, in planning units."""
        return self.record.start

    @property
    def observations(self) -> _Observations | None:
        """[B, T, …], the last T ≤ `history` observations, the newest last."""
        T = min(self.record.history.seen, self.history)
        return walk(lambda _, x: x if x is None else x[:, -T:], self.record.history.observations)

    @property
    def past_actions(self) -> Tensor | None:
        """[B, T − 1, A], the actions between them, in planning units; None if T is 1."""
        T = min(self.record.history.seen, self.history)
        return self.record.history.done[:, 1 - T :] if T > 1 else None

    @property
    def executed(self) -> Tensor | None:
        """[B, (T − 1) · block, A / block], the same in the environment's units."""
        past = self.past_actions
        return None if past is None else self._outside(past)

    def reset(self, done: Any = None) -> None:
        """Begin new episodes where `done` [B], tensor or array, is true; None means everywhere."""
        new, old = self.begin(), self.record
        fresh, handed = new.history.fresh, old.history.handed
        given = fresh if done is None else done
        mask = torch.as_tensor(given, dtype=fresh.dtype, device=fresh.device)
        fits = mask.shape == fresh.shape
        require(fits, f"done must be {list(fresh.shape)}, got {list(mask.shape)}")
        if not bool(mask.all()):
            history = new.history._replace(handed=self._rest.expand_as(handed))
            new = choose(mask, new._replace(history=history), old)._replace(calls=0)
        self.record = new

    def save(self) -> dict[str, Tensor]:
        """The record as tensors by name, on the CPU: for safetensors, or another process."""
        return take_apart(self.record)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue where `save` was called on a controller of the same settings, bit for bit."""
        instance("tensors", tensors, Mapping, "what save returned")
        like = self.begin()
        missing = take_apart(like).keys() - tensors.keys()
        require(not missing, f"tensors must hold {', '.join(sorted(missing))}")
        self.record = put_together(like, tensors, self._rest.device)

    def _moved_on(self, record: MPCRecord, plan: Tensor, state: Any) -> tuple[Tensor, MPCRecord]:
        """The actions to return of a plan [B, H, A], and the record after their execution."""
        handed, history = plan[:, self.committed :][:, : self.execute], record.history
        if self.history > 1:
            history = history._replace(handed=torch.cat([history.handed, handed], 1))
        start = shift(plan, self.execute, None if self.tail == "repeat" else self._start)
        following = MPCRecord(start, state, record.steps + 1, record.calls + 1, history)
        return self._outside(handed), following

    def _outside(self, actions: Tensor) -> Tensor:
        """Single steps in the environment's units."""
        return split_blocks(self._units.to_environment(actions), self.block)
