"""The Triton kernels of `ecf_triton`: 36 products, their combination, the gradient."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from sigreg._kernels.ecf_triton.angles import accumulate, features, nine, place, store_nine, weigh

__all__ = ["combine_kernel", "products_kernel", "pull_kernel"]


@triton.jit(do_not_specialize=["N", "M", "samples", "splits"])
def products_kernel(
    x_ptr, mask_ptr, out_ptr, stride_b, stride_n, stride_m, N, M, samples, splits,
    SPACING: tl.constexpr, HAS_MASK: tl.constexpr, PAIR: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The 36 products summed over one program's samples, to out [batch, split, 36, M]."""
    m, start, end, split, batch = place(M, N, samples, splits, BLOCK_M)
    live_m = m < M
    column = x_ptr + batch * stride_b + m.to(tl.int64) * stride_m
    zero = tl.zeros([ROWS, BLOCK_M], dtype=ACC)
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = nine(zero)
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = nine(zero)
    d0, d1, d2, d3, d4, d5, d6, d7, d8 = nine(zero)
    e0, e1, e2, e3, e4, e5, e6, e7, e8 = nine(zero)
    for first in range(start, end, ROWS):
        n = first + tl.arange(0, ROWS)
        live_n = n < end
        at = n.to(tl.int64)
        live = live_n[:, None] & live_m[None, :]
        x = tl.load(column[None, :] + at[:, None] * stride_n, mask=live, other=0.0).to(ACC)
        c1, c2, c3, c4, s1, s2, s3, s4, cp, sp, cq, sq = features(x * SPACING, PAIR)
        if HAS_MASK or ROWS > 1:
            count = live_n.to(ACC)
            if HAS_MASK:
                count = tl.load(mask_ptr + batch * N + at, mask=live_n, other=0.0).to(ACC)
            cp = cp * count[:, None]
            sp = sp * count[:, None]
            cq = cq * count[:, None]
            sq = sq * count[:, None]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = accumulate(
            cp, c1, c2, c3, c4, s1, s2, s3, s4, a0, a1, a2, a3, a4, a5, a6, a7, a8
        )
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = accumulate(
            sp, c1, c2, c3, c4, s1, s2, s3, s4, b0, b1, b2, b3, b4, b5, b6, b7, b8
        )
        d0, d1, d2, d3, d4, d5, d6, d7, d8 = accumulate(
            cq, c1, c2, c3, c4, s1, s2, s3, s4, d0, d1, d2, d3, d4, d5, d6, d7, d8
        )
        e0, e1, e2, e3, e4, e5, e6, e7, e8 = accumulate(
            sq, c1, c2, c3, c4, s1, s2, s3, s4, e0, e1, e2, e3, e4, e5, e6, e7, e8
        )
    out = out_ptr + (batch * splits + split) * 36 * M + m
    store_nine(out, M, live_m, a0, a1, a2, a3, a4, a5, a6, a7, a8)
    store_nine(out + 9 * M, M, live_m, b0, b1, b2, b3, b4, b5, b6, b7, b8)
    store_nine(out + 18 * M, M, live_m, d0, d1, d2, d3, d4, d5, d6, d7, d8)
    store_nine(out + 27 * M, M, live_m, e0, e1, e2, e3, e4, e5, e6, e7, e8)


