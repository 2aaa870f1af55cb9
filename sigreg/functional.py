"""SIGReg as a function: project, sum, compare with a Gaussian, average."""

from __future__ import annotations

import torch
from torch import Tensor

from sigreg.quadrature import Quadrature
from sigreg.reference import ecf_sums, epps_pulley

__all__ = ["sigreg_loss"]


def sigreg_loss(
    z: Tensor, directions: Tensor, quadrature: Quadrature, *, scale_by_n: bool = True
) -> Tensor:
    """Mean Epps-Pulley statistic of z along the given directions.

        mean_m  N ∫ |φ̂_m(t) − e^{−t²/2}|² e^{−t²/2} dt
        φ̂_m(t) = mean_n exp(i t ⟨a_m, z_n⟩)

    Args:
        z: [..., N, D]. Leading dims are separate batches, each tested alone.
        directions: [M, D], unit rows.
        quadrature: Quadrature, K nodes.
        scale_by_n: False drops the factor N, as in the formula LeWM prints.
    Returns: [], float32 (float64 for float64 z). Gaussian samples score the noise floor, not 0.
    Raises: ValueError on disagreeing shapes, TypeError on integers.
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    if not z.is_floating_point():
        raise TypeError(f"z must be floating point, got {z.dtype}")
    if z.ndim < 2 or z.shape[-2] == 0:
        raise ValueError(f"z must be [..., N, D] with N > 0, got {list(z.shape)}")
    if directions.ndim != 2 or directions.shape[1] != z.shape[-1]:
        raise ValueError(
            f"directions must be [M, {z.shape[-1]}] to match z [..., {z.shape[-1]}], "
            f"got {list(directions.shape)}"
        )
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        rule = Quadrature(*(part.to(z) for part in quadrature))
        n = z.shape[-2]
        x = z @ directions.to(z).T
        cos, sin = ecf_sums(x, rule.t)
        return epps_pulley(cos / n, sin / n, n if scale_by_n else 1, rule).mean()
