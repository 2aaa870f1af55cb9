"""The Gaussian rows of `sigreg.directions` in one Triton kernel, from the same hash."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sigreg.directions import HASH, hash_start, quantiles

__all__ = ["gaussian_rows"]


@triton.jit
def _scramble(counter, WEYL: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr):
    counter = (counter ^ (counter >> 30)) * MIX_A
    counter = (counter ^ (counter >> 27)) * MIX_B
    return (counter ^ (counter >> 31)) * WEYL


@triton.jit(do_not_specialize=["start", "D", "quads"])
def _rows_kernel(
    step_ptr, table_ptr, out_ptr, start, D, quads,
    WEYL: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of [num, D]: entry d is the table's at 16 bits of the counter of d // 4."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    stream = _scramble((tl.load(step_ptr) + start) * MIX_B, WEYL, MIX_A, MIX_B) + WEYL
    bits = _scramble((row * quads + d // 4) * WEYL + stream, WEYL, MIX_A, MIX_B)
    index = ((bits >> (16 * (d % 4)).to(tl.int64)) & 0xFFFF) ^ 0x8000
    live = d < D
    tl.store(out_ptr + row * D + d, tl.load(table_ptr + index, mask=live), mask=live)


def gaussian_rows(num: int, dim: int, seed: int, step: Tensor) -> Tensor:
    """`sigreg.directions.gaussian_rows` on the step's GPU, in one kernel, to the last bit."""
    weyl, mix_a, mix_b = HASH
    # As integers: an interpreter without bfloat16 stores them as they are.
    table = quantiles(step.device).view(torch.int16)
    out = torch.empty(num, dim, dtype=torch.int16, device=step.device)
    _rows_kernel[(num,)](
        step, table, out, hash_start(seed), dim, (dim + 3) // 4,
        WEYL=weyl, MIX_A=mix_a, MIX_B=mix_b, BLOCK=triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip
    return out.view(torch.bfloat16)
