"""Helpers of several methods. A problem gets the same bits in any batch."""

import torch
from torch import Tensor

from planners._arguments import require
from planners.contract import Std


def as_std(value: Std, plan: Tensor, name: str) -> Tensor:
    """One number, or one per action dim, expanded to a plan [B, H, A]."""
    if not isinstance(value, tuple):
        return plan.new_full((), value).expand_as(plan)
    A = plan.shape[-1]
    require(len(value) == A, f"{name} must have one entry per action dim, {A}, got {len(value)}")
    # Filled, because a copy of a list to a device would wait for the device.
    return torch.stack([plan.new_full((), entry) for entry in value]).expand_as(plan)


def unscored(plan: Tensor) -> Tensor:
    """Costs [B] of plans that were not scored: inf."""
    return plan.new_full(plan.shape[:1], torch.inf)


def population(most: int, decay: float, iteration: int, least: int) -> int:
    """The number of candidates of an iteration: `most` · `decay`^−`iteration`, at least `least`."""
    return most if decay == 1 else min(most, max(int(most * decay**-iteration), least))


def mirrored(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Move a start into a box: mirror what is outside at the edge, at most to the middle.

    On a corner half of the first candidates would be lost, and a small spread would stay there.
    """
    middle = (low + high) / 2
    above = torch.minimum(2 * low - actions, middle)
    below = torch.maximum(2 * high - actions, middle)
    moved = torch.where(actions < low, above, torch.where(actions > high, below, actions))
    return moved.clamp(low, high)


def lowest(candidates: Tensor, costs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` candidates of least cost, [B, H·A, K], best first, and their costs [B, K].

    Samples are the last axis, so that a sum over them adds in an order that depends on K alone. If
    fewer than K costs are finite, the best candidate replaces the rest.
    """
    values, index = costs.topk(count, dim=1, largest=False)
    index = torch.where(values == torch.inf, index[:, :1], index)
    flat = candidates.flatten(2).transpose(1, 2)
    return flat.gather(2, index.unsqueeze(1).expand(-1, flat.shape[1], -1)), values


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """One candidate of each problem, [B, H, A], by its number [B]."""
    return candidates.take_along_dim(index[:, None, None, None], 1)[:, 0]


def best(candidates: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of least cost, [B, H, A], and its cost [B]."""
    least, values = lowest(candidates, costs, 1)
    return least.view(candidates.shape[0], *candidates.shape[2:]), values[:, 0]


def gaussian(elites: Tensor, divisor: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of elites [B, H·A, K], each like the plan [B, H, A]."""
    mean = elites.sum(-1) / elites.shape[-1]
    deviation = elites - mean.unsqueeze(-1)
    deviation *= deviation
    std = (deviation.sum(-1) / divisor).sqrt_()
    return mean.view(like.shape), std.view(like.shape)


def shift(actions: Tensor, steps: int, tail: Tensor | None = None) -> Tensor:
    """Move actions [..., H, A] `steps` earlier; append the end of `tail`, or the last action."""
    again = actions[..., -1:, :].expand_as(actions) if tail is None else tail.expand_as(actions)
    H = actions.shape[-2]
    return torch.cat([actions[..., steps:, :], again[..., H - steps :, :]], -2)
