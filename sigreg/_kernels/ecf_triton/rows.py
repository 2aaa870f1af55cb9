"""The drawn directions of `sigreg.directions` in one Triton kernel, to the last bit."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sigreg._kernels.ecf_triton.device import on_device, options
from sigreg.directions import GRID, HASH, hash_start, quantiles


@triton.jit
def _scramble(counter, WEYL: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr):
    counter = (counter ^ (counter >> 30)) * MIX_A
    counter = (counter ^ (counter >> 27)) * MIX_B
    return (counter ^ (counter >> 31)) * WEYL


@triton.jit(do_not_specialize=["start", "D", "quads"])
def rows_kernel(
    step_ptr, table_ptr, out_ptr, scale_ptr, start, D, quads,
    GRID: tl.constexpr, WEYL: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of [num, D] and its scale: entry d is the table's at 16 bits of counter d // 4."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    stream = _scramble((tl.load(step_ptr) + start) * MIX_B, WEYL, MIX_A, MIX_B) + WEYL
    bits = _scramble((row * quads + d // 4) * WEYL + stream, WEYL, MIX_A, MIX_B)
    index = ((bits >> (16 * (d % 4)).to(tl.int64)) & 0xFFFF) ^ 0x8000
    live = d < D
    entry = tl.load(table_ptr + index, mask=live, other=0)
    tl.store(out_ptr + row * D + d, entry, mask=live)
    # bfloat16 is the upper half of a float32; on the grid the squares are whole numbers.
    whole = ((entry.to(tl.int32) << 16).to(tl.float32, bitcast=True) * GRID).to(tl.int64)
    square = tl.sum(whole * whole, 0).to(tl.float64) / (GRID * GRID)
    tl.store(scale_ptr + row, (1.0 / tl.sqrt(square)).to(tl.float32))


def gaussian_directions(num: int, dim: int, seed: int, step: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and scale of `sigreg.directions.draw` on the step's GPU, to the last bit."""
    weyl, mix_a, mix_b = HASH
    # As integers: an interpreter without bfloat16 stores them as they are.
    table = quantiles(step.device).view(torch.int16)
    out = torch.empty(num, dim, dtype=torch.int16, device=step.device)
    scale = torch.empty(num, dtype=torch.float32, device=step.device)
    with on_device(step):
        rows_kernel[(num,)](
            step, table, out, scale, hash_start(seed), dim, (dim + 3) // 4,
            GRID=GRID, WEYL=weyl, MIX_A=mix_a, MIX_B=mix_b,
            BLOCK=triton.next_power_of_2(dim), **options(step, 4),
        )  # fmt: skip
    return out.view(torch.bfloat16), scale
