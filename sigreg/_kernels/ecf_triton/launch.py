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

from sigreg._kernels.contract import Answer, Parts, Problem, in_two_phases
from sigreg._kernels.ecf_triton.kernels import combine_kernel, products_kernel, pull_kernel
from sigreg.directions import Directions

__all__ = ["loss"]

_INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"
_BLOCK_M = 128  # directions per program of 128 threads
_ROWS = 64 if _INTERPRET else 2  # samples per step; the interpreter pays per step, not per element
_MIN_SAMPLES = 64  # per program, or its 36 products outweigh the projections they come from
_PROGRAMS_PER_SM = 4
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # a product and a sum are one instruction


def loss(problem: Problem) -> Answer:
    """The answer to a problem, in two phases."""
    return in_two_phases(_PARTS, problem)


def _project(z: Tensor, directions: Directions) -> Tensor:
    """Projections [G, N, M], the directions of a sample side by side."""
    x = z @ directions.rows.T
    return x if directions.scale is None else x.mul_(directions.scale)


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


def _sums(x: Tensor, shares: Tensor | None, knots: int, spacing: float) -> Tensor:
    batch, n, num = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.new_zeros(batch, num, 2 * knots, dtype=dtype)
    if not x.numel():
        return out
    blocks, splits, samples, shared = _launch(x)
    products = x.new_empty(batch, splits, 36, num, dtype=dtype)
    shares = None if shares is None else shares.contiguous()
    for pair in range(_pairs(knots)):
        products_kernel[(blocks * splits * batch,)](
            x, shares, products, *x.stride(), n, num, samples, splits,
            SPACING=spacing, HAS_MASK=shares is not None, PAIR=pair, **shared,
        )  # fmt: skip
        here = min(knots - 16 * pair, 17) - (pair > 0)
        combine_kernel[(blocks * 2 * here * batch,)](
            products, out, knots, num, splits,
            PAIR=pair, ACC=shared["ACC"], BLOCK_M=_BLOCK_M, **_OPTIONS,
        )  # fmt: skip
    return out


def _pull(x: Tensor, shares: Tensor | None, slope: Tensor, spacing: float) -> Tensor:
    if not x.numel():
        return x
    batch, n, num = x.shape
    knots = slope.shape[-1] // 2
    blocks, splits, samples, shared = _launch(x)
    slope, shares = slope.contiguous(), None if shares is None else shares.contiguous()
    pairs = _pairs(knots)
    to = torch.empty_like(x) if pairs > 1 else x
    for pair in range(pairs):
        pull_kernel[(blocks * splits * batch,)](
            x, shares, slope, to, *x.stride(), *to.stride(), knots, n, num, samples, splits,
            SPACING=spacing, HAS_MASK=shares is not None, PAIR=pair, ADD=pair > 0, **shared,
        )  # fmt: skip
    return to


_PARTS = Parts(_project, _sums, _pull)


def _pairs(knots: int) -> int:
    """Pairs of centres, 16 knots each beside k = 0."""
    return max(1, -(-(knots - 1) // 16))
