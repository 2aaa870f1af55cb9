"""Receding horizon: plan, execute the first actions, shift, plan again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, NamedTuple

import torch
from torch import Tensor

from planners._arguments import floats, instance, integer, one_of, require
from planners._common import mirrored, shift
from planners._record import choose, put_together, take_apart, walk
from planners.contract import Bounds, Cost, Method, Plan, StateT
from planners.noise import fold_in, problem_seeds
from planners.optimize import optimize

__all__ = ["MPC", "MPCRecord", "split_blocks"]


Observations = Tensor | Mapping[str, Tensor]
"""[B, …] of one moment, or [B, T, …] of several: a camera, or all sensors by name."""


class MPCRecord(NamedTuple):
    """All that a controller knows from one step to the next; nobody writes into its tensors.

    Attributes:
        start: [B, H, A], the shifted plan; its first `committed` actions are being executed.
        state: of the method, where the last search ended.
        steps: [B], control steps of each problem since it began.
        calls: control steps since any problem began.
        handed: [B, n, A], actions handed out of which no observation tells yet.
        done: [B, history − 1, A], what was done between the observations.
        observations: tensor or mapping of tensors [B, history, …]; None before the first.
        seen: observations since all problems began; before, those kept are filled up.
        fresh: [B], whether a problem began after the last observation.
    """

    start: Tensor
    state: Any
    steps: Tensor
    calls: int
    handed: Tensor
    done: Tensor
    observations: Observations | None
    seen: int
    fresh: Tensor


class MPC(Generic[StateT]):
    """Model-predictive control of B environments with any method.

    Each `act` starts where the last plan, shifted by the executed actions, left off, and draws
    from the next of its streams: the t-th call of problem b is a function of (seed, b, t) and of
    the costs seen. LeWM's protocol is horizon 5, 30 iterations and execute 5 with blocks of 5.

    Where planning takes time, actions go on meanwhile. With `committed=c` the first c actions of
    every plan are those that are executed until it is there, and `act` hands out the next ones.
    An episode begins with c actions of rest (zero, or the nearest that the bounds allow).

    Args:
        method: which planner.
        horizon: H, actions planned ahead.
        action_dim: A, controls times `block`.
        iterations: of each call of `act`, or a function of the control step (0, 1, … since any
            problem began): many for a cold start, few from then on.
        execute: actions to hand out per call, in [1, horizon − committed].
        committed: c, actions that are executed while planning goes on.
        bounds: allowed actions, in the environment's units, and how they were normalised.
        seed: an integer, or [batch] integers.
        batch: B, environments.
        block: environment steps per action; `act` splits an action into that many.
        tail: what a shifted plan ends with, "zero" (the released LeWM planner) or "repeat" for
            the last action again; moved into the bounds.
        history: observations to keep, with the actions between them.
        stop: as in `optimize`.
        deadline: as in `optimize`.
        dtype: of the search.
        device: of the search.

    Attributes:
        record: all that it knows; may be kept, sent to another thread, and set again.
        last: the `Plan` of the last call of `act`, in planning units; None before the first.
    Raises: ValueError on a number out of range, or a `block` that does not divide `action_dim`;
        TypeError on an argument of another kind.
    Warns: RuntimeWarning once, if a cost that looks at the last step alone (`last_step`, see
        `Cost`) meets a controller that executes less than its plan: of all plans that arrive in
        time none is better, so the action that is executed is arbitrary.
    """

    def __init__(
        self,
        method: Method[StateT],
        *,
        horizon: int,
        action_dim: int,
        iterations: int | Callable[[int], int],
        execute: int = 1,
        committed: int = 0,
        bounds: Bounds | None = None,
        seed: int | Tensor = 0,
        batch: int = 1,
        block: int = 1,
        tail: Literal["zero", "repeat"] = "zero",
        history: int = 1,
        stop: float | None = None,
        deadline: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        instance("method", method, Method, "CEM()")
        self.method, self.bounds = method, bounds
        self.horizon = integer("horizon", horizon, 1)
        self.committed = integer("committed", committed, 0, self.horizon - 1)
        self.execute = integer("execute", execute, 1, self.horizon - self.committed)
        self.block, width = integer("block", block, 1), integer("action_dim", action_dim, 1)
        require(
            width % self.block == 0, f"block must divide action_dim = {width}, got {self.block}"
        )
        if not callable(iterations):
            integer("iterations", iterations, 1)
        one_of("tail", tail, ("zero", "repeat"))
        self.iterations, self.tail = iterations, tail
        self.history = integer("history", history, 1)
        self.stop, self.deadline = stop, deadline
        integer("batch", batch, 1)
        require(
            not (committed and method.discrete), "committed must be 0 for choices: none is rest"
        )
        zero = torch.zeros(batch, self.horizon, width, dtype=dtype, device=device)
        box = (zero - torch.inf, zero + torch.inf) if bounds is None else bounds.box(zero)
        self._rest, self._middle = zero.clamp(*box), mirrored(zero, *box)
        self._streams = problem_seeds(seed, batch, zero.device)
        self.last: Plan | None = None
        self.record = self.begin()

    @property
    def start(self) -> Tensor:
        """[B, H, A], where the next search starts, in planning units."""
        return self.record.start

    def begin(self) -> MPCRecord:
        """The record of B environments of which nothing is known yet."""
        rest, c = self._rest, self.committed
        return MPCRecord(
            start=torch.cat([rest[:, :c], self._middle[:, c:]], 1),
            state=self.method.init(self._middle),
            steps=torch.zeros_like(self._streams),
            calls=0,
            handed=rest[:, : c if self.history > 1 else 0],
            done=self._rows(self.history - 1),
            observations=None,
            seen=0,
            fresh=torch.ones_like(self._streams, dtype=torch.bool),
        )

    def step(
        self,
        record: MPCRecord,
        cost: Cost,
        *,
        method: Method[StateT] | None = None,
        start: Tensor | None = None,
    ) -> tuple[Tensor, MPCRecord, Plan]:
        """`act` as a function: a record in, another one out, and nothing else is changed.

        Args:
            record: what is known.
            cost: as in `act`.
            method: as in `act`.
            start: as in `act`.
        Returns: the actions of `act`, the record for the next step, and the plan.
        """
        method, c = method or self.method, self.committed
        end, waiting = c + self.execute, record.handed.shape[1] - c
        if self.history > 1 and waiting > 0:
            raise ValueError(f"see must be called after each action, {waiting} were not seen")
        state, steps, begin = record.state, self.execute, record.start
        if start is not None:
            state, steps = method.init(begin, state, steps), 0
            begin = torch.as_tensor(start).to(begin)
            floats("start", begin, "B H A", **dict(zip("BHA", record.start.shape, strict=True)))
        iterations = self.iterations
        plan = optimize(
            method,
            cost if record.calls or end == self.horizon else self._watched(cost),
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
        tail = None if self.tail == "repeat" else self._middle
        handed = plan.actions[:, c:end]
        following = record._replace(
            start=shift(plan.actions, self.execute, tail),
            state=plan.state,
            steps=record.steps + 1,
            calls=record.calls + 1,
            handed=torch.cat([record.handed, handed[:, : handed.shape[1] * (self.history > 1)]], 1),
        )
        return self._outside(handed), following, plan

    def act(
        self, cost: Cost, *, method: Method[StateT] | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Plan from here and hand out the next actions.

        Args:
            cost: [B, S, H, A] -> [B, S], from where the B environments are now.
            method: this step's, of the same kind as the controller's: constraints and goal states
                may change from step to step.
            start: [B, H, A], where to start instead of the shifted plan, in planning units.
        Returns: [B, execute · block, A / block], in the environment's units and inside `bounds`.
        Raises: as `optimize`.
        """
        actions, self.record, self.last = self.step(self.record, cost, method=method, start=start)
        return actions

    def see(self, observation: Any, executed: Any = None) -> None:
        """Keep an observation and the action that led to it; after each action if `history` > 1.

        Of a problem that begins while others go on, the observations before are filled up with its
        first one, and the actions with rest: as if it had stood still.

        Args:
            observation: tensor, array, or mapping of them by name, [B, …], of now.
            executed: [B, block, A / block], in the environment's units, what was done since the
                last observation; None means the next action that `act` handed out.
        Raises: ValueError if `executed` is None and nothing was handed out since, or on shapes
            that disagree.
        """
        record, kept = self.record, self.history
        handed, done, before = record.handed, record.done, record.observations
        new = walk(self._taken, observation)
        if before is not None and kept > 1:
            same = take_apart(new).keys() == take_apart(before).keys()
            require(same, f"observation must always hold {', '.join(take_apart(before))}")
            if executed is None:
                require(handed.shape[1] > 0, "executed must be given if act handed nothing out")
            action = handed[:, :1] if executed is None else self._planned(executed)
            handed, done = handed[:, 1:], torch.cat([done, action], 1)[:, 1:]
            done = choose(record.fresh, self._rows(kept - 1), done)

        def joined(_: str, now: Tensor, past: Tensor | None) -> Tensor:
            filled = now.expand(-1, kept, *now.shape[2:])
            if past is None or kept == 1:
                return filled
            return choose(record.fresh, filled, torch.cat([past[:, 1:], now], 1))

        self.record = record._replace(
            handed=handed,
            done=done,
            observations=walk(joined, new, before),
            seen=record.seen + 1,
            fresh=torch.zeros_like(record.fresh),
        )

    @property
    def observations(self) -> Observations | None:
        """[B, T, …], the last T ≤ `history` observations, the newest last."""
        T = min(self.record.seen, self.history)
        return walk(lambda _, x: x if x is None else x[:, -T:], self.record.observations)

    @property
    def past_actions(self) -> Tensor | None:
        """[B, T − 1, A], what was done between them, in planning units; None if T is 1."""
        T = min(self.record.seen, self.history)
        return self.record.done[:, 1 - T :] if T > 1 else None

    @property
    def executed(self) -> Tensor | None:
        """[B, (T − 1) · block, A / block], the same in the environment's units."""
        past = self.past_actions
        return None if past is None else self._outside(past)

    def reset(self, done: Any = None) -> None:
        """Forget the plan of the problems that begin a new episode.

        A problem that is reset plans like a new one: from rest, with its first stream.

        Args:
            done: [B] booleans, tensor or array, which problems; None means all.
        Raises: ValueError if `done` has another shape.
        """
        new, old = self.begin(), self.record
        mask = new.fresh if done is None else torch.as_tensor(done).to(new.fresh)
        shape = list(new.fresh.shape)
        require(list(mask.shape) == shape, f"done must be {shape}, got {list(mask.shape)}")
        if not bool(mask.all()):
            new = new._replace(handed=self._rows(old.handed.shape[1]))
            new = choose(mask, new, old)._replace(calls=0)
        self.record = new

    def save(self) -> dict[str, Tensor]:
        """The record as tensors by name, on the CPU: for safetensors, or another process."""
        like = self.begin()._replace(observations=self.record.observations)
        return take_apart(walk(lambda *found: found[2], like, self.record))

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where `save` was called on a controller of the same settings, to the last bit.

        Args:
            tensors: what `save` gave.
        Raises: ValueError if a tensor is missing.
        """
        like, device = self.begin(), self._rest.device
        missing = take_apart(like).keys() - tensors.keys()
        require(not missing, f"tensors must hold {', '.join(sorted(missing))}")
        head, seen = "observations", tensors.get("observations")
        by_name = {k[len(head) + 1 :]: v.to(device) for k, v in tensors.items() if head in k}
        kept = (by_name or None) if seen is None else seen.to(device)
        self.record = put_together(like, tensors)._replace(observations=kept)

    def _rows(self, num: int) -> Tensor:
        """[B, num, A] of rest."""
        return self._rest[:, :1].expand(-1, num, -1)

    def _taken(self, name: str, value: Any) -> Tensor:
        """[B, 1, …], a copy: environments write into their buffers."""
        copied = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
        B = len(self._rest)
        require(
            copied.ndim > 0 and len(copied) == B,
            f"{name or 'observation'} must be [{B}, …], got {list(copied.shape)}",
        )
        return copied.to(self._rest.device).unsqueeze(1)

    def _planned(self, executed: Any) -> Tensor:
        """[B, 1, A] in planning units, from steps in the environment's units."""
        given, (B, _, A) = torch.as_tensor(executed).to(self._rest), self._rest.shape
        floats("executed", given, "B n a", B=B, n=self.block, a=A // self.block)
        action = given.reshape(B, 1, A)
        return action if self.bounds is None else self.bounds.from_environment(action)

    def _outside(self, actions: Tensor) -> Tensor:
        """Single steps in the environment's units."""
        raw = actions if self.bounds is None else self.bounds.to_environment(actions)
        return split_blocks(raw, self.block)

    def _watched(self, cost: Cost) -> Cost:
        """The cost, and a warning if it says that it looks at the last step alone."""

        def watched(candidates: Tensor) -> Tensor:
            costs = cost(candidates)
            if getattr(cost, "last_step", False) or getattr(costs, "last_step", False):
                warnings.warn(
                    f"the cost looks at the last step alone, but {self.execute} of {self.horizon} "
                    "planned actions are executed: all plans that arrive in time tie, so what is "
                    "executed is arbitrary. Execute the whole plan, or let the cost look at all "
                    "steps",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return costs

        return watched


def split_blocks(actions: Tensor, block: int) -> Tensor:
    """Actions that are blocks of environment steps, one by one, in time order.

    Args:
        actions: [..., k, block · A].
        block: steps per action.
    Returns: [..., k · block, A].
    Raises: ValueError if `block` does not divide the width of an action.
    """
    require(actions.ndim >= 2, f"actions must be [..., k, block · A], got {list(actions.shape)}")
    *lead, k, width = actions.shape
    fits = width % integer("block", block, 1) == 0
    require(fits, f"block must divide the action's width {width}, got {block}")
    return actions.reshape(*lead, k * block, width // block)
