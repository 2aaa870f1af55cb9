"""Several processes on one batch: batch statistics over all, averaged gradients, shared weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.apps.ranks import Ranks
from worldmodel.layers import AdaLNBlock, ViTBlock

__all__ = ["SharedBatchNorm", "everyone", "part", "shared", "synchronise", "whole"]


def shared(module: nn.Module, ranks: Ranks, sharded: bool = False) -> nn.Module:
    """`module` with every gradient averaged over several ranks, on their common weights.

    Each rank holds all of them (DDP) or, `sharded`, a part, gathered block by block (FSDP2).
    """
    device = torch.device(ranks.device)
    if not sharded:
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (ranks.size,))
    blocks = [piece for piece in module.modules() if isinstance(piece, (ViTBlock, AdaLNBlock))]
    for piece in (*blocks, module):
        fully_shard(piece, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all ranks; every rank must call it."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(value: Tensor, pattern: Tensor) -> Tensor:
    """This rank's part of a whole tensor, sharded like `pattern`, a parameter."""
    if type(pattern) in (Tensor, nn.Parameter):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(pattern, DTensor) or value.shape != pattern.shape:
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


class _Sum(torch.autograd.Function):
    """Sum over the ranks, and over the ranks' gradients on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        total = x.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total

    backward = forward


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm1d whose batch is that of all ranks together.

        y = (x − μ) / √(σ² + ε) · γ + β,   μ, σ² over the rows of every rank

    In training the moments are summed over the default process group, forward and backward; alone,
    or in evaluation mode, it is BatchNorm1d. Names and shapes of its state are BatchNorm1d's.
    Unlike torch's SyncBatchNorm it runs on the CPU (gloo) and in float64. Every rank must call it
    equally often.

    Shapes: [N, C] -> [N, C].
    Source: Ioffe & Szegedy, arXiv:1502.03167; moments by Chan, Golub & LeVeque (1979).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        if not self.training or not _many():
            return super().forward(x)
        mean_of, variance_of, seen = self.running_mean, self.running_var, self.num_batches_tracked
        assert self.momentum is not None
        assert mean_of is not None
        assert variance_of is not None
        assert seen is not None
        # Reduced precision would lose the variance: moments are float32 at least, as in torch.
        wide = x if x.dtype == torch.float64 else x.float()
        first: Tensor = _Sum.apply(torch.cat([wide.new_tensor([len(x)]), wide.sum(0)]))  # type: ignore[no-untyped-call]
        n, mean = first[0].detach(), first[1:] / first[0].detach()
        centred = wide - mean
        # Two passes: squares of centred values do not cancel.
        variance: Tensor = _Sum.apply(centred.square().sum(0)) / n  # type: ignore[no-untyped-call]
        with torch.no_grad():
            unbiased = variance * (n / (n - 1).clamp_min(1))
            mean_of.lerp_(mean.to(mean_of), self.momentum)
            variance_of.lerp_(unbiased.to(variance_of), self.momentum)
            seen += 1
        out = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        normalised: Tensor = out.to(x.dtype)
        return normalised


def everyone() -> Any:
    """The group of all ranks, or "auto" for a process alone: SIGReg scores with it as it trains."""
    return torch.distributed.group.WORLD if _many() else "auto"


def _many() -> bool:
    it = torch.distributed
    return it.is_available() and it.is_initialized() and it.get_world_size() > 1


def synchronise(model: nn.Module) -> None:
    """Let every BatchNorm1d use the batch of all ranks, in place; TypeError for other norms."""
    for norm in model.modules():
        if type(norm) is nn.BatchNorm1d:
            if norm.momentum is None or not norm.affine or not norm.track_running_stats:
                raise TypeError(
                    "a batch norm to be shared must have momentum, weights and running values, "
                    f"got {norm}"
                )
            # It has no state of its own, and an optimizer made before still holds its tensors.
            norm.__class__ = SharedBatchNorm
        elif (
            isinstance(norm, nn.modules.batchnorm._BatchNorm) and type(norm) is not SharedBatchNorm
        ):
            raise TypeError(f"batch norms must be BatchNorm1d to be shared by ranks, got {norm}")
