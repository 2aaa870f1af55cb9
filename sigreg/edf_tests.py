"""Tests that compare the sorted sample with the Gaussian distribution function.

One-dimensional: each takes projections [..., N, M] and tests every column against N(0, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sigreg._arguments import check_samples, full_precision

__all__ = ["anderson_darling", "cramer_von_mises", "watson"]


def cramer_von_mises(x: Tensor) -> Tensor:
    """Cramér-von Mises distance between the sample and N(0, 1).

        W² = 1 / 12N + Σ_i (Φ(x_(i)) − (2i − 1) / 2N)²,   x_(1) ≤ … ≤ x_(N)

    Expectation 1/6 for N(0, 1) samples of any size. Its gradient fades like the density, e^{−x²/2}:
    samples far out are hardly pulled back, so start it from standardized projections.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Anderson & Darling (1952); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    u: Tensor = torch.special.ndtr(_sorted(x))
    n = u.shape[-2]
    return (u - _midpoints(n, u)).square().sum(-2) + 1 / (12 * n)


def watson(x: Tensor) -> Tensor:
    """Watson's U²: Cramér-von Mises without the part that a common shift explains.

        U² = W² − N (mean_i Φ(x_i) − ½)²

    Expectation 1/12 for N(0, 1) samples of any size. Nearly blind to the mean by construction:
    choose it only where something else fixes the mean.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Watson (1961); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    u: Tensor = torch.special.ndtr(_sorted(x))
    n = u.shape[-2]
    shift = n * (u.mean(-2) - 0.5).square()
    return (u - _midpoints(n, u)).square().sum(-2) + 1 / (12 * n) - shift


def anderson_darling(x: Tensor) -> Tensor:
    """Anderson-Darling distance: Cramér-von Mises with the tails weighted up.

        A² = −N − Σ_i (2i − 1) / N · [ln Φ(x_(i)) + ln Φ(−x_(N+1−i))]

    Expectation 1 for N(0, 1) samples of any size. The logarithms are evaluated without underflow,
    so the gradient grows like |x| far out and samples there do come back.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Anderson & Darling (1952); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    ordered = _sorted(x)
    n = x.shape[-2]
    log_below: Tensor = torch.special.log_ndtr(ordered)
    log_above: Tensor = torch.special.log_ndtr(-ordered.flip(-2))
    return -2 * (_midpoints(n, ordered) * (log_below + log_above)).sum(-2) - n


def _sorted(x: Tensor) -> Tensor:
    check_samples(x, "x", axes="N, M")
    return full_precision(x).sort(-2).values


def _midpoints(n: int, like: Tensor) -> Tensor:
    """(2i − 1) / 2N for i = 1..N, as a column [N, 1]."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5).unsqueeze(-1) / n
