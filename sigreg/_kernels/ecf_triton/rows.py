"""The Gaussian rows of `sigreg.directions` in one Triton kernel, from the same hash."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sigreg._kernels.ecf_triton.angles import sincos
from sigreg.directions import HASH, hash_start

__all__ = ["gaussian_rows"]


@triton.jit
def _scramble(counter, MIX_A: tl.constexpr, MIX_B: tl.constexpr):
    counter = (counter ^ (counter >> 30)) * MIX_A
    counter = (counter ^ (counter >> 27)) * MIX_B
    return counter ^ (counter >> 31)


@triton.jit(do_not_specialize=["start", "D", "half"])
def _rows_kernel(
    step_ptr, out_ptr, start, D, half,
    UNIT: tl.constexpr, WEYL: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of [num, D]: Box and Muller's pairs, scaled to norm 1 if UNIT."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    stream = _scramble((tl.load(step_ptr) + start) * MIX_B, MIX_A, MIX_B) + WEYL
    bits = _scramble((row * half + i) * WEYL + stream, MIX_A, MIX_B)
    # 23 bits and a half, as in `sigreg.directions`.
    radius = ((bits >> 40).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    radius = tl.sqrt(-2.0 * tl.log(radius))
    sin, cos = sincos(((bits & 0x7FFFFF).to(tl.float32) + 0.5) * 7.490140565847157e-07)
    a = tl.where(i < half, radius * cos, 0.0)
    b = tl.where(i < D - half, radius * sin, 0.0)
    if UNIT:
        scale = 1.0 / tl.sqrt(tl.sum(a * a + b * b, 0))
        a = a * scale
        b = b * scale
    tl.store(out_ptr + row * D + i, a, mask=i < half)
    tl.store(out_ptr + row * D + half + i, b, mask=i < D - half)


def gaussian_rows(num: int, dim: int, seed: int, step: Tensor, *, unit: bool) -> Tensor:
    """[num, dim] on the step's GPU: N(0, 1), or unit rows."""
    half = (dim + 1) // 2
    weyl, mix_a, mix_b = HASH
    out = torch.empty(num, dim, dtype=torch.float32, device=step.device)
    _rows_kernel[(num,)](
        step, out, hash_start(seed), dim, half, UNIT=unit, WEYL=weyl, MIX_A=mix_a, MIX_B=mix_b,
        BLOCK=triton.next_power_of_2(half), num_warps=4,
    )  # fmt: skip
    return out
