"""The CPU kernel in plain torch: sums of cos(k θ) and sin(k θ) from few features.

Write every knot as k = p ± j with a centre p ∈ {4, 12, 20, …} and an offset j ≤ 4. Then

    cos (p ± j)θ = cos pθ cos jθ ∓ sin pθ sin jθ,   sin (p ± j)θ = sin pθ cos jθ ± cos pθ sin jθ

so all 2K sums over samples are combinations of products Σ_n F_p F_j of a few features: a batched
matrix product [2P, N] @ [N, 9] per row. The gradient is the transposed product. One sine, one
cosine and eleven features serve 17 knots. The rows are processed in tiles that fit the cache.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sigreg._kernels.contract import Answer, Problem, effective_size, finish
from sigreg.directions import Directions

# Samples × directions per tile. More leave the cache; fewer need more calls and use one thread.
_TILE = 1 << 16
_PROJECTIONS = 1 << 16  # held at a time in one walk, or 128 directions if that is more
_PAD = 112  # without it a power-of-two N maps all features of a sample to one cache set
_OFFSETS = 9  # 1, and cos and sin of θ, 2θ, 3θ, 4θ
_CENTRES = 7  # cos 4θ and sin 4θ are the first centre too
_SCALE_4 = 4.0  # sin 4θ and the later centres' sines are kept divided by 4


@functools.lru_cache(maxsize=32)
def _combinations(num_knots: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """([2P·9, 2K], [2K, 2P·9]): from products to sums, and from gradients of sums to weights."""
    forward = torch.zeros(2 * _centres(num_knots), _OFFSETS, 2, num_knots, dtype=torch.float64)
    # Factors that turn a stored feature into the true cosine or sine.
    unit_j = [(1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (-1.0, 1.0), (1.0, _SCALE_4)]
    for k in range(num_knots):
        i = max(0, (k - 1) // 8)
        p, c, s = 8 * i + 4, 2 * i, 2 * i + 1
        j, sign = abs(k - p), 1.0 if k >= p else -1.0
        cos_p, sin_p = (1.0 if i == 0 else -1.0), _SCALE_4
        cos_j, sin_j = unit_j[j]
        forward[c, max(0, 2 * j - 1), 0, k] = cos_p * cos_j
        forward[s, max(0, 2 * j - 1), 1, k] = sin_p * cos_j
        if j:
            forward[s, 2 * j, 0, k] = -sign * sin_p * sin_j
            forward[c, 2 * j, 1, k] = sign * cos_p * sin_j
    # d/dθ of g_cos cos kθ + g_sin sin kθ is k (g_sin cos kθ − g_cos sin kθ).
    cos, sin = forward.flatten(0, 1).unbind(1)
    knot = torch.arange(num_knots)
    backward = torch.cat((-knot * sin, knot * cos), 1).T.contiguous()
    return forward.flatten(2).flatten(0, 1).to(dtype), backward.to(dtype)


def _centres(num_knots: int) -> int:
    """P, the number of centres 4, 12, 20, … for the knots 0..K−1."""
    return max(1, -(-(num_knots - 1) // 8))


class _Tile:
    """Buffers for the features of `rows` rows of `n` angles, used for one tile after another."""

    def __init__(self, rows: int, n: int, num_knots: int, like: Tensor) -> None:
        self.centres = _centres(num_knots)
        count = _CENTRES + 2 * self.centres
        buffer = like.new_empty(count, rows * n + _PAD)[:, : rows * n]
        self.buffer = buffer.view(count, rows, n)
        self.buffer[0] = 1
        self.product = like.new_empty(rows, 2 * self.centres, _OFFSETS)
        self.pulled = like.new_empty(rows, 2 * self.centres, n)

    def load(self, theta: Tensor, roots: Tensor | None) -> None:
        """Compute the features of theta [rows, n] times the roots of the shares."""
        rows, n = theta.shape
        f = self.features = self.buffer[:, :rows, :n]
        # Scratch memory, which `pull` overwrites later.
        c8, s8 = self.pulled.view(-1)[: 2 * rows * n].view(2, rows, n)
        if roots is not None:
            f[0] = 1
        one, c1, s1, c2, s2, c3, s3, c4, s4 = f[:_OFFSETS]
        torch.cos(theta, out=c1)
        torch.sin(theta, out=s1)
        torch.addcmul(one, s1, s1, value=-2, out=c2)
        torch.mul(s1, c1, out=s2)  # sin 2θ / 2
        torch.addcmul(c1, c1, c2, value=-2, out=c3)  # −cos 3θ
        torch.addcmul(s1, s1, c2, value=2, out=s3)
        torch.addcmul(one, s2, s2, value=-8, out=c4)
        torch.mul(s2, c2, out=s4)  # sin 4θ / 4
        if self.centres > 1:
            torch.addcmul(one, s4, s4, value=-32, out=c8)
            torch.addcmul(c4, c4, c8, value=-2, out=f[9])  # −cos 12θ
            torch.addcmul(s4, s4, c8, value=2, out=f[10])  # sin 12θ / 4
        if self.centres > 2:
            torch.mul(s4, c4, out=s8).mul_(2)  # sin 8θ / 4
            for i in range(2, self.centres):  # rotate by 8θ: errors grow with i, not with i²
                c, s, c_next, s_next = f[5 + 2 * i : 9 + 2 * i]
                torch.mul(c, c8, out=c_next).addcmul_(s, s8, value=16)
                torch.mul(s, c8, out=s_next).addcmul_(c, s8, value=-1)
        if roots is not None:
            f.mul_(roots)

    def products(self) -> Tensor:
        """[rows, 2P·9], Σ_n F_p F_j."""
        f = self.features
        out = self.product[: f.shape[1]]
        # Sums of sums round less than one long sum; least if both are about equally long.
        run = max(128, 1 << round(math.log2(6 * math.sqrt(f.shape[-1]))))
        for i, part in enumerate(torch.split(f, run, -1)):
            out.baddbmm_(
                part[_CENTRES:].transpose(0, 1), part[:_OFFSETS].permute(1, 2, 0), beta=min(i, 1)
            )
        return out.flatten(1)

    def pull(self, weights: Tensor, out: Tensor) -> Tensor:
        """Σ_pj weights_pj F_p F_j, into out [rows, n]; weights [rows, 2P·9]."""
        f = self.features
        rows, n = out.shape
        h = self.pulled[:rows, :, :n] if n == self.pulled.shape[2] else self.pulled.new_empty(0)
        h = torch.bmm(weights.view(rows, -1, _OFFSETS), f[:_OFFSETS].transpose(0, 1), out=h)
        torch.mul(f[_CENTRES], h[:, 0], out=out)
        for i in range(1, 2 * self.centres):
            out.addcmul_(f[_CENTRES + i], h[:, i])
        return out


def loss(problem: Problem) -> Answer:
    """Answer a problem: in one pass over the tiles, or in two where that is not possible."""
    wanted = problem.want_z or problem.want_rows
    if wanted and not problem.group and 0 < problem.z.shape[1] <= _TILE:
        return _in_one_walk(problem)
    return _in_two_phases(problem)


def _in_two_phases(problem: Problem) -> Answer:
    """Compute the sums of all directions, add them over the ranks, then compute the gradients."""
    z, directions, shares, rule, _, chunk, *_ = problem
    knots, spacing = rule.weight.numel(), problem.spacing
    z = z.to(rule.weight)
    roots = None if shares is None else shares.sqrt()
    forward, backward = _combinations(knots, z.dtype)
    blocks = directions.split(chunk or len(directions.rows))
    x, found = z, []
    for block in blocks:
        x = _project(z, block)
        sums = x.new_zeros(len(x), x.shape[2], 2 * knots)
        for tile, _, b, m, _ in _tiles(x, roots, knots, spacing):
            sums[b, m].addmm_(tile.products(), forward)
        found.append(sums)
    loss, slope = finish(*problem.over_ranks(torch.cat(found, 1)), problem)
    grad_z = z.new_zeros(z.shape if problem.want_z else 0)
    grad_rows = z.new_zeros(directions.rows.shape if problem.want_rows else 0)
    if not (problem.want_z or problem.want_rows):
        return loss, grad_z, grad_rows
    if directions.scale is not None:
        slope = slope * directions.scale.to(slope)[:, None]
    first = 0
    for block in blocks:
        at = slice(first, first + len(block.rows))
        if len(blocks) > 1:
            x = _project(z, block)
        weights = slope[:, at].contiguous() @ (backward * spacing)
        # x is not used again: its gradient overwrites it.
        for tile, angles, b, m, s in _tiles(x, roots, knots, spacing):
            x[b, s, m] = tile.pull(weights[b, m], angles).T
        if problem.want_z:
            grad_z += x @ block.rows.to(z)
        if problem.want_rows:
            torch.sum(x.mT @ z, 0, out=grad_rows[at])
        first = at.stop
    return loss, grad_z, grad_rows


def _project(z: Tensor, directions: Directions) -> Tensor:
    """Projections [G, N, M]; the samples of a direction are adjacent in memory."""
    rows, scale = directions.to(z)
    return ((rows if scale is None else rows * scale[:, None]) @ z.mT).mT


def _tiles(
    x: Tensor, roots: Tensor | None, knots: int, spacing: float
) -> Iterator[tuple[_Tile, Tensor, int, slice, slice]]:
    """Load every tile of x [G, N, M]: yields tile, angles, batch, directions and samples."""
    if not x.numel():
        return
    groups, n, num = x.shape
    rows, samples = _tile_shape(num, n)
    tile = _Tile(rows, samples, knots, x)
    buffer = torch.empty_like(tile.buffer[0])
    for b, i, j in itertools.product(range(groups), range(0, num, rows), range(0, n, samples)):
        m, s = slice(i, i + rows), slice(j, j + samples)
        part = x[b, s, m].T
        angles = torch.mul(part, spacing, out=buffer[: part.shape[0], : part.shape[1]])
        tile.load(angles, None if roots is None else roots[b, s])
        yield tile, angles, b, m, s


def _tile_shape(rows: int, n: int) -> tuple[int, int]:
    """(rows, samples) of evenly sized tiles, with all samples of a row if they fit."""
    samples = min(n, _TILE)
    tiles = -(-rows // (_TILE // samples))
    return -(-rows // tiles), samples


def _in_one_walk(problem: Problem) -> Answer:
    """Sums and gradients tile by tile, while the features of a direction are in the cache."""
    z, directions, shares, rule = problem[:4]
    groups, n, dim = z.shape
    num, knots, spacing = len(directions.rows), rule.weight.numel(), problem.spacing
    chunk = min(num, problem.chunk or max(128, _PROJECTIONS // (groups * n)))
    flat = z.to(rule.weight).reshape(groups * n, dim).contiguous()  # the same bits for any strides
    forward, backward = _combinations(knots, flat.dtype)
    rows, _ = _tile_shape(chunk * groups, n)
    backward = backward * (2 / (num * groups))
    # With miss = sums − total · target the statistic is Σ factor · miss².
    total, size = effective_size(*problem.own_sizes(), problem.scale_by_n)
    expected = torch.outer(total, torch.cat((rule.target, 0 * rule.target)))
    factor = torch.outer(size / total.square(), torch.cat((rule.weight, rule.weight)))
    # The rows of a tile are (direction, group): repeat the groups beyond the end of the last tile.
    repeats = rows // groups + 2
    expected, factor = expected.repeat(repeats, 1), factor.repeat(repeats, 1)
    roots = None if shares is None else shares.sqrt().repeat(repeats, 1)
    tile = _Tile(rows, n, knots, flat)
    theta = flat.new_empty(chunk, groups * n)
    loss = flat.new_zeros(())
    grad_z = flat.new_zeros(flat.shape if problem.want_z else 0)
    grad_rows = flat.new_zeros(directions.rows.shape if problem.want_rows else 0)
    for i, (part, scale) in enumerate(directions.split(chunk)):
        a = part.to(flat) * (spacing if scale is None else scale.to(flat)[:, None] * spacing)
        angles = torch.mm(a, flat.T, out=theta[: len(a)])
        for j in range(0, len(a) * groups, rows):
            angle = angles.view(-1, n)[j : j + rows]
            at = slice(j % groups, j % groups + len(angle))
            tile.load(angle, None if roots is None else roots[at])
            miss = torch.addmm(expected[at], tile.products(), forward, beta=-1)
            pull = miss * factor[at]
            loss += torch.dot(pull.view(-1), miss.view(-1))
            tile.pull(pull @ backward, angle)
        if problem.want_z:
            grad_z.addmm_(angles.T, a)
        if problem.want_rows:
            torch.mm(angles, flat, out=grad_rows[i * chunk : i * chunk + len(a)]).mul_(spacing)
    return loss / (num * groups), grad_z.view(z.shape) if problem.want_z else grad_z, grad_rows
