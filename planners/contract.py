"""The contract: what a cost, the bounds, a method and a plan are.

Letters: B problems, S candidates, H horizon, A action dims.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from planners._arguments import calls, floats, require, shown
from planners.noise import Noise

__all__ = ["Bounds", "Cost", "Method", "Plan", "Progress", "Scored", "State", "from_dynamics"]

Step = Callable[[Tensor, Tensor], Tensor]
Stopped = Literal["iterations", "converged", "deadline"]
Std = float | tuple[float, ...]  # a number, or one per action dim
_Row = Tensor | Sequence[float] | float
Cost = Callable[[Tensor], Tensor]
"""[B, S, H, A] candidate actions -> [B, S] costs; lower is better, non-finite is worst.

A cost of the last step alone can set the attribute `last_step` to true, on itself or on the tensor
it returns. `MPC` then warns if it executes less than a plan.
"""


@runtime_checkable
class State(Protocol):
    """What a method remembers between iterations: a frozen record.

    `spread` is 0 for a method that follows a path, inf for a method that cannot have settled.
    """

    @property
    def cost(self) -> Tensor:
        """[B], the cost of `Method.plan`; see `Plan.cost`."""

    @property
    def spread(self) -> Tensor | float:
        """[B, …] or a number, how far around its plan the method still looks."""


StateT = TypeVar("StateT", bound=State)


class Scored(NamedTuple):
    """What a method learns of its scored candidates."""

    candidates: Tensor  #: [B, S, H, A], as asked for and projected to the bounds.
    costs: Tensor  #: [B, S], +inf where the cost was not finite.
    #: [B, S, H, A], of each cost, 0 where not finite; empty unless the candidates required grad.
    grads: Tensor
    noise: Noise  #: The stream of this iteration; `ask` has not drawn from all of its lanes.


@runtime_checkable
class Method(Protocol[StateT]):
    """A planner: a frozen dataclass of hyperparameters that defines only its own update.

    `optimize` repeats: ask, project to the bounds, score, tell. The state holds all that a method
    remembers, and `noise` is its only randomness. Nothing is inherited. The methods of this package
    raise ValueError on a hyperparameter out of range, TypeError on one of another type.
    """

    @property
    def discrete(self) -> bool:
        """Whether actions are choices, each a distribution over A options, without bounds."""

    def init(self, plan: Tensor, previous: StateT | None = None, steps: int = 0, /) -> StateT:
        """The state before the first iteration, from a start [B, H, A] inside the bounds.

        `previous` is the state where the last search ended; its costs are out of date. A method
        keeps what still helps, or nothing. A state that was told nothing is treated as None.
        `steps` actions were executed since; 0 means the same moment, with a search around `plan`.
        """

    def ask(self, state: StateT, noise: Noise) -> Tensor:
        """Candidates [B, S, H, A]; the loop projects them to the bounds and scores them.

        If the tensor requires grad, the loop also returns the gradients of the costs.
        """

    def tell(self, state: StateT, scored: Scored) -> StateT:
        """The next state, from what was scored."""

    def plan(self, state: StateT) -> Tensor:
        """The actions to take, [B, H, A]; the loop projects them to the bounds."""


class Plan(NamedTuple):
    """Result of `optimize`."""

    actions: Tensor  #: [B, H, A], the actions to take, inside the bounds, in planning units.
    #: [B], the lowest cost in the last iteration: of `actions`, if the method returns a candidate.
    #: CEM and MPPI return an average that no iteration has scored.
    cost: Tensor
    history: Tensor  #: [iterations, B], `cost` after each; never rises under `BestSoFar`.
    spread: Tensor  #: [B, H, A], standard deviation of the last iteration's candidates.
    stopped: Stopped = "iterations"  #: What ended it: all iterations, a settled plan, or the clock.
    state: Any = None  #: Of the method, `previous` of a search that goes on from here.


class Progress(NamedTuple):
    """What a callback receives after each iteration."""

    iteration: int  #: Counted from 0.
    candidates: Tensor  #: [B, S, H, A], as they were scored.
    costs: Tensor  #: [B, S], +inf where the cost was not finite.
    plan: Tensor  #: [B, H, A], what would be returned now.
    state: State  #: Of the method; `state.cost` is `Plan.cost`.


def from_dynamics(
    step: Step, running_cost: Step, terminal_cost: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Cost]:
    """Cost functions for planning with known or learned dynamics.

        s_{h+1} = step(s_h, a_h)
        cost    = Σ_h running_cost(s_{h+1}, a_h) + terminal_cost(s_H)

    The running cost takes the state after the step, as in pytorch_mppi, whose functions fit here.

    Args:
        step: (states [N, D], actions [N, A]) -> next states [N, D], N = B · S.
        running_cost: (states [N, D], actions [N, A]) -> [N].
        terminal_cost: states [N, D] -> [N]; None means 0.
    Returns: a function from states [B, D], tensor or array, to a cost [B, S, H, A] -> [B, S].
    Raises: TypeError if a function is not callable; ValueError, from the cost, if batches disagree.
    """
    calls("step", step, "(states [N, D], actions [N, A]) -> [N, D]")
    calls("running_cost", running_cost, "(states [N, D], actions [N, A]) -> [N]")
    calls("terminal_cost", terminal_cost, "states [N, D] -> [N]", optional=True)

    def cost_from(state: Tensor) -> Cost:
        def cost(candidates: Tensor) -> Tensor:
            B, S, H, _ = candidates.shape
            now = torch.as_tensor(state, dtype=candidates.dtype, device=candidates.device)
            floats("state", now, "B D", B=B)
            s = now.repeat_interleave(S, 0)
            total = candidates.new_zeros(B * S)
            for h in range(H):
                a = candidates[:, :, h].flatten(0, 1)
                s = step(s, a)
                total = total + running_cost(s, a)
            if terminal_cost is not None:
                total = total + terminal_cost(s)
            return total.view(B, S)

        return cost

    return cost_from


class Bounds:
    """A box of allowed actions, given in the environment's units.

        low ≤ mean + std · action ≤ high

    A world model is usually trained on normalised actions (a − mean) / std. Give the same mean and
    std here: the planner searches in the model's units, inside the environment's box. Each argument
    has one entry per control, which repeats in a block of several environment steps.

    Args:
        low, high: (A,) or a number, allowed values; a control is fixed where they are equal.
        mean, std: (A,) or a number, of the normalisation. A std of 0 belongs to a control that
            never moved in the data: it is fixed at its mean, moved into the box.
    Raises: ValueError if low > high somewhere, a std is negative, or the lengths differ.
    """

    def __init__(self, low: _Row, high: _Row, *, mean: _Row = 0.0, std: _Row = 1.0) -> None:
        # float64 on the CPU, so that every edge is rounded only once.
        given = {"low": low, "high": high, "mean": mean, "std": std}
        rows = {name: _row(name, value) for name, value in given.items()}
        size = max(row.numel() for row in rows.values())
        for name, row in rows.items():
            n = row.numel()
            require(n in (1, size), f"{name} must have 1 or {size} entries, got {n}")
        self.low, self.high, self.mean, self.std = (row.expand(size) for row in rows.values())
        edges = f"{self.low.tolist()} and {self.high.tolist()}"
        require(bool((self.low <= self.high).all()), f"low must be at most high, got {edges}")
        fits = bool(((self.std >= 0) & self.std.isfinite()).all())
        require(fits, f"std must be finite and at least 0, got {self.std.tolist()}")
        require(bool(self.mean.isfinite().all()), f"mean must be finite, got {self.mean.tolist()}")
        held, value = self.std == 0, self.mean.clamp(self.low, self.high)
        self.low, self.high = self.low.where(~held, value), self.high.where(~held, value)
        self.std = self.std.masked_fill(held, 1.0)
        # Cached per (width, dtype, device): a CUDA graph must not copy to a device.
        self._rows: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def __repr__(self) -> str:
        rows = (f"{k}={getattr(self, k).tolist()}" for k in ("low", "high", "mean", "std"))
        return f"Bounds({', '.join(rows)})"

    def _tiled(self, like: Tensor) -> tuple[Tensor, ...]:
        """Low and high in planning units, then low, high, mean, std as given: [A] each."""
        if not (isinstance(like, Tensor) and like.is_floating_point() and like.ndim):
            raise TypeError(f"actions, or like, must be a float tensor [..., A], got {shown(like)}")
        A, size = like.shape[-1], self.low.numel()
        key = (A, like.dtype, like.device)
        if key in self._rows:
            return self._rows[key]
        require(A % size == 0, f"bounds have {size} entries, which must divide A, got A = {A}")
        edges = torch.stack([self.low, self.high])
        inner = _rounded_inwards((edges - self.mean) / self.std, like.dtype)
        outer = _rounded_inwards(edges, like.dtype)
        rows = (*inner, *outer, self.mean.to(like.dtype), self.std.to(like.dtype))
        tiled = tuple(row.repeat(A // size).to(like.device) for row in rows)
        # Tensors made while a graph is traced must not be cached.
        if not torch.compiler.is_compiling():
            self._rows[key] = tiled
        return tiled

    def box(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The box in planning units, low and high [A], for actions like `like` [..., A]."""
        low, high = self._tiled(like)[:2]
        return low, high

    def to_environment(self, actions: Tensor) -> Tensor:
        """Actions [..., A] in the environment's units, inside the box to the last bit."""
        low, high, mean, std = self._tiled(actions)[2:]
        return (actions * std + mean).clamp(low, high)

    def from_environment(self, actions: Tensor) -> Tensor:
        """Actions [..., A] in planning units, (a − mean) / std."""
        mean, std = self._tiled(actions)[4:]
        return (actions - mean) / std


def _row(name: str, value: _Row) -> Tensor:
    """[n], float64 on the CPU; from a tensor by its numbers: some devices have no float64."""
    try:
        numbers = value.tolist() if isinstance(value, Tensor) else value
        row = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number or one per control, got {shown(value)}") from None
    shape = list(row.shape)
    require(row.ndim < 2 and row.numel() > 0, f"{name} must be a number or (A,), got {shape}")
    return row.reshape(-1)


def _rounded_inwards(edges: Tensor, dtype: torch.dtype) -> Tensor:
    """Round edges [2, n] to a dtype of fewer digits, never outwards; equal edges stay equal."""
    limits, near = torch.finfo(dtype), edges.to(dtype)
    way = edges.new_tensor([[1], [-1]])  # a low edge may move up, a high one down
    beyond = (near.double() - edges) * way < 0
    moved = edges + way * limits.eps * (edges.abs() + limits.tiny)
    inner = torch.where(beyond, moved.clamp(limits.min, limits.max).to(dtype), near)
    return inner.where(inner[0] <= inner[1], near)
