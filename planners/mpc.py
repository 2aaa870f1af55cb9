"""Receding horizon: plan, execute the first actions, shift, plan again."""

from __future__ import annotations

from typing import Generic, Literal

import torch
from torch import Tensor

from planners._common import require, shift
from planners.contract import Bounds, Carried, Cost, Method, Plan, StateT
from planners.noise import fold_in, problem_seeds
from planners.optimize import run

__all__ = ["MPC", "split_blocks"]


class MPC(Generic[StateT]):
    """Model-predictive control of B environments with any method.

    Each `act` starts where the last plan, shifted by the executed actions, left off, and draws
    from the next of its streams: the t-th call of problem b is a function of (seed, b, t) and of
    the costs seen. LeWM's protocol is horizon 5, 30 iterations and execute 5 with blocks of 5.

    Args:
        method: which planner.
        horizon: H, actions planned ahead.
        action_dim: A, controls times `block`.
        iterations: iterations per call of `act`.
        execute: actions to hand out per call, in [1, horizon].
        bounds: allowed actions, in the environment's units.
        seed: int, or [batch] integers.
        batch: B, environments.
        block: environment steps per action; `act` splits an action into that many.
        tail: what a shifted plan ends with, "zero" (the released LeWM planner) or "repeat" for
            the last action again.
        dtype: of the search.
        device: of the search.

    Attributes:
        last: the `Plan` of the last call of `act`, in planning units; None before the first.
        start: [B, H, A], where the next call starts, in planning units; may be set.
    Raises: ValueError if `execute` is not in [1, horizon] or `block` does not divide `action_dim`.
    """

    def __init__(
        self,
        method: Method[StateT],
        *,
        horizon: int,
        action_dim: int,
        iterations: int,
        execute: int = 1,
        bounds: Bounds | None = None,
        seed: int | Tensor = 0,
        batch: int = 1,
        block: int = 1,
        tail: Literal["zero", "repeat"] = "zero",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        require(
            1 <= execute <= horizon,
            f"execute must be in [1, horizon = {horizon}], got {execute}",
        )
        require(
            block >= 1 and action_dim % block == 0,
            f"block must divide action_dim = {action_dim}, got {block}",
        )
        require(tail in ("zero", "repeat"), f'tail must be "zero" or "repeat", got {tail!r}')
        self.method, self.bounds = method, bounds
        self.iterations, self.execute, self.block, self.tail = iterations, execute, block, tail
        self.last: Plan | None = None
        self.start = torch.zeros(batch, horizon, action_dim, dtype=dtype, device=device)
        self._streams = problem_seeds(seed, batch, self.start.device)
        self._steps = torch.zeros_like(self._streams)
        self._fresh = torch.ones_like(self._streams, dtype=torch.bool)
        self._state: StateT | None = None

    def act(self, cost: Cost) -> Tensor:
        """Plan from here and hand out the first actions.

        Args:
            cost: [B, S, H, A] -> [B, S], from where the B environments are now.
        Returns: [B, execute · block, A / block], in the environment's units and inside `bounds`.
        Raises: as `optimize`.
        """
        streams = fold_in(self._streams, self._steps)
        with torch.no_grad():
            if isinstance(self.method, Carried) and self._state is not None:
                state = self.method.carry(self._state, self.start, self.execute, self._fresh)
            else:
                state = self.method.init(self.start)
        self.last, self._state = run(
            self.method, cost, state, self.start, self.iterations, self.bounds, streams
        )
        actions = self.last.actions[:, : self.execute]
        self.start = shift(self.last.actions, self.execute, repeat=self.tail == "repeat")
        self._steps = self._steps + 1
        self._fresh = torch.zeros_like(self._fresh)
        if self.bounds is not None:
            actions = self.bounds.to_environment(actions)
        return split_blocks(actions, self.block)

    def reset(self, done: Tensor | None = None) -> None:
        """Forget the plan of the problems that begin a new episode.

        A problem that is reset plans like a new one: from zero, with its first stream.

        Args:
            done: [B] booleans, which problems; None means all.
        """
        if done is None:
            done = torch.ones_like(self._fresh)
        require(
            done.shape == self._fresh.shape,
            f"done must be {list(self._fresh.shape)}, got {list(done.shape)}",
        )
        done = done.to(device=self._fresh.device, dtype=torch.bool)
        self.start = self.start.masked_fill(done[:, None, None], 0.0)
        self._steps = self._steps.masked_fill(done, 0)
        self._fresh = self._fresh | done


def split_blocks(actions: Tensor, block: int) -> Tensor:
    """Actions [..., k, block · A] as environment steps [..., k · block, A], in time order."""
    *lead, k, width = actions.shape
    require(width % block == 0, f"block must divide the action's width {width}, got {block}")
    return actions.reshape(*lead, k * block, width // block)
