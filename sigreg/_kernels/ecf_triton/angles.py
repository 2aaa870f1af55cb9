"""What the Triton kernels share: doubled cosines and sines of multiples of an angle.

Doubled, because 2 cos 2θ = 2 − (2 sin θ)² and its like are then one instruction each; the halves
and quarters that this leaves are put right once per sum, not once per projection.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["features", "four", "four_times", "products"]


@triton.jit
def _signed(a, sign):
    """a, with its sign changed where bit 31 of `sign` is set."""
    return (a.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _double_sincos(x, scale, SPACING: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr):
    """2 sin and 2 cos of scale·SPACING·x; HIGH + LOW is SPACING / π in two float32.

    Float32: x in half turns, less the nearest whole number of them in one fused step, so that the
    angle is not rounded before it is small; then minimax polynomials on a quarter turn both ways.
    """
    if x.dtype == tl.float64:
        theta = x * scale * SPACING
        s = 2.0 * tl.sin(theta)
        c = 2.0 * tl.cos(theta)
    else:
        high = scale * HIGH
        low = tl.fma(scale, HIGH, -high) + scale * LOW
        turns = tl.fma(x, high, 12582912.0)  # 1.5 · 2²³: what is left of the sum is a whole number
        sign = turns.to(tl.int32, bitcast=True) << 31
        turns = turns - 12582912.0
        r = tl.fma(x, low, tl.fma(x, high, -turns))
        # Beyond 2²² half turns float32 holds no phase: any finite answer will do; NaN stays.
        r = tl.where(tl.abs(r) > 1.0, 0.0, r)
        u = r * r
        s = tl.fma(u, 0.15501057446145774, -1.1964357117977156)
        s = tl.fma(u, s, 5.100134649267591)
        s = tl.fma(u, s, -10.33541962537758)
        s = tl.fma(u, s, -1.7484556000744483e-07)
        s = tl.fma(r, 6.2831854820251465, r * s)  # 2π in two float32, the smaller in the line above
        c = tl.fma(u, -0.048841398110271116, 0.4699078510528813)
        c = tl.fma(u, c, -2.670432209574047)
        c = tl.fma(u, c, 8.117419199507289)
        c = tl.fma(u, c, -9.869604312175193)
        c = tl.fma(u, c, 2.0)
        s = _signed(s, sign)
        c = _signed(c, sign)
    return s, c


@triton.jit
def features(
    x, scale, SPACING: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr,
    pair, FIRST: tl.constexpr,
):  # fmt: skip
    """d1 … d4 and t1 … t3, 2 cos jθ and 2 sin jθ; the four of the centres; cos and sin of the base.

    θ = scale·SPACING·x. The base is b = 16·pair, 0 for the FIRST; the centres are b + 4 and b + 12.
    """
    t1, d1 = _double_sincos(x, scale, SPACING, HIGH, LOW)
    d2 = tl.fma(-t1, t1, 2.0)
    t2 = t1 * d1
    d3 = tl.fma(-t1, t2, d1)
    t3 = tl.fma(d1, t2, -t1)
    d4 = tl.fma(-t2, t2, 2.0)
    t4 = t2 * d2
    d8 = tl.fma(-t4, t4, 2.0)
    d12 = tl.fma(d4, d8, -d4)
    t12 = tl.fma(t4, d8, t4)
    base_c = tl.full(x.shape, 1.0, x.dtype)
    base_s = tl.zeros_like(x)
    if FIRST:
        centres = four(d4, t4, d12, t12)
    else:
        base_s, base_c = _double_sincos(x * (16 * pair).to(x.dtype), scale, SPACING, HIGH, LOW)
        base_s = 0.5 * base_s
        base_c = 0.5 * base_c
        centres = four(
            tl.fma(base_c, d4, -base_s * t4), tl.fma(base_s, d4, base_c * t4),
            tl.fma(base_c, d12, -base_s * t12), tl.fma(base_s, d12, base_c * t12),
        )  # fmt: skip
    return d1, d2, d3, d4, t1, t2, t3, centres, base_c, base_s


@triton.jit
def four(a, b, c, d):
    """[..., 2, 2] of four tensors: a thread that holds an element of each holds the four."""
    return tl.join(tl.join(a, b), tl.join(c, d))


@triton.jit
def four_times(a):
    """[..., 2, 2], a repeated."""
    return four(a, a, a, a)


@triton.jit
def products(add_to, centres, d1, d2, d3, d4, t1, t2, t3):
    """add_to [..., 2, 2, 2, 2, 2] and the 32 products of the centres with 1, d1 … d4, t1 … t3."""
    twice = tl.join(centres, centres)
    twice = tl.join(twice, twice)
    one = tl.full(d1.shape, 1.0, d1.dtype)
    low = four(four_times(one), four_times(d1), four_times(d2), four_times(d3))
    high = four(four_times(d4), four_times(t1), four_times(t2), four_times(t3))
    return tl.fma(tl.join(twice, twice), tl.join(low, high), add_to)
