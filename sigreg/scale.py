"""A term that keeps pulling where SIGReg's gradient has faded: near a collapse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sigreg._distributed import (
    differentiable_sum_over_ranks,
    group_name,
    resolve,
    sum_over_ranks,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["scale_term"]

_EPS = 1e-12  # of the variance: below it, as at a single point, the gradient is 0, not NaN


def scale_term(
    z: Tensor,
    *,
    mask: Tensor | None = None,
    group: ProcessGroup | Literal["auto", False] | None = None,
) -> Tensor:
    """How far the standard deviations of the coordinates fall short of 1.

        mean_d max(0, 1 − std_d)

    A sample at distance δ from the mean of samples with standard deviation σ < 1 is pushed outwards
    with a force of order δ/σ, however small σ is; the force of the Epps-Pulley statistic is of
    order δ. Leading dims are separate batches, averaged.

    Args:
        z: [..., N, D].
        mask: [..., N], true where a sample counts; a batch where none does adds 0.
        group: ranks that share the samples, as in `sigreg_loss`; costs two messages.
    Returns: [], float32 (float64 for float64 z).
    Source: VICReg, arXiv:2105.04906, equation 1, with the plain variance.
    """
    name = group_name(group)
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        if mask is not None:
            z = z.where(mask.unsqueeze(-1), 0)
        count = z.new_ones(z.shape[:-1]) if mask is None else mask.to(z.dtype)
        first = torch.cat((z.detach().sum(-2), count.sum(-1, keepdim=True)), -1)
        first = sum_over_ranks(first, resolve(name))
        n = first[..., -1:].clamp(min=1)
        mean = (first[..., :-1] / n).unsqueeze(-2)
        # The mean's own gradient cancels in the sum below, but only over all ranks.
        centred = (z - mean) * count.unsqueeze(-1)
        variance = differentiable_sum_over_ranks(centred.square().sum(-2), name) / n
        hinge = (1 - (variance + _EPS).sqrt()).clamp(min=0)
        return (hinge * first[..., -1:].sign()).mean()
