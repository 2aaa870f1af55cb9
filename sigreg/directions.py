"""Unit directions as a pure function of (seed, step): no generator, no communication."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "HASH",
    "check_sampler",
    "directions_op",
    "draw",
    "gaussian_rows",
    "hash_start",
    "random_directions",
]

# Odd multipliers of splitmix64 (Steele, Lea & Flood, 2014), written as signed 64-bit numbers.
_WEYL = -7046029254386353131
_MIX_A = -4658895280553007687
_MIX_B = -7723592293110705685
_UNIT = 2.0**-23
_BLOCK = 1 << 16  # counters at a time: they and what is made of them stay in cache
HASH = (_WEYL, _MIX_A, _MIX_B)


def _scramble(counter: Tensor) -> Tensor:
    """Spread every bit of `counter` over bits 0..62, in place; bit 63 of the result is 0.

    splitmix64 with arithmetic shifts, the only ones torch has for int64: each xor then clears the
    top bit, which costs one bit of state per round and saves a mask.
    """
    counter ^= counter >> 30
    counter *= _MIX_A
    counter ^= counter >> 27
    counter *= _MIX_B
    counter ^= counter >> 31
    return counter


def _wrap(number: int) -> int:
    """The integer that 64 bits keep of it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def hash_start(seed: int) -> int:
    """Where the counters of a seed begin: `_scramble` of seed · _WEYL on python's integers."""
    counter = _wrap(seed * _WEYL)
    counter = _wrap((counter ^ (counter >> 30)) * _MIX_A)
    counter = _wrap((counter ^ (counter >> 27)) * _MIX_B)
    return counter ^ (counter >> 31)


def gaussian_rows(num: int, dim: int, seed: int, step: Tensor, *, unit: bool) -> Tensor:
    """[num, dim], independent N(0, 1) by Box and Muller, two from each counter; or unit rows."""
    half = (dim + 1) // 2
    stream = _scramble((step + hash_start(seed)).mul_(_MIX_B)).add_(_WEYL)
    g = torch.empty(num, dim, device=step.device)
    block = max(1, _BLOCK // half)
    for i in range(0, num, block):
        rows = g[i : i + block]
        first, last = i * half, (i + len(rows)) * half
        bits = torch.arange(first, last, dtype=torch.int64, device=step.device)
        bits = _scramble(bits.mul_(_WEYL).add_(stream)).view(-1, half)
        # 23 bits and a half: exact in float32 and never 0 or 1, so 0 < radius < 6 and no row is 0.
        radius = (bits >> 40).to(torch.float32).add_(0.5).mul_(_UNIT).log_().mul_(-2).sqrt_()
        angle = (bits & 0x7FFFFF).to(torch.float32).add_(0.5).mul_(2 * math.pi * _UNIT)
        torch.mul(radius, angle.cos(), out=rows[:, :half])
        torch.mul(radius[:, : dim - half], angle[:, : dim - half].sin(), out=rows[:, half:])
        if unit:
            rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return g


def draw(
    rows: Callable[..., Tensor], num: int, dim: int, seed: int, step: Tensor, orthogonal: bool
) -> Tensor:
    """[num, dim], unit rows, from a source of Gaussian rows like `gaussian_rows`."""
    if not orthogonal:
        return rows(num, dim, seed, step, unit=True)
    size = min(num, dim)
    blocks = -(-num // size)
    g = rows(blocks * size, dim, seed, step, unit=False).reshape(blocks, size, dim)
    # Q is uniform up to the signs of its columns, and the statistic of −a is that of a.
    q: Tensor = torch.linalg.qr(g.mT).Q
    return q.mT.reshape(blocks * size, dim)[:num].contiguous()


def random_directions(
    num: int,
    dim: int,
    *,
    seed: int,
    step: int | Tensor,
    device: torch.device | str | None = None,
    sampler: str = "gaussian",
) -> Tensor:
    """Unit vectors uniform on the sphere, the same wherever (seed, step) is the same.

        a_m = g_m / |g_m|,   g_m ~ N(0, I) from a hash of (seed, step, m, d)

    Nothing is stored and nothing synchronises: ranks, restarts and devices agree without a
    message, on the hash exactly and on the rows up to the last bits of log, cos and sin. Fresh
    directions at every step are what makes few of them enough (LeJEPA, Section 5).

    Args:
        num: M, how many directions.
        dim: D, their length.
        seed: any integer.
        step: an integer or an integer tensor [], which may live on `device`.
        device: where the rows are made; None means the step's device, or the CPU.
        sampler: "gaussian", independent rows; or "orthogonal", blocks of D orthonormal rows, each
            still uniform: they never look twice the same way, at the price of a QR per block.
    Returns: [M, D], float32, unit rows; a row of norm zero cannot occur.
    Raises: ValueError if `num` or `dim` is below 1 or the sampler is unknown.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 1; counter-based as in Salmon et al. (2011).
    """
    if num < 1 or dim < 1:
        raise ValueError(f"num and dim must be at least 1, got {num} and {dim}")
    check_sampler(sampler)
    if device is None:
        device = step.device if isinstance(step, Tensor) else "cpu"
    step = torch.as_tensor(step, dtype=torch.int64, device=device)
    drawn: Tensor = directions_op(step, num, dim, _wrap(seed), sampler == "orthogonal")
    return drawn


# An operator of its own because a compiler may not reassociate products that wrap around, and
# because a GPU has a kernel for it (`sigreg._kernels`).
@torch.library.custom_op("sigreg::directions", mutates_args=())
def directions_op(step: Tensor, num: int, dim: int, seed: int, orthogonal: bool) -> Tensor:
    """[num, dim], unit rows."""
    return draw(gaussian_rows, num, dim, seed, step, orthogonal)


@directions_op.register_fake
def _(step: Tensor, num: int, dim: int, _seed: int, _orthogonal: bool) -> Tensor:
    return step.new_empty(num, dim, dtype=torch.float32)


def check_sampler(sampler: str) -> None:
    """Raises: ValueError unless the sampler is one of `random_directions`."""
    if sampler not in ("gaussian", "orthogonal"):
        raise ValueError(f'sampler must be "gaussian" or "orthogonal", got {sampler!r}')
