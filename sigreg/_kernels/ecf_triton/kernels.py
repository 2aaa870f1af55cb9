"""The Triton kernels of the characteristic function: sums, loss and weights, gradient.

Letters: G batches, N samples, M directions, K knots. A pair of centres serves 16 knots beside the
base, k = b + 1 … b + 16 with b = 16·pair, from 32 products of features. The features are doubled
cosines and sines, because 2 cos 2θ = 2 − (2 sin θ)² and similar steps are then one instruction. The
resulting factors of 2 and 4 are corrected once per sum, not once per projection.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _signed(a, sign):
    """a, with its sign changed where bit 31 of `sign` is set."""
    return (a.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _double_sincos(x, scale, SPACING: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr):
    """2 sin and 2 cos of scale·SPACING·x; HIGH + LOW is SPACING / π in two float32.

    x is taken in half turns, minus the nearest whole number in one fused step, so that the angle is
    small before it is rounded; then minimax polynomials on a quarter turn both ways.
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
        # Beyond 2²² half turns float32 has no phase, and any finite result will do. NaN stays NaN.
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
    """Join four tensors into [..., 2, 2]; each thread holds its element of all four."""
    return tl.join(tl.join(a, b), tl.join(c, d))


@triton.jit
def four_times(a):
    """[..., 2, 2], a repeated."""
    return four(a, a, a, a)


@triton.jit
def products(add_to, centres, d1, d2, d3, d4, t1, t2, t3):
    """Add the 32 products of the centres with 1, d1 … d4, t1 … t3 to [..., 2, 2, 2, 2, 2]."""
    twice = tl.join(centres, centres)
    twice = tl.join(twice, twice)
    one = tl.full(d1.shape, 1.0, d1.dtype)
    low = four(four_times(one), four_times(d1), four_times(d2), four_times(d3))
    high = four(four_times(d4), four_times(t1), four_times(t2), four_times(t3))
    return tl.fma(tl.join(twice, twice), tl.join(low, high), add_to)


