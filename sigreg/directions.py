"""Unit directions as a pure function of (seed, step): no generator, no communication."""

import functools
import math
import operator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sigreg import _arguments as require

__all__ = ["Directions", "Sketch", "random_directions"]

SAMPLERS = ("gaussian", "orthogonal")
# Odd multipliers of splitmix64 (Steele, Lea & Flood, 2014), written as signed 64-bit numbers.
HASH = _WEYL, _MIX_A, _MIX_B = -7046029254386353131, -4658895280553007687, -7723592293110705685
GRID = 4096.0  # rows are multiples of its inverse, so that float64 adds their squares exactly
_BLOCK = 1 << 16  # counters at a time, so that the work fits the cache


class Directions(NamedTuple):
    """M unit vectors: direction m is scale_m · rows_m.

    bfloat16 holds the drawn rows exactly, so matrix products may use it without loss.
    """

    rows: Tensor  #: [M, D], bfloat16 where drawn
    scale: Tensor | None = None  #: [M], float32; None for rows that are unit vectors themselves

    def unit(self) -> Tensor:
        """[M, D], float32, unit rows."""
        rows = self.rows.float()
        return rows if self.scale is None else rows * self.scale[:, None]

    def to(self, like: Tensor) -> "Directions":
        """The same directions in the dtype and on the device of `like`."""
        return Directions(self.rows.to(like), None if self.scale is None else self.scale.to(like))

    def split(self, num: int) -> "list[Directions]":
        """Parts of `num` directions each."""
        rows = self.rows.split(num)
        scales = [None] * len(rows) if self.scale is None else self.scale.split(num)
        return [Directions(*part) for part in zip(rows, scales, strict=True)]

    def mark(self) -> Tensor:
        """[8], digits of base 16 that differ between directions drawn at two seeds or steps."""
        bits = self.rows[:, :8].contiguous().view(torch.int16).long().flatten()
        place = torch.arange(len(bits), device=bits.device) * 2 + 1
        total = _scramble((bits * place * _MIX_A).sum())
        return (total >> torch.arange(0, 32, 4, device=bits.device)) & 15


def _scramble(counter: Tensor) -> Tensor:
    """splitmix64's mixing of `counter`, in place, so that each bit depends on all 64.

    torch has only arithmetic shifts for int64, which cost one bit of state per round.
    """
    for shift, factor in ((30, _MIX_A), (27, _MIX_B), (31, _WEYL)):
        counter ^= counter >> shift
        counter *= factor
    return counter


def wrap(number: int) -> int:
    """The number modulo 2⁶⁴, as a signed 64-bit integer."""
    number = operator.index(number)
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def hash_start(seed: int) -> int:
    """The first counter of a seed, as a Python integer."""
    return int(_scramble(torch.tensor(wrap(seed * _WEYL), device="cpu")))


@functools.cache
def quantiles(device: torch.device) -> Tensor:
    """[2¹⁶], bfloat16: quantiles of N(0, 1) at (i + ½) / 2¹⁶, the same bits on every device."""
    p = (torch.arange(1 << 15, dtype=torch.float64, device="cpu") + 0.5) / (1 << 16)
    above = _on_grid(torch.special.ndtri(0.5 + p).clamp_(min=1 / GRID))
    return torch.cat((-above.flip(0), above)).to(device)


def _on_grid(x: Tensor) -> Tensor:
    """x rounded to multiples of 1 / GRID that bfloat16 holds exactly."""
    return (x * GRID).round_().div_(GRID).bfloat16()


