"""A term that keeps pulling where SIGReg's gradient has faded: near a collapse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sigreg._arguments import check_samples, check_shares, full_precision
from sigreg._distributed import group_name, over_ranks

if TYPE_CHECKING:
    from sigreg._distributed import Group

__all__ = ["scale_term"]

_EPS = 1e-12  # of the variance: below it, as at a single point, the gradient is 0, not NaN


def scale_term(
    z: Tensor,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    group: Group = None,
) -> Tensor:
    """How far the standard deviations of the coordinates fall short of 1.

        mean_d max(0, 1 − std_d)

    A sample at distance δ from the mean of samples with standard deviation σ < 1 is pushed outwards
    with a force of order δ/σ, however small σ is; the force of the Epps-Pulley statistic is of
    order δ. Leading dims are separate batches, averaged.

    Args:
        z: [..., N, D].
        mask: [..., N], true where a sample counts; a batch where none does adds 0.
        sample_weight: [..., N], how much it counts; None means 1.
        group: ranks that share the samples, as in `sigreg_loss`; costs two messages.
    Returns: [], float32 (float64 for float64 z).
    Raises: TypeError or ValueError as `sigreg_loss`.
    Source: VICReg, arXiv:2105.04906, equation 1, with the plain variance.
    """
    name = group_name(group)
    check_samples(z, at_least=0)
    check_shares(mask, sample_weight, z)
    with torch.autocast(z.device.type, enabled=False):
        z = full_precision(z)
        share = z.new_ones(z.shape[:-1]) if sample_weight is None else sample_weight.to(z)
        if mask is not None:
            mask = mask.bool()
            z, share = z.where(mask.unsqueeze(-1), 0), share.where(mask, 0)
        share = share.unsqueeze(-1)
        first, total = over_ranks([(z.detach() * share).sum(-2), share.sum(-2)], None, name)
        some = total > 0
        n = torch.where(some, total, 1)
        # The mean's own gradient cancels in the sum below, but only over all ranks.
        centred = z - (first / n).unsqueeze(-2)
        (variance,) = over_ranks([(centred.square() * share).sum(-2)], None, name)
        hinge = (1 - (variance / n + _EPS).sqrt()).clamp(min=0)
        return (hinge * some).mean()