@triton.jit(do_not_specialize=["K", "M", "splits"])
def combine_kernel(
    products_ptr, out_ptr, K, M, splits,
    PAIR: tl.constexpr, ACC: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One sum of cosines or sines of one knot of this pair, to out [batch, M, 2K]."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = m < M
    first: tl.constexpr = 1 if PAIR > 0 else 0  # k = 16·PAIR belongs to the pair before, if any
    knots = tl.minimum(K - 16 * PAIR, 17) - first
    which = (pid // blocks) % (2 * knots)
    batch = (pid // (blocks * 2 * knots)).to(tl.int64)
    local = which % knots + first
    is_sin = which // knots
    second = ((local + 7) // 8 - 1) * (local > 0).to(tl.int32)  # 0 for k ≤ 8, 1 beyond
    j = local - 8 * second - 4
    sign = tl.where(j == 0, 0.0, tl.where((j > 0) == (is_sin > 0), 1.0, -1.0)).to(ACC)
    j = tl.where(j < 0, -j, j)
    even = 18 * second + 9 * is_sin + j
    odd = 18 * second + 9 * (1 - is_sin) + 4 + j
    total = tl.zeros([BLOCK_M], dtype=ACC)
    for split in range(splits):
        at = products_ptr + (batch * splits + split) * 36 * M + m
        total += tl.load(at + even * M, mask=live, other=0.0)
        total += sign * tl.load(at + odd * M, mask=live, other=0.0)
    out = out_ptr + (batch * M + m) * 2 * K + is_sin * K + 16 * PAIR + local
    tl.store(out, total, mask=live)


@triton.jit
def _weights(g_ptr, K, live, CENTRE: tl.constexpr, FIRST: tl.constexpr, ACC: tl.constexpr):
    """The 18 weights of one centre, from the gradient of the sums [..., 2K] at g_ptr.

    d/dθ of g_cos cos kθ + g_sin sin kθ is k (g_sin cos kθ − g_cos sin kθ).
    """
    wc0, ws0 = _knot(g_ptr, K, live, CENTRE, ACC)
    up, vp = _knot(g_ptr, K, live, CENTRE + 1, ACC)
    um, vm = _knot(g_ptr, K, live, CENTRE - 1, ACC)
    wc1, wc5, ws1, ws5 = up + um, vp - vm, vp + vm, um - up
    up, vp = _knot(g_ptr, K, live, CENTRE + 2, ACC)
    um, vm = _knot(g_ptr, K, live, CENTRE - 2, ACC)
    wc2, wc6, ws2, ws6 = up + um, vp - vm, vp + vm, um - up
    up, vp = _knot(g_ptr, K, live, CENTRE + 3, ACC)
    um, vm = _knot(g_ptr, K, live, CENTRE - 3, ACC)
    wc3, wc7, ws3, ws7 = up + um, vp - vm, vp + vm, um - up
    up, vp = _knot(g_ptr, K, live, CENTRE + 4, ACC)
    um, vm = tl.zeros_like(up), tl.zeros_like(vp)
    if FIRST:
        um, vm = _knot(g_ptr, K, live, CENTRE - 4, ACC)
    wc4, wc8, ws4, ws8 = up + um, vp - vm, vp + vm, um - up
    return (
        wc0, wc1, wc2, wc3, wc4, wc5, wc6, wc7, wc8,
        ws0, ws1, ws2, ws3, ws4, ws5, ws6, ws7, ws8,
    )  # fmt: skip


@triton.jit
def _knot(g_ptr, K, live, k: tl.constexpr, ACC: tl.constexpr):
    live = live & (tl.zeros_like(live).to(tl.int32) + k < K)
    u = tl.load(g_ptr + K + k, mask=live, other=0.0).to(ACC) * k
    v = tl.load(g_ptr + k, mask=live, other=0.0).to(ACC) * -k
    return u[None, :], v[None, :]


@triton.jit(do_not_specialize=["K", "N", "M", "samples", "splits"])
def pull_kernel(
    x_ptr, mask_ptr, g_ptr, out_ptr, stride_b, stride_n, stride_m,
    out_stride_b, out_stride_n, out_stride_m, K, N, M, samples, splits,
    SPACING: tl.constexpr, HAS_MASK: tl.constexpr, PAIR: tl.constexpr, ADD: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Gradient of one pair's sums with respect to x, stored or added to out [batch, N, M]."""
    m, start, end, _, batch = place(M, N, samples, splits, BLOCK_M)
    live_m = m < M
    at_m = m.to(tl.int64)
    g = g_ptr + (batch * M + at_m) * 2 * K
    a0, a1, a2, a3, a4, a5, a6, a7, a8, b0, b1, b2, b3, b4, b5, b6, b7, b8 = _weights(
        g, K, live_m, 16 * PAIR + 4, PAIR == 0, ACC
    )
    d0, d1, d2, d3, d4, d5, d6, d7, d8, e0, e1, e2, e3, e4, e5, e6, e7, e8 = _weights(
        g, K, live_m, 16 * PAIR + 12, False, ACC
    )
    column = x_ptr + batch * stride_b + at_m * stride_m
    out_column = out_ptr + batch * out_stride_b + at_m * out_stride_m
    for first in range(start, end, ROWS):
        n = first + tl.arange(0, ROWS)
        live_n = n < end
        at = n.to(tl.int64)
        live = live_n[:, None] & live_m[None, :]
        x = tl.load(column[None, :] + at[:, None] * stride_n, mask=live, other=0.0).to(ACC)
        c1, c2, c3, c4, s1, s2, s3, s4, cp, sp, cq, sq = features(x * SPACING, PAIR)
        pull = weigh(cp, c1, c2, c3, c4, s1, s2, s3, s4, a0, a1, a2, a3, a4, a5, a6, a7, a8)
        pull += weigh(sp, c1, c2, c3, c4, s1, s2, s3, s4, b0, b1, b2, b3, b4, b5, b6, b7, b8)
        pull += weigh(cq, c1, c2, c3, c4, s1, s2, s3, s4, d0, d1, d2, d3, d4, d5, d6, d7, d8)
        pull += weigh(sq, c1, c2, c3, c4, s1, s2, s3, s4, e0, e1, e2, e3, e4, e5, e6, e7, e8)
        pull = pull * SPACING
        if HAS_MASK:
            pull *= tl.load(mask_ptr + batch * N + at, mask=live_n, other=0.0).to(ACC)[:, None]
        to = out_column[None, :] + at[:, None] * out_stride_n
        if ADD:
            pull += tl.load(to, mask=live, other=0.0).to(ACC)
        tl.store(to, pull.to(out_ptr.dtype.element_ty), mask=live)
