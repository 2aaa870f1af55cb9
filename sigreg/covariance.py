"""Regularizers of the covariance alone: Weak SIGReg, and the terms of VICReg."""

import torch
from torch import Tensor, nn

from sigreg import _arguments as require
from sigreg.directions import Sketch
from sigreg.reference import full_precision

__all__ = ["VCReg", "WeakSIGReg"]


class WeakSIGReg(Sketch):
    """Frobenius distance of the covariance from that of N(0, I), in a fresh random sketch.

        L(x) = ‖A C Aᵀ − A Aᵀ‖_F,   C the sample covariance of x, A [M, D] random unit rows

    Choose it to prevent collapse without asking for a Gaussian shape. Its gradient is linear in x,
    it costs one small matrix product, and leaves the mean free. It uses this process's samples.

    The published target is the identity. A Aᵀ equals it only for orthogonal rows, so every other
    sketch would penalize even C = I. Our target is A Aᵀ: the loss is 0 at C = I for any A.

    Args:
        num_proj: M, rows of the sketch. 64 as published; M ≥ D uses the whole covariance.
        seed: of the sequence of sketches.
    Shape: x [..., N, D], N at least 2 on axis −2 -> []; leading dims are averaged.
    Source: Weak-SIGReg, arXiv:2603.05924, with another target.
    """

    def __init__(self, num_proj: int = 64, *, seed: int = 0) -> None:
        super().__init__(num_proj, seed=seed)

    def forward(self, x: Tensor, *, directions: Tensor | None = None) -> Tensor:
        """The regularizer of x, a scalar. With your own directions [M, D] `step` stays."""
        require.samples(x, "x", at_least=2)
        a = self.draw(x).unit() if directions is None else directions
        if directions is None and self.num_proj >= x.shape[-1]:
            a = torch.eye(x.shape[-1], device=x.device)
        require.directions(a, x)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            a = a.to(x)
            apart = _covariance((x - x.mean(-2, keepdim=True)) @ a.mT) - a @ a.mT
            return torch.linalg.matrix_norm(apart).mean()


class VCReg(nn.Module):
    """VICReg's variance and covariance terms, in place of `SIGReg`.

        L(x) = μ mean_d max(0, 1 − √(C_dd + 10⁻⁴)) + ν / D Σ_{i≠j} C_ij²,   C the sample covariance

    It fixes second moments only, and uses this process's samples only. VICReg of two views is `25 *
    (z1 - z2).square().mean() + VCReg(25, 2)(torch.stack((z1, z2)))`.

    Args:
        variance: μ. 25 as published.
        covariance: ν. 1 as published, of each view.
    Shape: x [..., N, D], N at least 2 on axis −2 -> []; leading dims are averaged.
    Source: VICReg, arXiv:2105.04906, equations 1, 3 and 4, Section 4.
    """

    def __init__(self, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        require.number("variance", variance)
        require.number("covariance", covariance)
        self.variance = variance
        self.covariance = covariance

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x, a scalar."""
        require.samples(x, "x", at_least=2)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            hinge = torch.relu(1 - (x.var(-2) + 1e-4).sqrt()).mean()
            c = _covariance(x - x.mean(-2, keepdim=True))
            off = c.square().sum((-2, -1)) - c.diagonal(dim1=-2, dim2=-1).square().sum(-1)
            return self.variance * hinge + self.covariance * (off.mean() / x.shape[-1])


def _covariance(centred: Tensor) -> Tensor:
    return centred.mT @ centred / (centred.shape[-2] - 1)
