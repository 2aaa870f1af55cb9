"""Choosing the implementation, and the contract they all meet."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sigreg import reference
from sigreg._kernels.ops import HAS_TRITON, ecf_sums_op
from sigreg.quadrature import Quadrature

__all__ = ["check_backend", "choose_backend", "ecf_sums"]

_BACKENDS = ("auto", "reference", "cpu", "triton")


def check_backend(backend: str) -> None:
    """Raises: ValueError on an unknown name."""
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}")


def choose_backend(backend: str, device: torch.device, quadrature: Quadrature) -> str:
    """The implementation that will run: "reference", "cpu" or "triton".

    "auto" is the fused kernel of the device, and the reference for knots that are not equally
    spaced from 0 and for devices without a kernel. A name that was asked for is never replaced.

    Raises: ValueError on an unknown name, or a kernel asked for that cannot do it.
    """
    check_backend(backend)
    if backend == "auto":
        if quadrature.spacing is None:
            return "reference"
        if device.type == "cuda" and HAS_TRITON:
            return "triton"
        return "cpu" if device.type == "cpu" else "reference"
    if backend == "reference":
        return backend
    if quadrature.spacing is None:
        raise ValueError(
            f"backend={backend!r} needs a quadrature with equally spaced knots from 0 (its "
            "`spacing` is None); use 'auto' or 'reference'"
        )
    if backend == "triton" and not HAS_TRITON:
        raise ValueError("backend='triton' needs the triton package, which is not installed")
    return backend


def ecf_sums(
    x: Tensor, quadrature: Quadrature, mask: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Sums of cos(t_k x) and sin(t_k x) over samples, by the chosen implementation.

    Args:
        x: [..., N, M] projections.
        quadrature: K nodes.
        mask: [..., N], true where a sample counts; None counts all.
        backend: "auto", "reference", "cpu" or "triton".
    Returns: two tensors [..., M, K], in float32 (float64 for float64 x).
    """
    chosen = choose_backend(backend, x.device, quadrature)
    if chosen != "triton" and x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()  # the GPU kernel reads them as they are and sums in float32
    num_knots, spacing = quadrature.t.numel(), quadrature.spacing
    if chosen == "reference" or spacing is None:
        return reference.ecf_sums(x, quadrature.t.to(x), mask)
    lead = math.prod(x.shape[:-2])  # not -1, which an empty shard leaves open
    flat = x.reshape(lead, *x.shape[-2:])
    counts = None if mask is None else mask.reshape(lead, x.shape[-2]).to(x.dtype)
    sums = ecf_sums_op(flat, counts, num_knots, spacing, chosen)
    sums = sums.view(*x.shape[:-2], x.shape[-1], 2, num_knots)
    return sums[..., 0, :], sums[..., 1, :]
