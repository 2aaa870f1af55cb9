"""Tests that compare a few moments of the sample with those of N(0, 1).

One-dimensional: each takes projections [..., N, M] and tests every column. Cheap and smooth, but
finitely many moments do not pin down a distribution (LeJEPA, Theorem 3), and their gradients grow
like a power of the outliers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sigreg._arguments import check_count, check_samples, full_precision

__all__ = ["extended_jarque_bera", "hermite_moments", "jarque_bera"]


def hermite_moments(x: Tensor, order: int = 4) -> Tensor:
    """Squared distance of the first moments from those of N(0, 1), in orthonormal form.

        N Σ_{j=1..order} (mean_n He_j(x_n))² / j!

    Zero exactly when the first `order` moments are Gaussian. The Hermite polynomials He_j replace
    the powers of the published form because they are uncorrelated under N(0, 1): every term has
    expectation 1 for any N, so the floor is `order` and no moment drowns the others.

    Args:
        x: [..., N, M] projections.
        order: highest moment. 2 asks for mean and variance alone; 4 adds skewness and kurtosis.
    Returns: [..., M], float32 (float64 for float64 x).
    Raises: ValueError if `order` is below 1.
    Source: moment matching as in LeJEPA, arXiv:2511.08544, Section 4; orthonormal form ours.
    """
    check_count("order", order)
    x, n = _checked(x, at_least=1)
    # He_j / √j! by its recurrence: bounded numbers instead of a polynomial over a factorial.
    previous, current = torch.ones_like(x), x
    total = current.mean(-2).square()
    for j in range(1, order):
        following = (x * current - j**0.5 * previous) / (j + 1) ** 0.5
        previous, current = current, following
        total = total + current.mean(-2).square()
    return n * total


def jarque_bera(x: Tensor) -> Tensor:
    """Skewness and kurtosis of the standardized sample against those of a Gaussian.

        N / 6 · (S² + (K − 3)² / 4)

    About 2 for large Gaussian samples (χ² with two degrees of freedom). It cannot see mean and
    variance, so alone it lets the embedding collapse: see `extended_jarque_bera`.

    Args:
        x: [..., N, M] projections, N at least 2. A constant column counts as kurtosis 0.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Jarque & Bera (1980).
    """
    x, n = _checked(x, at_least=2)
    _, _, skewness, kurtosis = _standardized_moments(x)
    return n / 6 * (skewness.square() + (kurtosis - 3).square() / 4)


def extended_jarque_bera(x: Tensor) -> Tensor:
    """Jarque-Bera with the mean and the variance tested too.

        N [ m² + (v − 1)² / 2 + S² / 6 + (K − 3)² / 24 ]

    About 4 for large Gaussian samples: four terms, each χ² with one degree of freedom.

    Args:
        x: [..., N, M] projections, N at least 2. A constant column counts as kurtosis 0.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Jarque & Bera (1980), extended as in LeJEPA, arXiv:2511.08544, Section 4.
    """
    x, n = _checked(x, at_least=2)
    mean, variance, skewness, kurtosis = _standardized_moments(x)
    location_scale = mean.square() + (variance - 1).square() / 2
    return n * (location_scale + skewness.square() / 6 + (kurtosis - 3).square() / 24)


def _standardized_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = x.mean(-2, keepdim=True)
    centred = x - mean
    variance = centred.square().mean(-2, keepdim=True)
    # A collapsed column has no shape: the guard keeps the value finite and lets the variance
    # term, where there is one, pull it open again.
    y = centred * (variance + 1e-12).rsqrt()
    cube = y * y.square()
    return mean.squeeze(-2), variance.squeeze(-2), cube.mean(-2), (cube * y).mean(-2)


def _checked(x: Tensor, at_least: int) -> tuple[Tensor, int]:
    check_samples(x, "x", axes="N, M", at_least=at_least)
    return full_precision(x), x.shape[-2]
