"""One sum over ranks. The only file that touches torch.distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "differentiable_sum_over_ranks",
    "group_name",
    "group_size",
    "resolve",
    "sum_over_ranks",
    "world_size",
]


def group_name(sync: Literal["auto", False] | ProcessGroup | None) -> str:
    """Name of the group to sum over, "" for this process alone.

    "auto" is the default group if one is initialised when this is called, not when the layer was
    built: layers are often built before the process group.
    """
    if sync is False or sync is None or not torch.distributed.is_available():
        return ""
    if isinstance(sync, str):
        if sync != "auto":
            raise ValueError(f'sync must be "auto", False or a process group, got {sync!r}')
        if not torch.distributed.is_initialized():
            return ""
        sync = torch.distributed.group.WORLD
        assert sync is not None
    return sync.group_name if torch.distributed.get_world_size(sync) > 1 else ""


def group_size(sync: Literal["auto", False] | ProcessGroup | None) -> int:
    """How many ranks `sync` would sum over now."""
    return world_size(resolve(group_name(sync)))


def resolve(name: str) -> ProcessGroup | None:
    """The group of that name, None for ""."""
    if not name:
        return None
    from torch.distributed import distributed_c10d

    resolved: ProcessGroup = distributed_c10d._resolve_process_group(name)  # type: ignore
    return resolved


def world_size(group: ProcessGroup | None) -> int:
    """Ranks in the group; None is one rank."""
    return 1 if group is None else torch.distributed.get_world_size(group)


def sum_over_ranks(packed: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum of every rank's `packed`, in place: the only message between ranks.

    Sums and counts, not means: shards may be uneven or empty.
    """
    if group is not None:
        torch.distributed.all_reduce(packed, group=group)
    return packed


class _SumOverRanks(torch.autograd.Function):
    """`sum_over_ranks` with a gradient, for the paths that leave the gradient to autograd."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, name: str) -> Tensor:
        ctx.ranks = world_size(resolve(name))
        return sum_over_ranks(packed.clone(), resolve(name))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every rank holds the same loss of the same sums. No message is needed, only the factor
        # by which DDP and FSDP will divide.
        return gradient * ctx.ranks, None


def differentiable_sum_over_ranks(packed: Tensor, name: str) -> Tensor:
    """Sum of every rank's `packed`; its gradient awaits an average over the ranks."""
    if not name:
        return packed
    total: Tensor = _SumOverRanks.apply(packed, name)  # type: ignore[no-untyped-call]
    return total
