"""What a cost, the bounds, a method and a plan are: every other file speaks these words.

Letters: B problems, S candidates, H horizon, A action dims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from planners.noise import Noise

__all__ = ["Bounds", "Carried", "Cost", "Method", "Plan", "Progress", "Scored", "State"]

Cost = Callable[[Tensor], Tensor]
"""[B, S, H, A] candidate actions -> [B, S] costs; lower is better, non-finite is worst."""


class State(Protocol):
    """What a method remembers between iterations: a frozen record.

    Attributes:
        cost: [B], the cost that goes with `Method.plan`; see `Plan.cost`.
    """

    @property
    def cost(self) -> Tensor:
        """[B]."""


StateT = TypeVar("StateT", bound=State)


class Scored(NamedTuple):
    """What a method is told after its candidates were scored.

    Attributes:
        candidates: [B, S, H, A], as asked for and projected to the bounds.
        costs: [B, S], +inf where the cost was not finite.
        grads: [B, S, H, A], gradient of each cost, 0 where it was not finite; empty unless
            the candidates required grad.
        noise: the stream of this iteration, with lanes that `ask` has not drawn from.
    """

    candidates: Tensor
    costs: Tensor
    grads: Tensor
    noise: Noise


class Method(Protocol[StateT]):
    """A planner: a frozen dataclass of hyperparameters that knows only its own update.

    `optimize` repeats: ask, project to the bounds, score, tell. Everything a method remembers is
    in the state, everything random comes from `noise`.
    """

    @property
    def discrete(self) -> bool:
        """Whether actions are choices: each is a distribution over A options, and has no bounds."""

    def init(self, plan: Tensor) -> StateT:
        """The state before the first iteration, from a start [B, H, A]."""

    def ask(self, state: StateT, noise: Noise) -> Tensor:
        """Candidates [B, S, H, A]; the loop projects them to the bounds and scores them.

        A tensor that requires grad asks for the gradients of its costs too.
        """

    def tell(self, state: StateT, scored: Scored) -> StateT:
        """The next state, from what was scored."""

    def plan(self, state: StateT) -> Tensor:
        """The actions to take, [B, H, A]; the loop projects them to the bounds."""


class Carried(ABC):
    """A method whose state is worth more than its plan from one control step to the next."""

    @abstractmethod
    def carry(self, state: Any, start: Tensor, steps: int, fresh: Tensor) -> Any:
        """The state to start the next control step with.

        Args:
            state: where the last control step ended.
            start: [B, H, A], the shifted plan.
            steps: how many actions were executed.
            fresh: [B], true where the problem begins anew and must not see `state`.
        """


class Plan(NamedTuple):
    """What `optimize` found.

    Attributes:
        actions: [B, H, A], the actions to take, inside the bounds, in planning units.
        cost: [B], the lowest cost in the last iteration. It is the cost of `actions` where the
            method returns a candidate it has scored (`BestSoFar`, gradient methods, predictive
            sampling); CEM and MPPI return an average that no iteration has scored.
        history: [iterations, B], `cost` after each iteration; never rises under `BestSoFar`.
        spread: [B, H, A], standard deviation of the last iteration's candidates.
    """

    actions: Tensor
    cost: Tensor
    history: Tensor
    spread: Tensor


class Progress(NamedTuple):
    """What a callback sees after each iteration.

    Attributes:
        iteration: counted from 0.
        candidates: [B, S, H, A], as they were scored.
        costs: [B, S], +inf where the cost was not finite.
        plan: [B, H, A], what would be returned now.
        state: of the method; `state.cost` is `Plan.cost`.
    """

    iteration: int
    candidates: Tensor
    costs: Tensor
    plan: Tensor
    state: State


class Bounds:
    """A box of allowed actions, given in the environment's units.

        low ≤ mean + std · action ≤ high

    A world model is usually trained on normalised actions (a − mean) / std. Give the same mean
    and std here, and the planner searches in the model's units while every candidate stays
    inside the environment's box. Each argument has one entry per control of the environment;
    when an action is a block of several environment steps, A = steps · controls, it repeats.

    Args:
        low: (A,) or a number, smallest allowed value.
        high: (A,) or a number, largest allowed value.
        mean: (A,) or a number, subtracted before planning; default 0.
        std: (A,) or a number, positive, divided by before planning; default 1.
    Raises: ValueError if low > high somewhere, a std is not positive, or the lengths differ.
    """

    def __init__(
        self,
        low: Tensor | Sequence[float] | float,
        high: Tensor | Sequence[float] | float,
        *,
        mean: Tensor | Sequence[float] | float = 0.0,
        std: Tensor | Sequence[float] | float = 1.0,
    ) -> None:
        # In float64: (low − mean) / std is rounded once, to the plan's own dtype.
        given = {"low": low, "high": high, "mean": mean, "std": std}
        rows = {k: torch.as_tensor(v).detach().double().reshape(-1) for k, v in given.items()}
        size = max(row.numel() for row in rows.values())
        for name, row in rows.items():
            if row.numel() not in (1, size):
                raise ValueError(f"{name} must have 1 or {size} entries, got {row.numel()}")
        self.low, self.high, self.mean, self.std = (row.expand(size) for row in rows.values())
        if not bool((self.low <= self.high).all()):
            raise ValueError(
                f"low must be at most high, got {self.low.tolist()} and {self.high.tolist()}"
            )
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, got {self.std.tolist()}")
        # Rows per (width, dtype, device) ever asked for: a copy to a device would wait for it,
        # which a CUDA graph forbids.
        self._rows: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def __repr__(self) -> str:
        rows = ((k, getattr(self, k).tolist()) for k in ("low", "high", "mean", "std"))
        return f"Bounds({', '.join(f'{name}={row}' for name, row in rows)})"

    def _tiled(self, like: Tensor) -> tuple[Tensor, ...]:
        """Low and high in planning units, then low, high, mean, std as given: [A] each."""
        key = (like.shape[-1], like.dtype, like.device)
        if key not in self._rows:
            A, size = like.shape[-1], self.low.numel()
            if A % size:
                raise ValueError(f"bounds have {size} entries, which must divide A, got A = {A}")
            inner = ((edge - self.mean) / self.std for edge in (self.low, self.high))
            rows = (*inner, self.low, self.high, self.mean, self.std)
            self._rows[key] = tuple(
                row.repeat(A // size).to(device=like.device, dtype=like.dtype) for row in rows
            )
        return self._rows[key]

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
