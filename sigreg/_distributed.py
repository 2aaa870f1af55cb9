"""One sum over ranks. The only file that touches torch.distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from sigreg.module import SIGReg

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


class DistributedCheck(NamedTuple):
    """What `check_distributed` found.

    Attributes:
        ranks: how many ranks share the samples.
        loss_error: |loss − loss of one process with all samples|, relative.
        gradient_error: the same of a parameter's gradient, averaged over the ranks as DDP does.
    """

    ranks: int
    loss_error: float
    gradient_error: float


def check_distributed(
    regularizer: SIGReg | None = None, *, device: torch.device | str = "cpu"
) -> DistributedCheck:
    """Check, on the ranks and group in use, that many processes compute what one would.

    Every rank calls it. A batch known to all is cut into shards of uneven size, the first of them
    empty; loss and averaged gradient are compared with those of the uncut batch. Also checked:
    that seed and step agree on all ranks, without which they would look along different
    directions.

    Args:
        regularizer: the layer to check, in its present state; None makes a small one.
        device: where the ranks compute; the current GPU for NCCL.
    Returns: DistributedCheck, both errors below 1e-4.
    Raises: RuntimeError if ranks disagree with each other or with one process.
    """
    from sigreg.directions import random_directions
    from sigreg.functional import sigreg_loss
    from sigreg.module import SIGReg

    layer = SIGReg(num_proj=64).to(device) if regularizer is None else regularizer
    group = resolve(group_name(layer.sync))
    ranks, rank = world_size(group), torch.distributed.get_rank(group) if group else 0
    state = torch.tensor([layer.seed, int(layer.step)], device=device)
    spread = torch.cat((state, -state))
    if group is not None:
        torch.distributed.all_reduce(spread, torch.distributed.ReduceOp.MAX, group)
    if not torch.equal(spread[:2], -spread[2:]):
        raise RuntimeError(
            f"seed and step of SIGReg differ between ranks: at most {spread[:2].tolist()}, at "
            f"least {(-spread[2:]).tolist()}; build every rank alike and load the same state"
        )
    dim, sizes = 16, [8 * r if ranks > 1 else 8 for r in range(ranks)]
    batch = 6.0 * random_directions(sum(sizes), dim, seed=1, step=0, device=device)
    directions = random_directions(
        layer.num_proj, dim, seed=layer.seed, step=layer.step, device=device, sampler=layer.sampler
    )
    results = []
    shards: list[tuple[ProcessGroup | Literal["auto", False], Tensor]] = [
        (False, batch),
        (layer.sync, torch.split(batch, sizes)[rank]),
    ]
    for sync, x in shards:
        weight = torch.eye(dim, device=device, requires_grad=True)
        loss = sigreg_loss(
            x @ weight,
            directions,
            layer.quadrature(x),
            scale_by_n=layer.scale_by_n,
            group=sync,
            backend=layer.backend,
            chunk=layer.chunk,
        )
        (gradient,) = torch.autograd.grad(loss, weight)
        results.append((loss.detach(), gradient))
    (loss, gradient), (shared_loss, shared_gradient) = results
    shared_gradient = sum_over_ranks(shared_gradient.clone(), group) / ranks
    found = DistributedCheck(
        ranks=ranks,
        loss_error=float((shared_loss - loss).abs() / loss),
        gradient_error=float((shared_gradient - gradient).norm() / gradient.norm()),
    )
    if not (found.loss_error < 1e-4 and found.gradient_error < 1e-4):
        raise RuntimeError(f"SIGReg on {ranks} ranks differs from one process: {found}")
    return found
