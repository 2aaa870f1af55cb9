"""SIGReg in plain torch: the reference for every kernel."""

import math

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg.quadrature import Quadrature

__all__ = ["ecf_sums", "epps_pulley", "epps_pulley_exact"]


def full_precision(z: Tensor) -> Tensor:
    """z in float32; float64 stays."""
    return z if z.dtype == torch.float64 else z.float()


def ecf_sums(x: Tensor, t: Tensor, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums of the empirical characteristic function, one sine and cosine per knot.

        cos_mk = Σ_n share_n cos(t_k x_nm),   sin_mk = Σ_n share_n sin(t_k x_nm)

    x [..., N, M] are projections, t [K] frequencies, shares [..., N] the weights of the samples. It
    returns sums, not means, because shards of a batch may be uneven.
    Returns: two tensors [..., M, K].
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    angle = x.unsqueeze(-1) * t
    cos, sin = angle.cos(), angle.sin()
    if shares is not None:
        share = shares.to(x.dtype)[..., None, None]
        cos, sin = cos * share, sin * share
    return cos.sum(-3), sin.sum(-3)


def epps_pulley(
    cos_mean: Tensor, sin_mean: Tensor, n: Tensor | float, quadrature: Quadrature
) -> Tensor:
    """Epps-Pulley statistic of one-dimensional samples, from their characteristic function.

        N Σ_k weight_k · ((cos_k − target_k)² + sin_k²)

    The means are [..., M, K]; n, the number of samples, broadcasts against [..., M]. N(0, 1)
    samples score the noise floor Σ_k weight_k (1 − target_k²) on average, for any N.

    Returns: [..., M].
    Source: Epps & Pulley (1983); LeJEPA, arXiv:2511.08544, Section 4.
    """
    distance = (cos_mean - quadrature.target).square() + sin_mean.square()
    return distance @ quadrature.weight * n


def epps_pulley_exact(x: Tensor) -> Tensor:
    """The statistic with its integral over the whole line in closed form, O(N²).

        √2π [ 1/N Σ_jk e^{−(x_j−x_k)²/2} − √2 Σ_j e^{−x_j²/4} + N/√3 ]

    The quadrature converges to it as t_max → ∞ and Δt → 0.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M].
    Source: Baringhaus & Henze (1988), dimension one; here from the Gaussian integrals.
    """
    require.samples(x, "x", axes="N, M")
    n = x.shape[-2]
    pairs = torch.exp(-(x.unsqueeze(-2) - x.unsqueeze(-3)).square() / 2).sum((-3, -2)) / n
    single = math.sqrt(2.0) * torch.exp(-x.square() / 4).sum(-2)
    return math.sqrt(2 * math.pi) * (pairs - single + n / math.sqrt(3.0))