def gaussian_rows(num: int, dim: int, seed: int, step: Tensor) -> Tensor:
    """[num, dim], bfloat16: independent N(0, 1) from a table, four from each counter."""
    quads = (dim + 3) // 4
    stream = _scramble((step + hash_start(seed)).mul_(_MIX_B)).add_(_WEYL)
    table = quantiles(step.device)
    g = torch.empty(num, dim, dtype=torch.bfloat16, device=step.device)
    block = max(1, _BLOCK // quads)
    for i in range(0, num, block):
        rows = g[i : i + block]
        counter = torch.arange(i * quads, (i + len(rows)) * quads, device=step.device)
        bits = _scramble(counter.mul_(_WEYL).add_(stream))
        index = bits.view(torch.int16).to(torch.int32).add_(1 << 15)
        rows.copy_(torch.index_select(table, 0, index).view(len(rows), -1)[:, :dim])
    return g


def _orthonormal(g: Tensor) -> Tensor:
    """Gram-Schmidt of the rows of g [..., n, dim]; both ways round to the same bfloat16."""
    if g.device.type != "cpu":
        return _by_cholesky(g)
    q, r = torch.linalg.qr(g.mT)  # LAPACK's QR is faster on a CPU
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return q.mT * sign.unsqueeze(-1)


def _by_cholesky(g: Tensor) -> Tensor:
    """Gram-Schmidt by the Cholesky factor of the Gram matrix, twice, without synchronising."""
    # The shift keeps the first Gram matrix positive definite. The result does not depend on it.
    for shift in (1e-13, 0.0):
        gram = g @ g.mT
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        diagonal += shift * diagonal.sum(-1, keepdim=True)
        factor = torch.linalg.cholesky_ex(gram).L
        g = torch.linalg.solve_triangular(factor, g, upper=False)
    return g


def draw(rows: Tensor, orthogonal: bool) -> tuple[Tensor, Tensor]:
    """Rows and scale of `Directions` from Gaussian rows [M, dim]."""
    if orthogonal:
        # A row depends only on earlier rows of its block, so M may cut the last block.
        dim = rows.shape[1]
        whole = len(rows) // dim * dim
        g = rows.double()
        q = _orthonormal(g[:whole].view(-1, dim, dim)).reshape(-1, dim)
        q = torch.cat((q, _orthonormal(g[whole:])))
        rows = _on_grid(q * math.sqrt(dim))
    # Sums of squares on the grid are exact in any order, so all devices agree.
    return rows, rows.double().square_().sum(1).sqrt_().reciprocal_().float()


# A custom operator: a compiler may not reassociate products that overflow; a GPU has a kernel.
@torch.library.custom_op("sigreg::directions", mutates_args=())
def directions_op(
    step: Tensor, num_proj: int, dim: int, seed: int, orthogonal: bool
) -> tuple[Tensor, Tensor]:
    """Rows [num_proj, dim] in bfloat16, and their scale [num_proj]."""
    return draw(gaussian_rows(num_proj, dim, seed, step), orthogonal)


@directions_op.register_fake
def _(step: Tensor, num_proj: int, dim: int, *_: object) -> tuple[Tensor, Tensor]:
    rows = step.new_empty(num_proj, dim, dtype=torch.bfloat16)
    return rows, step.new_empty(num_proj, dtype=torch.float32)


def random_directions(
    num_proj: int,
    dim: int,
    *,
    seed: int,
    step: int | Tensor,
    device: torch.device | str | None = None,
    sampler: str = "gaussian",
) -> Tensor:
    """Unit vectors uniform on the sphere, a pure function of (seed, step).

        a_m = g_m / |g_m|,   g_m ~ N(0, I) from a hash of (seed, step, m, d)

    Ranks, restarts and devices agree to the last bit, without messages or stored state. The g_md
    are 2¹⁶ quantiles of the normal law, in bfloat16. Every step draws fresh ones, so few suffice.

    Args:
        num_proj: M, how many.
        dim: D, their length.
        seed: any integer.
        step: an integer or an integer tensor [].
        device: of the result; None means the step's device, or the CPU.
        sampler: "gaussian", independent rows; or "orthogonal", blocks of D rows that are orthogonal
            up to the rounding to bfloat16, each uniform; it costs one factorisation per block.
    Returns: [M, D], float32, unit rows.
    Raises: ValueError if `num_proj` or `dim` is below 1 or the sampler is unknown.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 1; counter-based as in Salmon et al. (2011);
        Cholesky-QR as in Fukaya et al. (2020).
    """
    require.count("num_proj", num_proj)
    require.count("dim", dim)
    require.choice("sampler", sampler, SAMPLERS)
    require.integer("seed", seed)
    require.integer("step", step)
    if device is None:
        device = step.device if isinstance(step, Tensor) else "cpu"
    require.device("device", device)
    step = torch.as_tensor(step, dtype=torch.int64, device=device)
    return _drawn(step, num_proj, dim, seed, sampler).unit()


def _drawn(step: Tensor, num_proj: int, dim: int, seed: int, sampler: str) -> Directions:
    return Directions(*directions_op(step, num_proj, dim, wrap(seed), sampler == "orthogonal"))


def random_rotation(dim: int, *, seed: int) -> Tensor:
    """[dim, dim], float32: random orthonormal rows, uniform up to signs."""
    step = torch.zeros((), dtype=torch.int64, device="cpu")
    return _orthonormal(gaussian_rows(dim, dim, wrap(seed), step).double()).float()


class Sketch(nn.Module):
    """Base of layers that use fresh random directions; it owns (seed, step) and has no forward."""

    step: Tensor

    def __init__(self, num_proj: int, *, seed: int = 0, sampler: str = "gaussian") -> None:
        super().__init__()
        require.count("num_proj", num_proj)
        require.choice("sampler", sampler, SAMPLERS)
        require.integer("seed", seed)
        self.num_proj, self.seed, self.sampler = num_proj, seed, sampler
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def draw(self, x: Tensor) -> Directions:
        """The directions of this step for x [..., D], on its device; training advances `step`."""
        drawn = self.current(x)
        if self.training:
            self.step += 1
        return drawn

    def current(self, x: Tensor) -> Directions:
        """The directions that `draw` will return next for x [..., D]."""
        return _drawn(self.step.to(x.device), self.num_proj, x.shape[-1], self.seed, self.sampler)

    def reset_parameters(self) -> None:
        """Set `step` to 0; for modules built on the meta device."""
        self.step.zero_()
