"""Small pieces several methods share. Every one gives a problem the same bits in any batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_row", "best", "lowest", "require", "shift", "spread", "weighted_mean"]


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def as_row(value: float | tuple[float, ...], plan: Tensor, name: str) -> Tensor:
    """A positive number, or one per action dim, as [] or [A] like the plan [B, H, A]."""
    entries = value if isinstance(value, tuple) else (value,)
    require(all(entry > 0 for entry in entries), f"{name} must be positive, got {value}")
    if not isinstance(value, tuple):
        return plan.new_full((), value)
    require(
        len(value) == plan.shape[-1],
        f"{name} must have one entry per action dim, {plan.shape[-1]}, got {len(value)}",
    )
    # Filled, not copied from a list: a copy to a device waits for it.
    return torch.stack([plan.new_full((), entry) for entry in value])


def lowest(candidates: Tensor, costs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` candidates of least cost, [B, H·A, K] from the best up, and their costs [B, K].

    Samples come last so that a sum over them runs along memory: its order of additions then
    depends on K alone, not on the batch. Where fewer than K costs are finite, the best stands in
    for the rest.
    """
    values, index = costs.topk(count, dim=1, largest=False)
    index = torch.where(values.isinf(), index[:, :1], index)
    flat = candidates.flatten(2).transpose(1, 2)
    return flat.gather(2, index.unsqueeze(1).expand(-1, flat.shape[1], -1)), values


def best(candidates: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of least cost, [B, H, A], and its cost [B]."""
    least, values = lowest(candidates, costs, 1)
    return least.view(candidates.shape[0], *candidates.shape[2:]), values[:, 0]


def spread(candidates: Tensor) -> Tensor:
    """Standard deviation over the samples, divisor S: [B, H, A]."""
    flat = candidates.flatten(2).transpose(1, 2).contiguous()
    deviation = flat - (flat.sum(-1) / flat.shape[-1]).unsqueeze(-1)
    variance = (deviation * deviation).sum(-1) / flat.shape[-1]
    return variance.sqrt().view(candidates.shape[0], *candidates.shape[2:])


def weighted_mean(candidates: Tensor, weights: Tensor) -> Tensor:
    """Σ_s w_s a_s, [B, H, A] from [B, S, H, A] and [B, S]; same order of additions in any batch."""
    flat = candidates.flatten(2).transpose(1, 2).contiguous()
    return (flat * weights.unsqueeze(1)).sum(-1).view(candidates.shape[0], *candidates.shape[2:])


def shift(actions: Tensor, steps: int, *, repeat: bool = False) -> Tensor:
    """Actions [..., H, A] moved `steps` earlier; the tail is zero, or the last action again."""
    kept = actions[..., steps:, :]
    tail = actions[..., -1:, :].expand(*actions.shape[:-2], steps, actions.shape[-1])
    return torch.cat([kept, tail if repeat else torch.zeros_like(tail)], -2)
