"""Any method as a solver of the stable-worldmodel platform."""

import math
import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, Protocol, runtime_checkable

import torch
from torch import Tensor

from planners._arguments import instance, integer, placed, require
from planners._record import walk
from planners.contract import Bounds, Method, Plan, Progress, StateT
from planners.noise import problem_seeds
from planners.optimize import optimize

__all__ = ["Costable", "StableWorldModelSolver"]


@runtime_checkable
class Costable(Protocol):
    """A model or an evaluator of the platform that scores candidates."""

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """Costs [B, S] of candidates [B, S, H, A]."""


@dataclass(eq=False, repr=False)
class StableWorldModelSolver(Generic[StateT]):
    """Implements stable-worldmodel's `Solver` protocol, for use in its `WorldModelPolicy`.

    Each environment has its own random stream, so `batch_size` changes speed alone, and plans stay
    inside `bounds`; the platform's own solvers do neither. `action_dim` (controls, or options of
    all choices, times action block), `n_envs` and `horizon` are 0 before `configure`.

    Raises: ValueError on a number below 1, TypeError on an argument of another type.
    """

    method: Method[StateT]  #: Which planner; a discrete one for an action space of choices.
    cost: Costable  #: The platform's model or evaluator, with `get_cost(info, candidates)`.
    _: KW_ONLY
    iterations: int  #: Of the method, per plan.
    #: With mean and std of the platform's action scaler. None: the action space's box; it warns.
    bounds: Bounds | None = None
    seed: int = 1234  #: Of the streams, one for each place among the problems to plan.
    #: Environments planned at once; None: all. LeWM in stable-worldmodel 0.1.1 accepts only 1.
    batch_size: int | None = 1
    device: torch.device | str = "cpu"  #: Of the search.
    dtype: torch.dtype = torch.float32  #: Of the search.
    #: The platform's recorders of what every method has: `step`, `candidates`, `costs`.
    callbacks: Sequence[Any] = ()

    def __post_init__(self) -> None:
        instance("method", self.method, Method, "CEM()")
        instance("cost", self.cost, Costable, "a model with get_cost")
        instance("bounds", self.bounds, Bounds, "Bounds(-1, 1)", optional=True)
        instance("callbacks", self.callbacks, Sequence, "()")
        placed(self.dtype, self.device)
        self.iterations = integer("iterations", self.iterations, 1)
        self.seed, self.device = integer("seed", self.seed), torch.device(self.device)
        if self.batch_size is not None:
            self.batch_size = integer("batch_size", self.batch_size, 1)
        self.action_dim = self.n_envs = self.horizon = self._choices = self._calls = 0
        self._box = self.bounds

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:
        """Set the sizes from a vectorised space, a box or choices, and a `PlanConfig`.

        Raises: ValueError if the space and the method do not fit.
        Warns: RuntimeWarning if the space has a box and `bounds` is None.
        """
        options, kind = _options(action_space), "choices" if self.method.discrete else "a box"
        fits = self.method.discrete == (options > 0)
        require(fits, f"action_space must hold {kind} for {self.method}, got {action_space}")

        def chosen(name: str, value: Any) -> Any:
            if not options or name.rpartition(".")[2] != "choices":
                return value
            require(value in (None, options), f"choices must be {options}, got {value}")
            return options

        self.method = walk(chosen, self.method)
        if self.bounds is None:
            self._box = _space_box(action_space)
        controls = math.prod(map(int, action_space.shape[1:])) * (options or 1)
        self.action_dim = controls * integer("action_block", config.action_block, 1)
        self.n_envs, self._choices = integer("n_envs", n_envs, 1), options
        self.horizon = integer("horizon", config.horizon, 1)

    def solve(self, info_dict: Mapping[str, Any], init_action: Tensor | None = None) -> Any:
        """Plan for every environment in `info_dict`.

        Args:
            info_dict: tensors or arrays [B, …]; other values are passed on unchanged.
            init_action: [B, T ≤ H, A], the start, or the numbers of choices; the rest is zero.
        Returns: the platform's dictionary: `actions` [B, H, A] (the numbers of choices) and `mean`
            on the CPU, `var` (a standard deviation, as there), `costs`, and `callbacks`' results.
        Raises: RuntimeError before `configure`; ValueError on another shape or without a batch.
        """
        if not self.horizon:
            raise RuntimeError("configure must be called before solve")
        B = next((len(value) for value in info_dict.values() if _is_batch(value)), 0)
        require(B > 0, f"info_dict must hold tensors or arrays [B, …], got {list(info_dict)}")
        start = torch.zeros(B, self.horizon, self.action_dim, dtype=self.dtype, device=self.device)
        if init_action is not None:
            given, (B, H, A) = torch.as_tensor(init_action, device=start.device), start.shape
            if self._choices:
                numbers = torch.arange(self._choices, device=start.device)
                given = (given.unsqueeze(-1) == numbers).flatten(-2)
            T, shape = given.shape[1] if given.ndim == 3 else 0, list(given.shape)
            fits = shape == [B, T, A] and H >= T
            require(fits, f"init_action must be [{B}, at most {H}, {A}], got {shape}")
            start[:, :T] = given.to(start)
        streams = problem_seeds(self.seed + self._calls, B, start.device)
        self._calls += 1
        size = self.batch_size or B
        for recorder in self.callbacks:
            recorder.reset()
        some = [slice(b, b + size) for b in range(0, B, size)]
        plans = [self._plan(info_dict, at, start, streams) for at in some]
        actions = torch.cat([plan.actions for plan in plans]).cpu()
        spread = torch.cat([plan.spread for plan in plans]).cpu()
        costs = torch.cat([plan.cost for plan in plans]).tolist()
        out = {"actions": actions, "mean": [actions], "var": [spread], "costs": costs}
        if self._choices:
            out["actions"] = actions.unflatten(-1, (-1, self._choices)).argmax(-1)
        if self.callbacks:
            for recorder in self.callbacks:
                recorder.end_solve()
            out["callbacks"] = {each.output_key: each.history for each in self.callbacks}
        return out

    __call__ = solve

    def _plan(self, info: Mapping[str, Any], at: slice, start: Tensor, streams: Tensor) -> Plan:
        """Plan for some environments at once."""
        expanded: dict[int, dict[str, Any]] = {}

        def part(value: Any, size: int) -> Any:
            whole = not _is_batch(value) or len(value) != len(start)
            return value if whole else self._expand(value[at], size)

        def cost(candidates: Tensor) -> Tensor:
            S = candidates.shape[1]
            if S not in expanded:
                expanded.clear()
                expanded[S] = {name: part(value, S) for name, value in info.items()}
            # The same dictionary in every iteration: the platform's models cache encodings in it.
            return self.cost.get_cost(expanded[S], candidates)

        def record(now: Progress) -> None:
            for recorder in self.callbacks:
                recorder(step=now.iteration, candidates=now.candidates, costs=now.costs)

        for recorder in self.callbacks:
            recorder.start_batch()
        return optimize(
            self.method,
            cost,
            start[at],
            iterations=self.iterations,
            bounds=self._box,
            seed=streams[at],
            callback=record if self.callbacks else None,
        )

    def _expand(self, value: Any, size: int) -> Any:
        """[B, …] to [B, S, …], on the search's device; floats in its dtype."""
        if not isinstance(value, Tensor):
            if getattr(getattr(value, "dtype", None), "kind", None) not in tuple("biuf"):
                return value
            value = torch.from_numpy(value)
        dtype = self.dtype if value.is_floating_point() else value.dtype
        value = value.to(device=self.device, dtype=dtype).unsqueeze(1)
        return value.expand(-1, size, *value.shape[2:])


