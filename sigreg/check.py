"""Do many processes compute what one would? A check for one's own ranks, group and layer."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sigreg._distributed import device_of, extremes, group_name, sum_over_ranks, whereabouts
from sigreg.directions import random_directions
from sigreg.functional import sigreg_loss
from sigreg.module import SIGReg

__all__ = ["DistributedCheck", "check_distributed"]


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


def check_distributed(regularizer: SIGReg | None = None) -> DistributedCheck:
    """Check, on the ranks and group in use, that many processes compute what one would.

    Every rank calls it. A batch known to all is cut into shards of uneven size, the first of them
    empty if there are more than two; loss and averaged gradient are compared with those of the
    uncut batch. Also checked: that seed and step agree on all ranks, without which they would look
    along different directions. It runs where the layer is; without one, where the group sends its
    messages, which is the current GPU for NCCL.

    Args:
        regularizer: the layer to check, in its present state; None makes a small one.
    Returns: DistributedCheck, both errors below 1e-4.
    Raises: RuntimeError if ranks disagree with each other or with one process.
    """
    layer = SIGReg(num_proj=64) if regularizer is None else regularizer
    name = group_name(layer.group)
    device = device_of(name) if regularizer is None else layer.step.device
    layer = layer.to(device)
    ranks, rank = whereabouts(name)
    least, most = extremes(torch.tensor([layer.seed, int(layer.step)], device=device), name)
    if not torch.equal(least, most):
        raise RuntimeError(
            f"seed and step of SIGReg differ between ranks: at most {most.tolist()}, at "
            f"least {least.tolist()}; build every rank alike and load the same state"
        )
    dim, sizes = 16, [8 * r + 3 * (ranks < 3) for r in range(ranks)]
    batch = 6.0 * random_directions(sum(sizes), dim, seed=1, step=0, device=device)
    directions = layer.current(batch)
    results = []
    for group, x in ((None, batch), (layer.group, torch.split(batch, sizes)[rank])):
        weight = torch.eye(dim, device=device, requires_grad=True)
        loss = sigreg_loss(
            x @ weight,
            directions,
            layer.quadrature,
            scale_by_n=layer.scale_by_n,
            group=group,
            backend=layer.backend,
            chunk=layer.chunk,
        )
        (gradient,) = torch.autograd.grad(loss, weight)
        results.append((loss.detach(), gradient))
    (loss, gradient), (shared_loss, shared_gradient) = results
    shared_gradient = sum_over_ranks(shared_gradient.clone(), name) / ranks
    errors = torch.stack(
        ((shared_loss - loss).abs() / loss, (shared_gradient - gradient).norm() / gradient.norm())
    )
    found = DistributedCheck(ranks, *extremes(errors, name)[1].tolist())
    if not (found.loss_error < 1e-4 and found.gradient_error < 1e-4):
        raise RuntimeError(f"SIGReg on {ranks} ranks differs from one process: {found}")
    return found
