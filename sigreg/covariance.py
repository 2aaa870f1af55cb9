"""Regularizers of mean and covariance alone: Weak SIGReg, and VICReg, which SIGReg succeeds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sigreg._arguments import check_directions, check_samples, full_precision
from sigreg.directions import Sketch

__all__ = [
    "VCReg",
    "WeakSIGReg",
    "covariance_term",
    "variance_term",
    "vicreg_loss",
    "weak_sigreg_loss",
]


def weak_sigreg_loss(z: Tensor, directions: Tensor) -> Tensor:
    """Frobenius distance between the sketched covariance and that of N(0, I).

        ‖A C Aᵀ − A Aᵀ‖_F,   C the sample covariance of z, A the directions

    The published target is the identity, which A Aᵀ is only if the rows are orthogonal: with it
    even C = I would be penalized, and pulled, by every random sketch. Ours is 0 at C = I for any A.
    The mean of z stays free.

    Args:
        z: [..., N, D], N at least 2. Leading dims are separate batches; their losses are averaged.
        directions: [M, D], unit rows. M = D with the identity gives the plain covariance.
    Returns: [], float32 (float64 for float64 z).
    Raises: ValueError on disagreeing shapes, TypeError on integers.
    Source: Weak-SIGReg, arXiv:2603.05924; the target differs as said above.
    """
    check_directions(directions, z := _checked(z))
    a = directions.to(z)
    with torch.autocast(z.device.type, enabled=False):
        distance = _covariance((z - z.mean(-2, keepdim=True)) @ a.mT) - a @ a.mT
        return torch.linalg.matrix_norm(distance).mean()


class WeakSIGReg(Sketch):
    """Covariance regularizer through a fresh random sketch at every training step.

        L(x) = ‖A C Aᵀ − A Aᵀ‖_F,   A [M, D] random unit rows

    Choose it to stop collapse where a Gaussian shape is not wanted; its gradient is linear in x
    and it costs one small matrix product. It sees this process's samples only.

    Args:
        num_proj: M, rows of the sketch. 64 as published; M ≥ D uses the whole covariance.
        seed: which sequence of sketches.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Source: Weak-SIGReg, arXiv:2603.05924.
    """

    def __init__(self, num_proj: int = 64, *, seed: int = 0) -> None:
        super().__init__(num_proj, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        sketch = self.draw(x).unit()
        if self.num_proj >= x.shape[-1]:
            sketch = torch.eye(x.shape[-1], device=x.device)
        return weak_sigreg_loss(x, sketch)


def variance_term(z: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Hinge that keeps the standard deviation of every coordinate above gamma.

        mean_d max(0, γ − √(Var z_d + ε))

    Args:
        z: [..., N, D], N at least 2; averaged over leading dims.
        gamma: γ, the standard deviation from which on the term is 0.
        eps: ε, keeps the gradient finite at zero variance.
    Returns: [].
    Source: VICReg, arXiv:2105.04906, equation 1.
    """
    return torch.relu(gamma - (_checked(z).var(-2) + eps).sqrt()).mean()


def covariance_term(z: Tensor) -> Tensor:
    """Squared covariances between different coordinates.

        1/D Σ_{i≠j} C_ij²,   C the sample covariance

    Args:
        z: [..., N, D], N at least 2; averaged over leading dims.
    Returns: [].
    Source: VICReg, arXiv:2105.04906, equations 3 and 4.
    """
    z = _checked(z)
    with torch.autocast(z.device.type, enabled=False):
        c = _covariance(z - z.mean(-2, keepdim=True))
    off = c.square().sum((-2, -1)) - c.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return off.mean() / z.shape[-1]


class VCReg(nn.Module):
    """Variance and covariance terms as one regularizer, for use wherever `SIGReg` stands.

        L(x) = μ · variance_term(x) + ν · covariance_term(x)

    It fixes two moments and leaves the rest free. It sees this process's samples only.

    Args:
        variance: μ. 25 as published.
        covariance: ν. 1 as published.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Source: VICReg, arXiv:2105.04906, Section 4.
    """

    def __init__(self, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        self.variance = variance
        self.covariance = covariance

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        return self.variance * variance_term(x) + self.covariance * covariance_term(x)


def vicreg_loss(
    z: Tensor,
    other: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """VICReg of two views.

        λ mean (z − z′)² + μ [v(z) + v(z′)] / 2 + ν [c(z) + c(z′)]

    The published weights belong to the released code's averages: the invariance over N and D
    (the paper prints a sum over D) and the variance over both views (the paper prints a sum).

    Args:
        z: [..., N, D], embeddings of one view.
        other: the same shape, embeddings of the same samples in another view.
        invariance: λ.
        variance: μ.
        covariance: ν.
    Returns: [].
    Raises: ValueError if the shapes differ.
    Source: VICReg, arXiv:2105.04906, equation 6 and Section 4.
    """
    if z.shape != other.shape:
        raise ValueError(f"other must be {list(z.shape)} like z, got {list(other.shape)}")
    spread = (variance_term(z) + variance_term(other)) / 2
    mixing = covariance_term(z) + covariance_term(other)
    distance = (_checked(z) - _checked(other)).square().mean()
    return invariance * distance + variance * spread + covariance * mixing


def _covariance(centred: Tensor) -> Tensor:
    return centred.mT @ centred / (centred.shape[-2] - 1)


def _checked(z: Tensor) -> Tensor:
    check_samples(z, at_least=2)
    return full_precision(z)
