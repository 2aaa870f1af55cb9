"""Goals score imagined futures: [B, S, H, D] -> [B, S].

Goals add and scale: `near(z_goal) + 0.5 * state(head, target)`. `frames` says which futures count,
with d_h the score of future h and H the last; `weights` [H] replace it by Σ_h w_h d_h.

    "last"      d_H                        published; all plans that arrive in time cost the same,
                                           so the whole plan must be executed
    "nearest"   min_h d_h + mean_h d_h/20  come close at any time, and soon: for replanning
    "mean"      mean_h d_h                 arrive early; avoids detours

Comparisons run in float32 or better, outside of autocast, whatever the dtype of the rollout.

Letters: B problems, S plans, H futures, D embedding dims, Q outputs of a head.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.records import as_tensor

__all__ = ["Goal", "avoid", "charge", "near", "region", "reward", "state", "temporal", "typical"]

Head = Callable[[Tensor], Tensor]
Frames = Literal["last", "mean", "nearest"]
FRAMES: tuple[Frames, ...] = get_args(Frames)
Weights = Tensor | Sequence[float] | None

SOON = 1 / 20
"""Share of the mean in "nearest": of two plans that come equally close, the sooner one is cheaper.
It is small enough that a detour around a wall still pays."""


@checked()
@dataclass(frozen=True)
class Goal:
    """A weighted sum of scores of futures."""

    #: Weights, and functions z [B, S, H, D], float32 -> [B, S]; lower is better.
    terms: tuple[tuple[float, Callable[[Tensor], Tensor]], ...]
    last_step: bool = False  #: Whether all of them look at the last future alone.

    def __call__(self, z: Tensor) -> Tensor:
        """Score futures [B, S, H, D]: [B, S], with the attribute `last_step`."""
        if z.dim() != 4:
            raise ValueError(f"z must be futures [B, S, H, D], got {list(z.shape)}")
        with exactly(z):
            z = precise(z)
            scores = [s if w == 1 else w * s for w, s in ((w, term(z)) for w, term in self.terms)]
            total = sum(scores[1:], scores[0])
        # A controller reads it from the tensor.
        total.last_step = self.last_step  # type: ignore[attr-defined]
        return total

    def of(self, futures: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """This goal as a cost of actions [B, S, H, A] -> [B, S]: `goal(futures(actions))`."""
        return lambda actions: self(futures(actions))

    def __add__(self, other: "Goal") -> "Goal":
        return Goal(self.terms + other.terms, self.last_step and other.last_step)

    def __mul__(self, weight: float) -> "Goal":
        return Goal(tuple((weight * w, term) for w, term in self.terms), self.last_step)

    __rmul__ = __mul__


@checked(z_goal="* D")
def near(
    z_goal: Tensor, frames: Frames = "last", weights: Weights = None, *, metric: Head | None = None
) -> Goal:
    """Close to an embedding: d_h = ‖ẑ_h − z_goal‖², or ‖metric(ẑ_h) − metric(z_goal)‖².

    Args:
        z_goal: [B, D], or [D] for all problems; `Imagination.embed` makes it of a picture.
        frames, weights: which futures count; see above.
        metric: [..., D] -> [..., Q], such as `heads.fit_metric`'s; None: the embeddings themselves.
    Returns: Goal.
    Source: LeWM, arXiv:2603.19312, Section 3 ("last"); sum over D as in the released code.
    """
    if metric is not None:
        return state(metric, metric(precise(as_tensor(z_goal))), frames, weights)
    return temporal(lambda z, goal: (z - goal).square().sum(-1), z_goal, frames, weights)


@checked(target="* Q")
def state(
    head: Head,
    target: Tensor,
    frames: Frames = "last",
    weights: Weights = None,
    *,
    scale: Tensor | float = 1.0,
) -> Goal:
    """Close to a state, or to a part of one, as a head reads it from the embedding.

        d_h = Σ_q ((head(ẑ_h)_q − target_q) / scale_q)²      over the q whose target is given

    Args:
        head: [..., D] -> [..., Q], such as `heads.fit_head`'s.
        target: [B, Q], or [Q] for all problems; NaN where a quantity does not matter.
        frames, weights: which futures count; see above.
        scale: the unit of each quantity, [Q] or a number: its tolerance, or its deviation.
    Returns: Goal.
    Source: a linear probe as cost raises LeWM from 14 to 70 % at offset 100, arXiv:2608.10145.
    """
    wanted = _per_problem(target)
    given = ~wanted.isnan()

    def distance(z: Tensor) -> Tensor:
        y = head(z)
        _match("target", target, y)
        return torch.where(given, (y - wanted) / scale, 0.0).square().sum(-1)

    return _goal(distance, frames, weights)


@checked(low="* P", high="* Q")
def region(
    head: Head, low: Tensor, high: Tensor, frames: Frames = "last", weights: Weights = None
) -> Goal:
    """Anywhere inside a box of quantities.

        d_h = Σ_q max(low_q − y_q, 0, y_q − high_q)²,    y = head(ẑ_h)

    Args:
        head: [..., D] -> [..., Q].
        low, high: [B, Q] or [Q]; infinite where there is no bound.
        frames, weights: which futures count; see above.
    Returns: Goal; 0 inside.
    """
    inside = _inside(head, low, high)
    return _goal(lambda z: inside(z).clamp_max(0).square().sum(-1), frames, weights)


@checked()
def reward(head: Head, frames: Frames = "mean", weights: Weights = None) -> Goal:
    """A large output of a head: d_h = −min_k head(ẑ_h)_k.

    Args:
        head: [..., D] -> [..., K], an ensemble, whose least output counts, or [..., D] -> [...].
        frames: "mean" for a reward; "last" for a value of what comes after the plan.
        weights: [H], in place of `frames`, such as discounts.
    Returns: Goal.
    Source: the ensemble's minimum, arXiv:2601.21306.
    """

    def loss(z: Tensor) -> Tensor:
        y = head(z)
        return -(y.amin(-1) if y.dim() == z.dim() else y)

    return _goal(loss, frames, weights)


@checked(z_goal="* D")
def temporal(
    head: Callable[[Tensor, Tensor], Tensor],
    z_goal: Tensor,
    frames: Frames = "last",
    weights: Weights = None,
) -> Goal:
    """Few steps from an embedding, by a learned distance: d_h = head(ẑ_h, z_goal).

    Args:
        head: z [..., D], z_goal [..., D] -> [...], such as `heads.fit_distance`'s log(1 + steps).
        z_goal: [B, D], or [D] for all problems.
        frames, weights: which futures count; see above.
    Returns: Goal.
    """
    goal = _per_problem(z_goal)

    def distance(z: Tensor) -> Tensor:
        _match("z_goal", z_goal, z)
        return head(z, goal.expand_as(z))

    return _goal(distance, frames, weights)


@checked(low="* P", high="* Q")
def avoid(head: Head, low: Tensor, high: Tensor) -> Callable[[Tensor], Tensor]:
    """A constraint, for `planners.AugmentedLagrangian` or `charge`: stay out of a box.

        c_h = min_q min(y_q − low_q, high_q − y_q) ≤ 0,    y = head(ẑ_h)

    Args:
        head: [..., D] -> [..., Q].
        low, high: [B, Q] or [Q].
    Returns: z [B, S, H, D] -> [B, S, H], how deep each future lies inside; negative outside.
    """
    inside = _inside(head, low, high)

    def depth(z: Tensor) -> Tensor:
        with exactly(z):
            return inside(precise(z)).amin(-1)

    return depth


@checked(z="N D", share="(0, 1)")
def typical(z: Tensor, share: float = 0.99) -> Callable[[Tensor], Tensor]:
    """A constraint: stay near the embeddings of the data.

        m(z) = (z − μ)ᵀ Σ⁻¹ (z − μ),    c_h = m(ẑ_h) / m_share − 1 ≤ 0

    μ and Σ are the mean and covariance of the data's embeddings. Variances below a thousandth of
    their mean are raised to it, because in imagined embeddings they are rounding.

    Args:
        z: [N, D], embeddings of data, N > D.
        share: in (0, 1), of them that stay below m_share.
    Returns: z [B, S, H, D] -> [B, S, H].
    Raises: ValueError unless N > D.
    """
    if len(z) <= z.shape[1]:
        raise ValueError(f"z must be [N, D] with N > D, got {list(z.shape)}")
    seen = precise(z.detach())
    mean = seen.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(seen.T).reshape(len(mean), len(mean)))
    whiten = vectors * values.clamp_min(1e-3 * values.mean()).rsqrt()
    limit = ((seen - mean) @ whiten).square().sum(-1).quantile(share)

    def beyond(z: Tensor) -> Tensor:
        with exactly(z):
            return ((z.to(mean) - mean) @ whiten).square().sum(-1) / limit - 1

    return beyond


@checked()
def charge(
    constraint: Callable[[Tensor], Tensor], frames: Frames = "mean", weights: Weights = None
) -> Goal:
    """A constraint as a goal, for planners without constraints: d_h = max(c_h, 0)².

    Args:
        constraint: z [B, S, H, D] -> [B, S, H], satisfied where ≤ 0.
        frames, weights: which futures count; see above.
    Returns: Goal; its weight is the price.
    """
    return _goal(lambda z: constraint(z).clamp_min(0).square(), frames, weights)


def _goal(score: Head, frames: Frames, weights: Weights) -> Goal:
    """A goal from a score of each future, [B, S, H, D] -> [B, S, H]."""
    last_step = frames == "last" and weights is None
    if weights is not None:
        home = weights.device if isinstance(weights, Tensor) else "cpu"
        by = torch.as_tensor(weights, dtype=torch.float32, device=home)
        if by.dim() != 1 or frames == "nearest":
            got = f"{list(by.shape)} and {frames!r}"
            raise ValueError(f"weights must be [H], in place of frames, got {got}")
        on = cache(by.to)  # copied to the device of the futures once

    def term(z: Tensor) -> Tensor:
        if last_step:
            return score(z[:, :, -1:])[..., 0]
        each = score(z)
        if weights is not None:
            if len(by) != z.shape[2]:
                raise ValueError(f"weights must be [H] = [{z.shape[2]}], got {list(by.shape)}")
            return (each * on(z.device)).sum(-1)
        mean = each.mean(-1)
        return each.amin(-1).add(mean, alpha=SOON) if frames == "nearest" else mean

    return Goal(((1.0, term),), last_step)


def precise(value: Tensor) -> Tensor:
    """In float32 at least."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _per_problem(value: Tensor) -> Tensor:
    """[B, Q] or [Q] beside futures [B, S, H, Q]."""
    return precise(as_tensor(value).detach()).unsqueeze(-2).unsqueeze(-2)


def _inside(head: Head, low: Tensor, high: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of z: how far each output of a head lies inside its bounds, [B, S, H, Q]."""
    least, most = _per_problem(low), _per_problem(high)

    def inside(z: Tensor) -> Tensor:
        y = head(z)
        _match("low", low, y)
        _match("high", high, y)
        return torch.minimum(y - least, most - y)

    return inside


def _match(name: str, value: Tensor, y: Tensor) -> None:
    """Refuse a shape that would broadcast in another way."""
    shape = list(value.shape)
    if shape not in ([y.shape[-1]], [len(y), y.shape[-1]]):
        raise ValueError(
            f"{name} must be [B, {y.shape[-1]}] with B = {len(y)}, or [{y.shape[-1]}], got {shape}"
        )


def exactly(z: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off: rounding to 8 bits changes half of 30 elites."""
    if not torch.amp.is_autocast_available(z.device.type):
        return nullcontext()
    return torch.autocast(z.device.type, enabled=False)
