"""The sum over ranks. No other file uses torch.distributed."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

Group: TypeAlias = 'ProcessGroup | DeviceMesh | Literal["auto"] | None'


def group_name(group: Group) -> str:
    """Name of the group to sum over; "" means this process alone.

    "auto" is looked up at every call, because layers are often built before the process group.
    """
    if group is None or not torch.distributed.is_available():
        return ""
    from torch.distributed.device_mesh import DeviceMesh

    if isinstance(group, str) and group == "auto":
        if not torch.distributed.is_initialized():
            return ""
        group = torch.distributed.group.WORLD
    elif isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"group must be one dimension of a device mesh, such as mesh['dp'], got {group}"
            )
        group = group.get_group()
    # `new_group` returns this object to ranks outside the group.
    outside: Any = torch.distributed.GroupMember.NON_GROUP_MEMBER
    known = isinstance(group, torch.distributed.ProcessGroup)
    if group == outside or (known and torch.distributed.get_rank(group) < 0):
        raise ValueError("group must contain the rank that calls, got a group without it")
    if not isinstance(group, torch.distributed.ProcessGroup):
        raise ValueError(
            f'group must be "auto", None, a process group or a device mesh, got {group!r}'
        )
    return "" if torch.distributed.get_world_size(group) == 1 else str(group.group_name)


def _resolve(name: str) -> "ProcessGroup":
    return torch.distributed.distributed_c10d._resolve_process_group(name)  # type: ignore


def whereabouts(name: str) -> tuple[int, int]:
    """The number of ranks and the number of this one; (1, 0) for ""."""
    if not name:
        return 1, 0
    group = _resolve(name)
    return torch.distributed.get_world_size(group), torch.distributed.get_rank(group)


def device_of(name: str) -> torch.device:
    """The device of the group's messages: the current GPU for NCCL, else the CPU."""
    if name and "nccl" in torch.distributed.get_backend(_resolve(name)):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class _SumOverRanks(torch.autograd.Function):
    """Sums, not means: the ranks may hold different numbers of samples, or none."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, name: str) -> Tensor:
        ctx.ranks, _ = whereabouts(name)
        total = packed.clone()
        torch.distributed.all_reduce(total, group=_resolve(name))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # All ranks hold the same loss, so no message is needed. DDP and FSDP divide by the ranks.
        return gradient * ctx.ranks, None


def over_ranks(parts: list[Tensor], mark: Tensor | None, name: str) -> list[Tensor]:
    """Sum each part over the ranks in one message; NaN if the ranks' marks differ.

    Marks are small digits: every floating dtype adds them and their squares exactly. R Σ m² = (Σ
    m)² holds only if all R marks are equal. The comparison does not wait for the device.
    """
    if not name:
        return parts
    digits = parts[0].new_zeros(8) if mark is None else mark.to(parts[0])
    packed = torch.cat([part.flatten() for part in (*parts, digits, digits.square())])
    total: Tensor = _SumOverRanks.apply(packed, name)  # type: ignore[no-untyped-call]
    *sums, first, second = total.split([part.numel() for part in (*parts, digits, digits)])
    same = (whereabouts(name)[0] * second.double() == first.double().square()).all()
    valid = torch.where(same, 1.0, torch.nan).to(packed)  # a factor: gradients become NaN too
    return [(valid * part).view(shape.shape) for part, shape in zip(sums, parts, strict=True)]
