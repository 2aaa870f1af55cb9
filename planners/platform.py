"""Any method as a solver of the stable-worldmodel platform."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any, Generic, Protocol

import torch
from torch import Tensor

from planners._common import require
from planners.contract import Bounds, Method, Plan, StateT
from planners.noise import problem_seeds
from planners.optimize import optimize

__all__ = ["Costable", "PlatformSolver"]


class Costable(Protocol):
    """What the platform calls a model, or an evaluator, that scores candidates."""

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """Costs [B, S] of candidates [B, S, H, A]."""


class PlatformSolver(Generic[StateT]):
    """Satisfies stable-worldmodel's `Solver` protocol, so that `WorldModelPolicy` can use it.

    Unlike the platform's own solvers it gives each environment its own random stream, so that
    `batch_size` is a matter of speed alone, keeps to `bounds` in the environment's units, and
    neither prints nor synchronises inside the loop.

    Args:
        method: which planner.
        cost: the platform's model or evaluator, with `get_cost(info, candidates)`.
        iterations: of the method, per plan.
        bounds: in the environment's units; give the mean and std of the platform's action scaler.
        seed: every call of `solve` draws anew, and each of its problems from its own stream. The
            platform plans for the environments that need it, so a problem is its place among them.
        batch_size: environments planned at once; None means all. 1 is the platform's own default,
            and all that LeWM's `get_cost` in stable-worldmodel 0.1.1 takes.
        device: of the search.
        dtype: of the search.
    Raises: ValueError if `batch_size` < 1.
    """

    def __init__(
        self,
        method: Method[StateT],
        cost: Costable,
        *,
        iterations: int,
        bounds: Bounds | None = None,
        seed: int = 1234,
        batch_size: int | None = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        require(
            batch_size is None or batch_size >= 1,
            f"batch_size must be at least 1, got {batch_size}",
        )
        self.method, self.cost, self.iterations, self.bounds = method, cost, iterations, bounds
        self.seed, self.device, self.dtype = seed, torch.device(device), dtype
        self.batch_size = batch_size
        self._calls = 0
        self._action_dim = self._n_envs = self._horizon = 0

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:
        """Take over sizes from the platform.

        Args:
            action_space: vectorised gymnasium space; `shape` is (n_envs, …).
            n_envs: environments.
            config: the platform's `PlanConfig`: `horizon` and `action_block`.
        """
        controls = 1
        for size in action_space.shape[1:]:
            controls *= int(size)
        self._action_dim = controls * int(config.action_block)
        self._n_envs, self._horizon = int(n_envs), int(config.horizon)

    @property
    def action_dim(self) -> int:
        """A, controls times action block."""
        return self._action_dim

    @property
    def n_envs(self) -> int:
        """Environments the platform configured."""
        return self._n_envs

    @property
    def horizon(self) -> int:
        """H, in blocks."""
        return self._horizon

    def __call__(self, info_dict: Mapping[str, Any], init_action: Tensor | None = None) -> Any:
        """As `solve`."""
        return self.solve(info_dict, init_action)

    def solve(self, info_dict: Mapping[str, Any], init_action: Tensor | None = None) -> Any:
        """Plan for every environment in `info_dict`.

        Args:
            info_dict: tensors or arrays [B, …]; anything else is passed on as it is.
            init_action: [B, T ≤ H, A], the start; the rest is zero.
        Returns: the platform's dictionary: `actions` [B, H, A] and `mean` on the CPU, `var` (the
            spread, a standard deviation as there), `costs` as a list.
        Raises: RuntimeError before `configure`; ValueError if `init_action` has another shape.
        """
        if not self._horizon:
            raise RuntimeError("configure must be called before solve")
        B = len(next(iter(info_dict.values())))
        start = torch.zeros(B, self.horizon, self.action_dim, dtype=self.dtype, device=self.device)
        if init_action is not None:
            T = init_action.shape[1]
            require(
                tuple(init_action.shape) == (B, T, self.action_dim) and self.horizon >= T,
                f"init_action must be [{B}, at most {self.horizon}, {self.action_dim}], "
                f"got {list(init_action.shape)}",
            )
            start[:, :T] = init_action.to(start)
        streams = problem_seeds(self.seed + self._calls, B, self.device)
        self._calls += 1
        size = self.batch_size or B
        plans = [
            self._plan(
                {name: _some(value, at, B) for name, value in info_dict.items()},
                start[at],
                streams[at],
            )
            for at in (slice(b, b + size) for b in range(0, B, size))
        ]
        actions = torch.cat([plan.actions for plan in plans]).cpu()
        spread = torch.cat([plan.spread for plan in plans]).cpu()
        costs = torch.cat([plan.cost for plan in plans]).tolist()
        return {"actions": actions, "mean": [actions], "var": [spread], "costs": costs}

    def _plan(self, info: Mapping[str, Any], start: Tensor, streams: Tensor) -> Plan:
        """Plan for some environments at once."""
        expanded: dict[str, Any] = {}
        size = 0

        def cost(candidates: Tensor) -> Tensor:
            nonlocal size
            if candidates.shape[1] != size:
                size = candidates.shape[1]
                expanded.clear()
                expanded.update({k: self._expand(v, size) for k, v in info.items()})
            # The same dictionary in every iteration: the platform's models keep encodings in it.
            return self.cost.get_cost(expanded, candidates)

        return optimize(
            self.method, cost, start, iterations=self.iterations, bounds=self.bounds, seed=streams
        )

    def _expand(self, value: Any, size: int) -> Any:
        """[B, …] to [B, S, …], on the search's device; floats in its dtype."""
        if not isinstance(value, Tensor):
            import numpy as np

            if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
                return value
            value = torch.from_numpy(value)
        dtype = self.dtype if value.is_floating_point() else value.dtype
        value = value.to(device=self.device, dtype=dtype).unsqueeze(1)
        return value.expand(-1, size, *value.shape[2:])


def _some(value: Any, at: slice, total: int) -> Any:
    """The part of [B, …] that belongs to some environments; anything else as it is."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sized) or len(value) != total:
        return value
    return value[at]  # type: ignore[index]
