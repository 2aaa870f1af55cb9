"""Regularizers of the covariance alone: Weak SIGReg, and VICReg's terms, which SIGReg succeeds."""

import torch
from torch import Tensor, nn

from sigreg._arguments import check_directions, check_number, check_samples, full_precision
from sigreg.directions import Sketch

__all__ = ["VCReg", "WeakSIGReg"]


class WeakSIGReg(Sketch):
    """Frobenius distance of the covariance from that of N(0, I), through a fresh random sketch.

        L(x) = ‖A C Aᵀ − A Aᵀ‖_F,   C the sample covariance of x, A [M, D] random unit rows

    Choose it to stop collapse where a Gaussian shape is not wanted; its gradient is linear in x,
    it costs one small matrix product, and the mean stays free. It sees this process's samples only.

    The published target is the identity, which A Aᵀ is only if the rows are orthogonal: with it
    even C = I would be penalized, and pulled, by every random sketch. Ours is 0 at C = I for any A.

    Args:
        num_proj: M, rows of the sketch. 64 as published; M ≥ D uses the whole covariance.
        seed: which sequence of sketches.
    Shape: x [..., N, D], N at least 2 on axis −2 -> []; leading dims are averaged.
    Source: Weak-SIGReg, arXiv:2603.05924; the target differs as said above.
    """

    def __init__(self, num_proj: int = 64, *, seed: int = 0) -> None:
        super().__init__(num_proj, seed=seed)

    def forward(self, x: Tensor, *, directions: Tensor | None = None) -> Tensor:
        """The regularizer of x, a scalar; with directions [M, D] of your own `step` stays."""
        check_samples(x, "x", at_least=2)
        a = self.draw(x).unit() if directions is None else directions
        if directions is None and self.num_proj >= x.shape[-1]:
            a = torch.eye(x.shape[-1], device=x.device)
        check_directions(a, x)
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            a = a.to(x)
            apart = _covariance((x - x.mean(-2, keepdim=True)) @ a.mT) - a @ a.mT
            distance: Tensor = torch.linalg.matrix_norm(apart).mean()
            return distance


class VCReg(nn.Module):
    """VICReg's variance and covariance terms, for use wherever `SIGReg` stands.

        L(x) = μ mean_d max(0, 1 − √(C_dd + 10⁻⁴)) + ν / D Σ_{i≠j} C_ij²,   C the sample covariance

    It fixes two moments and leaves the rest free. It sees this process's samples only. VICReg of
    two views is `25 * (z1 - z2).square().mean() + VCReg(25, 2)(torch.stack((z1, z2)))`.

    Args:
        variance: μ. 25 as published.
        covariance: ν. 1 as published, of each view.
    Shape: x [..., N, D], N at least 2 on axis −2 -> []; leading dims are averaged.
    Source: VICReg, arXiv:2105.04906, equations 1, 3 and 4, Section 4.
    """

    def __init__(self, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        check_number("variance", variance)
        check_number("covariance", covariance)
        self.variance = variance
        self.covariance = covariance

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x, a scalar."""
        check_samples(x, "x", at_least=2)
        with torch.autocast(x.device.type, enabled=False):
            hinge = torch.relu(1 - (full_precision(x).var(-2) + 1e-4).sqrt()).mean()
            x = full_precision(x)
            c = _covariance(x - x.mean(-2, keepdim=True))
            off = c.square().sum((-2, -1)) - c.diagonal(dim1=-2, dim2=-1).square().sum(-1)
            return self.variance * hinge + self.covariance * (off.mean() / x.shape[-1])


def _covariance(centred: Tensor) -> Tensor:
    return centred.mT @ centred / (centred.shape[-2] - 1)
