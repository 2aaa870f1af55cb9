"""Several processes on one batch: batch statistics over all, averaged gradients, shared weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.apps.ranks import Ranks
from worldmodel.layers import AdaLNBlock, ViTBlock

__all__ = ["SharedBatchNorm", "everyone", "part", "shared", "synchronise", "whole"]


def shared(module: nn.Module, ranks: Ranks, sharded: bool = False) -> nn.Module:
    """`module` with every gradient averaged over the ranks, on their common weights.

    Args:
        module: on this rank's device.
        ranks: several.
        sharded: each holds a part of every parameter, split in place (FSDP2), instead of all of
            them (DDP); each block gathers its own in turn.
    """
    if not sharded:
        gpu = ranks.device.startswith("cuda")
        return nn.parallel.DistributedDataParallel(
            module, device_ids=[torch.device(ranks.device)] if gpu else None
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.size,))
    for piece in list(module.modules()):
        if isinstance(piece, (ViTBlock, AdaLNBlock)):
            fully_shard(piece, mesh=mesh)
    fully_shard(module, mesh=mesh)
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
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


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
        # Reduced precision would lose the variance: moments are float32 at least, as in torch.
        wide = x if x.dtype == torch.float64 else x.float()
        first = _sum(torch.cat([wide.new_tensor([len(x)]), wide.sum(0)]))
        n, mean = first[0].detach(), first[1:] / first[0].detach()
        centred = wide - mean
        # Two passes: squares of centred values do not cancel.
        variance = _sum(centred.square().sum(0)) / n
        with torch.no_grad():
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            unbiased = variance * (n / (n - 1).clamp_min(1))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
            self.num_batches_tracked += 1
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
    """Let every BatchNorm1d of a model use the batch of all ranks, in place.

    Raises: TypeError for other batch norms, which would keep each rank's own statistics.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm1d:
                setattr(module, name, _shared(child))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(
                child, SharedBatchNorm
            ):
                raise TypeError(
                    f"batch norms must be BatchNorm1d to be shared by ranks, got {child}"
                )


def _shared(norm: nn.BatchNorm1d) -> SharedBatchNorm:
    if norm.momentum is None or not norm.affine or not norm.track_running_stats:
        raise TypeError(
            f"a batch norm to be shared must have momentum, weights and running values, got {norm}"
        )
    shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    # The same tensors, so that an optimizer made before still holds them.
    shared.weight, shared.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(shared, name, buffer)
    return shared.train(norm.training)