@triton.jit
def _place(M, N, samples, splits, BLOCK_M: tl.constexpr):
    """Directions, first sample, end, split and batch; only the first axis of a grid may be long."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = (pid // blocks) % splits
    start = split * samples
    batch = (pid // (blocks * splits)).to(tl.int64)
    return m, start, tl.minimum(start + samples, N), split, batch


@triton.jit(do_not_specialize=["N", "M", "samples", "splits", "pair", "pairs"])
def sums_kernel(
    x_ptr, scale_ptr, shares_ptr, out_ptr, N, M, samples, splits, pair, pairs,
    SPACING: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr, FIRST: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The 32 products summed over one program's samples, into out [G, splits, 32·pairs, M].

    x is [G, N, M]. A thread owns a direction and its neighbour the next, so a row of x is read in
    whole lines. Sums stay in registers until all samples are done.
    """
    m, start, end, split, batch = _place(M, N, samples, splits, BLOCK_M)
    live_m = (m < M)[None, :]
    row = tl.arange(0, ROWS)
    first_row = (batch * N + start + row).to(tl.int64)[:, None]
    at = x_ptr + first_row * M + m[None, :]
    zero = tl.zeros([ROWS, BLOCK_M], dtype=out_ptr.dtype.element_ty)
    scale = zero + 1.0
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + m[None, :], mask=live_m, other=0.0) + zero
    sums = four_times(four_times(zero))
    sums = tl.join(sums, sums)
    whole = start + (end - start) // ROWS * ROWS
    # The next x is loaded while this one is processed.
    x = tl.load(at, mask=live_m & (start + row < end)[:, None], other=0.0)
    for first in tl.range(start, whole, ROWS, loop_unroll_factor=2):
        at += ROWS * M
        ahead = tl.load(at, mask=live_m & (first + ROWS + row < end)[:, None], other=0.0)
        d1, d2, d3, d4, t1, t2, t3, centres, _, _ = features(
            x, scale, SPACING, HIGH, LOW, pair, FIRST
        )
        if shares_ptr is not None:
            share = tl.load(shares_ptr + batch * N + first + row)[:, None] + zero
            centres = centres * four_times(share)
        sums = products(sums, centres, d1, d2, d3, d4, t1, t2, t3)
        x = ahead
    # The samples that do not fill a step.
    counts = whole + row < end
    share = counts.to(out_ptr.dtype.element_ty)
    if shares_ptr is not None:
        share = tl.load(shares_ptr + batch * N + whole + row, mask=counts, other=0.0)
    d1, d2, d3, d4, t1, t2, t3, centres, _, _ = features(x, scale, SPACING, HIGH, LOW, pair, FIRST)
    centres = centres * four_times(share[:, None] + zero)
    sums = products(sums, centres, d1, d2, d3, d4, t1, t2, t3)
    # The places of `join`: bits 4, 3 say which centre, bits 2, 1, 0 which of the eight.
    i = tl.arange(0, 32)
    r = 8 * (i // 16 + i // 8 % 2 * 2) + i // 4 % 2 + i // 2 % 2 * 2 + i % 2 * 4
    out = out_ptr + ((batch * splits + split) * pairs + pair) * 32 * M
    total = tl.reshape(tl.sum(sums, 0), [BLOCK_M, 32])
    tl.store(out + r[None, :] * M + m[:, None], total, mask=(m < M)[:, None])


@triton.jit
def _table(half, q, r):
    """[32, 32]: the cosine (half 0) or sine (half 1) of knot b + q, q = 1 … 16, from row r.

    r = 16·i + 8·(sine of the centre) + j, for the centre p = b + 8·i + 4 and 1, d1 … d4, t1 … t3.
    With features doubled, cos (p ± j)θ = (cp·dj ∓ sp·tj) / 4 and its like; and the knots
    cos (p + 4)θ = cp·d4 / 2 − cos (p − 4)θ, whose last term the caller knows.
    """
    i = r // 16
    sine = r // 8 % 2
    j = r % 8
    away = q - 8 * i - 4
    size = tl.where(away < 0, -away, away)
    same = tl.where((j == size) & (j < 4), tl.where(j == 0, 0.5, 0.25), 0.0)
    sign = tl.where((away > 0) == (half == 1), 0.25, -0.25)
    other = tl.where((j > 4) & (j - 4 == size), sign, 0.0)
    near = tl.where(sine == half, same, other)
    last = tl.where(
        (j == 4) & (sine == half) & (8 * i < q), tl.where(8 * i + 8 == q, 0.5, -0.5), 0.0
    )
    return tl.where(q % 8 == 0, last, tl.where(i == q // 8, near, 0.0))


@triton.jit(do_not_specialize=["N", "K", "M", "known", "splits", "pairs", "terms", "ranks"])
def finish_kernel(
    sums_ptr, total_ptr, squares_ptr, scale_ptr, weight_ptr, target_ptr, loss_ptr, out_ptr,
    N, K, M, known, splits, pairs, terms, ranks,
    SPACING: tl.constexpr, SCALE_BY_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Loss [G, blocks], and weights [G, pairs, 34, M], from the sums [G, splits, 32·pairs, M].

    The weights are those of a pair's 32 products and of its base's cosine and sine, times the
    number of ranks, by which DDP and FSDP divide. Directions from `known` on are padding.
    """
    pid = tl.program_id(0)
    blocks = tl.cdiv(M, BLOCK_M)
    batch = (pid // blocks).to(tl.int64)
    m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = (m < M)[None, :]
    dtype = sums_ptr.dtype.element_ty
    total = N.to(dtype)
    squares = total
    if total_ptr is not None:
        total = tl.load(total_ptr + batch)
        squares = tl.load(squares_ptr + batch)
    divisor = tl.where(total != 0.0, total, 1.0)
    n = total * total / tl.where(total != 0.0, squares, 1.0)
    if not SCALE_BY_N:
        n = tl.where(total != 0.0, 1.0, 0.0).to(dtype)
    n = n / terms.to(dtype)  # the mean over batches and directions
    scale = tl.full([BLOCK_M], SPACING, dtype)
    if scale_ptr is not None:
        scale = scale * tl.load(scale_ptr + m, mask=m < M, other=0.0)
    r = tl.arange(0, 32)
    half = r // 16
    q = r % 16 + 1
    base_c = tl.full([BLOCK_M], 1.0, dtype) * (total / divisor)
    base_s = tl.zeros([BLOCK_M], dtype)
    at_zero = total / divisor - tl.load(target_ptr)  # knot 0: its sum is the total
    loss = tl.load(weight_ptr) * at_zero * at_zero * (m < known).to(dtype)
    for pair in range(pairs):
        products = tl.zeros([32, BLOCK_M], dtype)
        at = sums_ptr + ((batch * splits * pairs + pair) * 32 + r[:, None]) * M + m[None, :]
        for _ in range(splits):
            products += tl.load(at, mask=live, other=0.0)
            at += pairs * 32 * M
        table = _table(half[:, None], q[:, None], r[None, :]).to(dtype)
        sums = tl.dot(table, products, input_precision="ieee", out_dtype=dtype) / divisor
        base = tl.where(half[:, None] == 0, base_c[None, :], base_s[None, :])
        turn = tl.where(q == 8, -1.0, tl.where(q == 16, 1.0, 0.0))[:, None]
        mean = sums + base * turn
        k = 16 * pair + q
        knot = k < K
        weight = tl.load(weight_ptr + k, mask=knot, other=0.0)[:, None]
        target = tl.load(target_ptr + k, mask=knot & (half == 0), other=0.0)[:, None]
        miss = tl.where((m < known)[None, :], mean - target, 0.0)
        loss += tl.sum(weight * miss * miss, 0)
        # d/dθ of g_cos cos kθ + g_sin sin kθ is k (g_sin cos kθ − g_cos sin kθ).
        slope = weight * miss * tl.where(half == 0, -k, k)[:, None].to(dtype)
        slope = slope * (2.0 * ranks.to(dtype) * n / divisor) * scale[None, :]
        table = _table(1 - half[None, :], q[None, :], r[:, None]).to(dtype)
        out = out_ptr + ((batch * pairs + pair) * 34 + r[:, None]) * M + m[None, :]
        weights = tl.dot(table, slope, input_precision="ieee", out_dtype=dtype)
        tl.store(out, weights, mask=live)
        out = out_ptr + ((batch * pairs + pair) * 34 + 32) * M + m
        turned = slope * turn
        tl.store(out, tl.sum(tl.where(half[:, None] == 1, turned, 0.0), 0), mask=m < M)
        tl.store(out + M, tl.sum(tl.where(half[:, None] == 0, turned, 0.0), 0), mask=m < M)
        last = tl.where(q[:, None] == 16, mean, 0.0)
        base_c = tl.sum(tl.where(half[:, None] == 0, last, 0.0), 0)
        base_s = tl.sum(tl.where(half[:, None] == 1, last, 0.0), 0)
    tl.store(loss_ptr + pid, tl.sum(loss, 0) * n)


@triton.jit
def _weights(ptr, M, live):
    """[..., 2, 2]: the weights of the products of the four centres with one of the eight."""
    return four(
        tl.load(ptr, mask=live, other=0.0), tl.load(ptr + 8 * M, mask=live, other=0.0),
        tl.load(ptr + 16 * M, mask=live, other=0.0), tl.load(ptr + 24 * M, mask=live, other=0.0),
    )  # fmt: skip


@triton.jit(do_not_specialize=["N", "M", "samples", "splits", "pair", "pairs"])
def pull_kernel(
    x_ptr, scale_ptr, shares_ptr, weights_ptr, out_ptr, N, M, samples, splits, pair, pairs,
    SPACING: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr, FIRST: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Gradient of x by the weights of one pair, stored (FIRST) or added to out [G, N, M]."""
    m, start, end, _, batch = _place(M, N, samples, splits, BLOCK_M)
    live_m = (m < M)[None, :]
    row = tl.arange(0, ROWS)
    offset = (batch * N + start + row).to(tl.int64)[:, None] * M + m[None, :]
    zero = tl.zeros([ROWS, BLOCK_M], dtype=weights_ptr.dtype.element_ty)
    scale = zero + 1.0
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + m[None, :], mask=live_m, other=0.0) + zero
    # Every warp loads its own copy, so that no row is exchanged between warps.
    w = weights_ptr + (batch * pairs + pair) * 34 * M + m[None, :] + row[:, None] * 0
    live_w = live_m & (row >= 0)[:, None]
    w0, w1 = _weights(w, M, live_w), _weights(w + M, M, live_w)
    w2, w3 = _weights(w + 2 * M, M, live_w), _weights(w + 3 * M, M, live_w)
    w4, w5 = _weights(w + 4 * M, M, live_w), _weights(w + 5 * M, M, live_w)
    w6, w7 = _weights(w + 6 * M, M, live_w), _weights(w + 7 * M, M, live_w)
    base_wc = tl.load(w + 32 * M, mask=live_w, other=0.0)
    base_ws = tl.load(w + 33 * M, mask=live_w, other=0.0)
    x = tl.load(x_ptr + offset, mask=live_m & (start + row < end)[:, None], other=0.0)
    for first in tl.range(start, end, ROWS, loop_unroll_factor=2):
        live = live_m & (first + row < end)[:, None]
        ahead_live = live_m & (first + ROWS + row < end)[:, None]
        ahead = tl.load(x_ptr + offset + ROWS * M, mask=ahead_live, other=0.0)
        d1, d2, d3, d4, t1, t2, t3, centres, base_c, base_s = features(
            x, scale, SPACING, HIGH, LOW, pair, FIRST
        )
        h = tl.fma(w1, four_times(d1), w0)
        h = tl.fma(w2, four_times(d2), h)
        h = tl.fma(w3, four_times(d3), h)
        h = tl.fma(w4, four_times(d4), h)
        h = tl.fma(w5, four_times(t1), h)
        h = tl.fma(w6, four_times(t2), h)
        h = tl.fma(w7, four_times(t3), h)
        h_p, h_q = tl.split(h)
        of_p, of_q = tl.split(centres)
        h_cp, h_sp = tl.split(h_p)
        h_cq, h_sq = tl.split(h_q)
        cp, sp = tl.split(of_p)
        cq, sq = tl.split(of_q)
        pull = base_wc
        if not FIRST:
            pull = tl.fma(base_ws, base_s, base_wc * base_c)
        pull = tl.fma(sq, h_sq, tl.fma(cq, h_cq, tl.fma(sp, h_sp, tl.fma(cp, h_cp, pull))))
        if shares_ptr is not None:
            share = tl.load(shares_ptr + batch * N + first + row, mask=first + row < end, other=0.0)
            pull = pull * share[:, None]
        if not FIRST:
            pull += tl.load(out_ptr + offset, mask=live, other=0.0)
        tl.store(out_ptr + offset, pull, mask=live)
        offset += ROWS * M
        x = ahead


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
    """out [P, Q] = a [P, D] @ b [D, Q], or added to it; b is bfloat16, a has PARTS such parts.

    a is split into bfloat16 parts, smallest first. Steps are added outside of the tensor cores.
    """
    pid = tl.program_id(0)
    columns = tl.cdiv(Q, BLOCK)
    p = (pid // columns) * BLOCK + tl.arange(0, BLOCK)
    q = (pid % columns) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    # Beyond the end it reads another row and stores nothing, which saves a condition per load.
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