def _options(space: Any) -> int:
    """Options of each choice in a gymnasium space; 0 if it holds numbers."""
    rows = getattr(space, "nvec", None)
    if rows is None:
        kind = getattr(getattr(space, "dtype", None), "kind", "f")
        single = tuple(space.shape) == () and kind == "i"
        require(single or kind == "f", f"action_space must hold floats or choices, got {space}")
        return int(space.n) if single else 0
    options = set(torch.as_tensor(rows, device="cpu").flatten().tolist())
    require(len(options) == 1, f"action_space must have one number of options, got {space}")
    return int(options.pop())


def _space_box(space: Any) -> Bounds | None:
    """The bounds of one environment; None if the space has none."""
    edges = [getattr(space, name, None) for name in ("low", "high")]
    if edges[0] is None or edges[1] is None:
        return None
    low, high = (torch.tensor(edge, dtype=torch.float64, device="cpu").flatten(1) for edge in edges)
    same = bool((low == low[0]).all() and (high == high[0]).all())
    require(same, f"action_space must have the same box for every environment, got {space}")
    if not bool((low.isfinite() | high.isfinite()).any()):
        return None
    warnings.warn(
        "bounds are None: plans keep to the action space's box as if the model took raw actions; "
        "give bounds with the mean and std of the action scaler (0 and 1 without one)",
        RuntimeWarning,
        stacklevel=3,
    )
    return Bounds(low[0], high[0])


def _is_batch(value: Any) -> bool:
    """Whether a value may be [B, …]."""
    text = isinstance(value, (str, Mapping))
    return isinstance(value, Sized) and not text and getattr(value, "shape", None) != ()
