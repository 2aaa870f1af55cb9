"""Sums of cos(k θ) and sin(k θ) on the GPU, forward and backward, in Triton.

The mathematics is that of `ecf_cpu`: with k = p ± j, a sample adds the 18 products of
(cos pθ, sin pθ) with (1, cos jθ, sin jθ) for each centre p, and its gradient is the same products
weighted. Here a thread owns a direction and walks down the samples, so the 36 products of two
centres, 16 knots, stay in its registers; nothing is reduced across threads, and there is no
atomic whose order could change a bit. More knots take one launch per pair of centres.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sigreg._kernels.ecf_triton.kernels import (
    combine_kernel,
    finish_kernel,
    products_kernel,
    pull_kernel,
)

__all__ = ["finish", "project", "sums", "sums_gradient"]

_INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"
_BLOCK_M = 128  # directions per program of 128 threads
_ROWS = 64 if _INTERPRET else 2  # samples per step; the interpreter pays per step, not per element
_MIN_SAMPLES = 64  # per program, or its 36 products outweigh the projections they come from
_PROGRAMS_PER_SM = 4
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # a product and a sum are one instruction


def project(z: Tensor, directions: Tensor) -> Tensor:
    """Projections z @ directionsᵀ, [..., N, M], the directions of a sample side by side."""
    return z @ directions.T


def _launch(x: Tensor) -> tuple[int, int, int, dict[str, Any]]:
    """(blocks of directions, splits of the samples, samples per split, shared arguments)."""
    batch, n, num = x.shape
    blocks = triton.cdiv(num, _BLOCK_M)
    processors = 1
    if x.is_cuda:
        processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    elif not _INTERPRET:
        raise ValueError(
            f"backend='triton' needs a tensor on a GPU, got one on {x.device}; TRITON_INTERPRET=1 "
            "in the environment runs the kernels on the CPU, slowly, for tests"
        )
    wanted = triton.cdiv(_PROGRAMS_PER_SM * processors, batch * blocks)
    samples = triton.cdiv(n, max(1, min(wanted, triton.cdiv(n, _MIN_SAMPLES))))
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32
    shared = {"ACC": acc, "ROWS": _ROWS, "BLOCK_M": _BLOCK_M, **_OPTIONS}
    return blocks, triton.cdiv(n, samples), samples, shared


def sums(x: Tensor, mask: Tensor | None, num_knots: int, spacing: float) -> Tensor:
    """Σ_n cos(k·spacing·x_nm) in [..., :K] and Σ_n sin(k·spacing·x_nm) in [..., K:].

    Args:
        x: [B, N, M], any strides; float32, bfloat16 or float16, summed in float32, or float64.
        mask: [B, N], zeros and ones, or None.
        num_knots: K.
        spacing: distance of the knots.
    Returns: [B, M, 2K], float32 or float64.
    """
    batch, n, num = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.new_zeros(batch, num, 2 * num_knots, dtype=dtype)
    if not x.numel():
        return out
    blocks, splits, samples, shared = _launch(x)
    products = x.new_empty(batch, splits, 36, num, dtype=dtype)
    mask = None if mask is None else mask.contiguous()
    for pair in range(_pairs(num_knots)):
        products_kernel[(blocks * splits * batch,)](
            x, mask, products, *x.stride(), n, num, samples, splits,
            SPACING=spacing, HAS_MASK=mask is not None, PAIR=pair, **shared,
        )  # fmt: skip
        knots = min(num_knots - 16 * pair, 17) - (pair > 0)
        combine_kernel[(blocks * 2 * knots * batch,)](
            products, out, num_knots, num, splits,
            PAIR=pair, ACC=shared["ACC"], BLOCK_M=_BLOCK_M, **_OPTIONS,
        )  # fmt: skip
    return out


def sums_gradient(
    x: Tensor, mask: Tensor | None, gradient: Tensor, spacing: float, out: Tensor
) -> Tensor:
    """Gradient of Σ gradient · sums with respect to x, into out [B, N, M], which may be x.

    Args:
        x: [B, N, M].
        mask: [B, N], zeros and ones, or None.
        gradient: [B, M, 2K].
        spacing: distance of the knots.
        out: [B, N, M].
    Returns: out.
    """
    if not x.numel():
        return out
    batch, n, num = x.shape
    num_knots = gradient.shape[-1] // 2
    blocks, splits, samples, shared = _launch(x)
    gradient, mask = gradient.contiguous(), None if mask is None else mask.contiguous()
    pairs = _pairs(num_knots)
    to = torch.empty_like(x, dtype=gradient.dtype) if pairs > 1 else out
    for pair in range(pairs):
        pull_kernel[(blocks * splits * batch,)](
            x, mask, gradient, to, *x.stride(), *to.stride(), num_knots, n, num, samples, splits,
            SPACING=spacing, HAS_MASK=mask is not None, PAIR=pair, ADD=pair > 0, **shared,
        )  # fmt: skip
    return out.copy_(to) if to is not out else out


def finish(
    sums: Tensor, count: Tensor, weight: Tensor, target: Tensor, scale_by_n: bool, ranks: int
) -> tuple[Tensor, Tensor]:
    """Loss [], and its gradient with respect to the sums [B, M, 2K], which it overwrites."""
    batch, num, double = sums.shape
    sums = sums.contiguous()
    blocks = triton.cdiv(num * double, 1024)
    loss = sums.new_empty(batch * blocks)
    acc = tl.float64 if sums.dtype == torch.float64 else tl.float32
    finish_kernel[(batch * blocks,)](
        sums, count, weight, target, loss, double // 2, num, batch, ranks,
        SCALE_BY_N=scale_by_n, ACC=acc, BLOCK=1024, **_OPTIONS,
    )  # fmt: skip
    return loss.sum(), sums


def _pairs(num_knots: int) -> int:
    """Pairs of centres, 16 knots each beside k = 0."""
    return max(1, -(-(num_knots - 1) // 16))
