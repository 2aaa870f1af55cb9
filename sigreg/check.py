"""Check that several processes compute what one would, on your own ranks, group and layer."""

from typing import NamedTuple

import torch

from sigreg import _arguments as require
from sigreg._distributed import device_of, group_name, over_ranks, whereabouts
from sigreg.directions import random_directions
from sigreg.functional import sigreg_loss
from sigreg.module import SIGReg

__all__ = ["DistributedCheck", "check_distributed"]


class DistributedCheck(NamedTuple):
    """What `check_distributed` found."""

    ranks: int  #: how many ranks share the samples
    loss_error: float  #: |loss − loss of one process with all samples|, relative
    gradient_error: float  #: the same of a parameter's gradient, averaged over ranks as DDP does


def check_distributed(regularizer: SIGReg | None = None) -> DistributedCheck:
    """Check that the ranks of a group compute what one process would.

    Every rank calls it. It cuts a known batch into shards of unequal size and compares loss and
    averaged gradient with those of the whole batch, and seed and step between the ranks. It runs on
    the layer's device; without a layer, on the device of the group's messages.

    Args:
        regularizer: the layer to check, in its present state; None makes a small one.
    Returns: DistributedCheck, both errors below 1e-4.
    Raises: RuntimeError if the ranks disagree with each other or with one process.
    """
    if regularizer is not None:
        require.kind("regularizer", regularizer, SIGReg)
    layer = SIGReg(num_proj=64) if regularizer is None else regularizer
    name = group_name(layer.group)
    layer = layer.to(device_of(name) if regularizer is None else layer.step.device)
    ranks, rank = whereabouts(name)
    dim, sizes = 16, [8 * r + 3 * (ranks < 3) for r in range(ranks)]
    batch = 6.0 * random_directions(sum(sizes), dim, seed=1, step=0, device=layer.step.device)
    results = []
    for group, x in ((None, batch), (layer.group, torch.split(batch, sizes)[rank])):
        weight = torch.eye(dim, device=x.device, requires_grad=True)
        loss = sigreg_loss(
            x @ weight, layer.current(x), layer.quadrature, scale_by_n=layer.scale_by_n,
            group=group, backend=layer.backend, chunk=layer.chunk,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, weight)
        results.append((loss.detach(), gradient))
    (loss, gradient), (shared_loss, shared_gradient) = results
    if shared_loss.isnan():
        raise RuntimeError(
            f"{ranks} ranks use different directions, or a message was lost: seed and step must "
            f"agree, got {layer.seed} and {int(layer.step)} here"
        )
    (total,) = over_ranks([shared_gradient], None, name)
    found = DistributedCheck(
        ranks,
        float((shared_loss - loss).abs() / loss),
        float((total / ranks - gradient).norm() / gradient.norm()),
    )
    wrong = not (found.loss_error < 1e-4 and found.gradient_error < 1e-4)
    (anywhere,) = over_ranks([loss.new_tensor(wrong)], None, name)
    if anywhere or wrong:  # on all ranks or on none
        raise RuntimeError(f"SIGReg on {ranks} ranks differs from one process: {found}")
    return found
