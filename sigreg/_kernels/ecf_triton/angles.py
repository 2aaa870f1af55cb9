"""What the Triton kernels share: cosines and sines of multiples of an angle, nine at a time."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["accumulate", "features", "nine", "place", "store_nine", "weigh"]


@triton.jit
def sincos(theta):
    """Sine and cosine; float32 by Cody and Waite's reduction and minimax polynomials."""
    if theta.dtype == tl.float64:
        sin = tl.sin(theta)
        cos = tl.cos(theta)
    else:
        turn = tl.floor(theta * 0.6366197723675814 + 0.5)
        r = theta - turn * 1.5703125
        r = r - turn * 0.0004837512969970703
        r = r - turn * 7.549789954891882e-08
        # Beyond 2²⁴ quarter turns float32 holds no phase: any finite answer will do; NaN stays.
        r = tl.where(tl.abs(r) > 1.0, 0.0, r)
        u = r * r
        s = r + r * u * (
            -0.16666654936694406 + u * (0.008332177686457512 - u * 0.0001951723469232488)
        )
        c = 0.04166664685460497 + u * (-0.001388736691007452 + u * 2.4438379482316324e-05)
        c = 1.0 - 0.5 * u + u * u * c
        quarter = turn - 4.0 * tl.floor(turn * 0.25)
        odd = (quarter == 1.0) | (quarter == 3.0)
        sin = tl.where(odd, c, s)
        cos = tl.where(odd, s, c)
        sin = tl.where(quarter >= 2.0, -sin, sin)
        cos = tl.where((quarter == 1.0) | (quarter == 2.0), -cos, cos)
    return sin, cos


@triton.jit
def features(theta, PAIR: tl.constexpr):
    """Cosines and sines of θ … 4θ, and of the centres (16·PAIR + 4)θ and (16·PAIR + 12)θ."""
    s1, c1 = sincos(theta)
    c2 = 1.0 - 2.0 * s1 * s1
    s2 = 2.0 * s1 * c1
    c3 = 2.0 * c1 * c2 - c1
    s3 = 2.0 * s1 * c2 + s1
    c4 = 1.0 - 2.0 * s2 * s2
    s4 = 2.0 * s2 * c2
    c8 = 1.0 - 2.0 * s4 * s4
    cp = c4
    sp = s4
    cq = 2.0 * c4 * c8 - c4
    sq = 2.0 * s4 * c8 + s4
    if PAIR > 0:
        s, c = sincos(theta * (16.0 * PAIR))
        turned = c * cp - s * sp
        sp = s * cp + c * sp
        cp = turned
        turned = c * cq - s * sq
        sq = s * cq + c * sq
        cq = turned
    return c1, c2, c3, c4, s1, s2, s3, s4, cp, sp, cq, sq


@triton.jit
def nine(a):
    """Nine times a."""
    return a, a, a, a, a, a, a, a, a


@triton.jit
def accumulate(f, c1, c2, c3, c4, s1, s2, s3, s4, a0, a1, a2, a3, a4, a5, a6, a7, a8):
    """Add the nine products of f with 1, cos jθ and sin jθ to the nine a."""
    a0 += f
    a1 += f * c1
    a2 += f * c2
    a3 += f * c3
    a4 += f * c4
    a5 += f * s1
    a6 += f * s2
    a7 += f * s3
    a8 += f * s4
    return a0, a1, a2, a3, a4, a5, a6, a7, a8


@triton.jit
def store_nine(out, step, live, a0, a1, a2, a3, a4, a5, a6, a7, a8):
    """Sum each a over axis 0 and store them `step` apart."""
    tl.store(out, tl.sum(a0, 0), mask=live)
    tl.store(out + step, tl.sum(a1, 0), mask=live)
    tl.store(out + 2 * step, tl.sum(a2, 0), mask=live)
    tl.store(out + 3 * step, tl.sum(a3, 0), mask=live)
    tl.store(out + 4 * step, tl.sum(a4, 0), mask=live)
    tl.store(out + 5 * step, tl.sum(a5, 0), mask=live)
    tl.store(out + 6 * step, tl.sum(a6, 0), mask=live)
    tl.store(out + 7 * step, tl.sum(a7, 0), mask=live)
    tl.store(out + 8 * step, tl.sum(a8, 0), mask=live)


@triton.jit
def weigh(f, c1, c2, c3, c4, s1, s2, s3, s4, w0, w1, w2, w3, w4, w5, w6, w7, w8):
    """Product of f and the sum of the nine w with 1, cos jθ and sin jθ."""
    even = w0 + w1 * c1 + w2 * c2 + w3 * c3 + w4 * c4
    odd = w5 * s1 + w6 * s2 + w7 * s3 + w8 * s4
    return f * (even + odd)


@triton.jit
def place(M, N, samples, splits, BLOCK_M: tl.constexpr):
    """Directions, first sample, end, split and batch index of this program.

    A flat grid: only its first axis may exceed 65,535 programs.
    """
    pid = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = (pid // blocks) % splits
    start = split * samples
    batch = (pid // (blocks * splits)).to(tl.int64)
    return m, start, tl.minimum(start + samples, N), split, batch
