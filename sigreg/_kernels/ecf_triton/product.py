"""A matrix product on tensor cores that loses nothing of its float32 factor."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sigreg._kernels.ecf_triton.device import INTERPRET, card, launcher, options

# How many bfloat16 numbers add up to one of these: 8 bits of the significand each.
PARTS = {torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}
_STAGES = 3
_LARGE = 200 << 10  # bytes of shared memory of the cards whose registers hold steps of 64


@triton.jit
def _cut(a):
    """The first 8 bits of a as bfloat16, and what they leave; both are exact."""
    bits = a.to(tl.int32, bitcast=True)
    top = (bits & -65536).to(tl.float32, bitcast=True)
    return (bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True), a - top


@triton.jit
def _dot(a, b, add_to, INTERPRET: tl.constexpr):
    """add_to + a @ b; the interpreter has no bfloat16."""
    if INTERPRET:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), add_to, input_precision="ieee")
    return tl.dot(a, b, add_to)


@triton.jit(do_not_specialize=["P"])
def product_kernel(
    a_ptr, b_ptr, out_ptr, stride_a, stride_bd, stride_bq, P, Q, D,
    PARTS: tl.constexpr, ADD: tl.constexpr, INTERPRET: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out [P, Q] = a [P, D] @ b [D, Q], or added to it; b is bfloat16, PARTS says what a is.

    a is cut into bfloat16 parts as it arrives, the smallest multiplied first. Tensor cores cut off
    where they add, so steps are added up outside of them.
    """
    pid = tl.program_id(0)
    columns = tl.cdiv(Q, BLOCK)
    p = (pid // columns) * BLOCK + tl.arange(0, BLOCK)
    q = (pid % columns) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    # Beyond the end it reads another row, and nothing is stored: one condition less per load.
    at_a = a_ptr + (p % P).to(tl.int64)[:, None] * stride_a + d[None, :]
    at_b = b_ptr + d[:, None] * stride_bd + (q % Q)[None, :] * stride_bq
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for first in range(0, D, BLOCK_D):
        a = tl.load(at_a, mask=(d < D - first)[None, :], other=0.0)
        b = tl.load(at_b, mask=(d < D - first)[:, None], other=0.0)
        step = tl.zeros([BLOCK, BLOCK], tl.float32)
        if PARTS == 1:
            step = _dot(a, b, step, INTERPRET)
        else:
            a0, rest = _cut(a.to(tl.float32))
            a1, rest = _cut(rest)
            if PARTS == 3:
                a2, rest = _cut(rest)
                step = _dot(a2, b, step, INTERPRET)
            step = _dot(a1, b, step, INTERPRET)
            step = _dot(a0, b, step, INTERPRET)
        total += step
        at_a += BLOCK_D
        at_b += BLOCK_D * stride_bd
    live = (p < P)[:, None] & (q < Q)[None, :]
    out = out_ptr + p.to(tl.int64)[:, None] * Q + q[None, :]
    if ADD:
        total += tl.load(out, mask=live, other=0.0)
    tl.store(out, total, mask=live)


def aligned(a: Tensor, rows: int = 1) -> Tensor:
    """a [P, D], or a copy whose rows can be read 16 bytes at a time, filled with zeros.

    D becomes a multiple of 16 and P one of `rows`. A copy costs less than loads of one number each,
    and leaves one variant of the kernel to check.
    """
    across, down = -a.shape[1] % 16, -a.shape[0] % rows
    if across or down:
        return torch.nn.functional.pad(a, (0, across, 0, down))
    astray = type(a) is Tensor and a.data_ptr() % 16  # a traced tensor has no address
    if astray or a.stride(0) % 16 or a.stride(1) != 1:
        return a.clone(memory_format=torch.contiguous_format)
    return a


def product(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """out [P, Q], in float32: a [P, D] @ b [D, Q], or added to it, as exact as in float32.

    b is bfloat16 and a not float64, both as `aligned` gives them, b or its transpose in both axes.
    """
    rows, columns = out.shape
    if not rows:
        return out
    here = card(a.device)
    large = 2 * triton.cdiv(rows, 128) * triton.cdiv(columns, 128) >= here.processors
    block = 128 if large else 64  # small tiles where large ones would leave most processors idle
    launcher(product_kernel, a)[(triton.cdiv(rows, block) * triton.cdiv(columns, block),)](
        a, b, out, a.stride(0), *b.stride(), rows, columns, a.shape[1],
        PARTS=PARTS[a.dtype], ADD=add, INTERPRET=INTERPRET, BLOCK=block,
        BLOCK_D=64 if here.shared_memory >= _LARGE else 32,
        **options(a, 8 if large else 4, _STAGES),
    )  # fmt: skip
    return out
