"""SIGReg as a layer: quadrature and a step counter around `sigreg_loss`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sigreg.directions import random_directions
from sigreg.functional import sigreg_loss
from sigreg.quadrature import Quadrature, trapezoid

__all__ = ["SIGReg"]


class SIGReg(nn.Module):
    """Sketched isotropic Gaussian regularizer: about 1.05 for a Gaussian batch, more for others.

        L(x) = mean_m  N Σ_k weight_k |φ̂_m(t_k) − e^{−t_k²/2}|²,   m = 1..M random directions

    Every call in training mode draws fresh directions and advances `step`; in evaluation mode
    `step` stays, so equal inputs give equal losses.

    Args:
        knots: K, frequencies of the quadrature. 17 as released; the cost is linear in it.
        num_proj: M, directions. 1024 as published for D = 192 to 2048.
        t_max: largest frequency.
        scale_by_n: multiply by N, as all released code does and the LeWM paper's formula does not.
        seed: which sequence of directions.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Source: LeJEPA, arXiv:2511.08544; LeWorldModel, arXiv:2603.19312.
    """

    t: Tensor
    phi: Tensor
    weights: Tensor
    step: Tensor

    def __init__(
        self,
        knots: int = 17,
        num_proj: int = 1024,
        t_max: float = 3.0,
        *,
        scale_by_n: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        rule = trapezoid(knots, t_max)
        self.num_proj = num_proj
        self.scale_by_n = scale_by_n
        self.seed = seed
        self.register_buffer("t", rule.t, persistent=False)
        self.register_buffer("phi", rule.target, persistent=False)
        self.register_buffer("weights", rule.weight, persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        directions = random_directions(
            self.num_proj, x.shape[-1], seed=self.seed, step=self.step, device=x.device
        )
        if self.training:
            self.step += 1
        rule = Quadrature(t=self.t, weight=self.weights, target=self.phi)
        return sigreg_loss(x, directions, rule, scale_by_n=self.scale_by_n)
