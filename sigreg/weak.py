"""Weak SIGReg: the covariance alone, seen through a sketch."""

from __future__ import annotations

import torch
from torch import Tensor

from sigreg._arguments import check_directions, check_samples, full_precision
from sigreg.directions import Sketch

__all__ = ["WeakSIGReg", "weak_sigreg_loss"]


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
    check_samples(z, at_least=2)
    check_directions(directions, z)
    with torch.autocast(z.device.type, enabled=False):
        z = full_precision(z)
        a = directions.to(z)
        x = (z - z.mean(-2, keepdim=True)) @ a.mT
        covariance = x.mT @ x / (z.shape[-2] - 1)
        distance: Tensor = torch.linalg.matrix_norm(covariance - a @ a.mT).mean()
        return distance


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
