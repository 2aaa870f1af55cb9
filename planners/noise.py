"""Random numbers as a pure function of (seed, iteration, position): one stream per problem.

They use only integer arithmetic, a table lookup and one exact addition. So a number has the same
bits for every batch size and order of problems, on every device, compiled or not.

    x, y  = quantiles of N(0, 1/2) at the two halves of 32 random bits
    z, z′ = x + y, x − y                   two independent N(0, 1), up to 6σ
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from planners._arguments import integer, number, require

__all__ = ["Colored", "Correlation", "Integrated", "Kernel", "Noise", "Stream", "fold_in"]

Size = tuple[int, ...]
# Levels of the quantile table and the grid its entries lie on. Entries are multiples of 2⁻²⁰
# below 4, so the sum of two is below 8 and exact in float32: no rounding, no fused product.
_LEVELS, _GRID = 1 << 16, 1 << 20
# Numbers made by one pass, to fit the processor's cache, for at most 32 iterations.
_PASS_CPU, _PASS_GPU, _AHEAD = 1 << 16, 1 << 24, 32
# Sums and differences alternate in runs of this length, long enough for vector instructions.
_RUN = 64


def _quantile_table() -> Tensor:
    """[2¹⁶] float32: midpoint quantiles of N(0, 1/2), symmetric, variance scaled to 1/2 exactly."""
    # In pieces too small for torch to start its threads, which would slow the import.
    pieces = torch.arange(_LEVELS // 2, dtype=torch.float64).split(_LEVELS // 8)
    lower = [torch.special.ndtri((k + 0.5) / _LEVELS) for k in pieces]
    # Midpoints lose a little of the variance of the tails; the scale corrects that.
    variance = math.fsum(float(x.square().sum()) for x in lower) / (_LEVELS // 2)
    scale = math.sqrt(0.5 / variance) * _GRID
    lower = [((x * scale).round() / _GRID).to(torch.float32) for x in lower]
    return torch.cat([*lower, *(-x.flip(0) for x in reversed(lower))])


# Filled at import: inside a captured or compiled loop it would become part of the graph.
with torch.device("cpu"):
    _TABLES: dict[torch.device, Tensor] = {torch.device("cpu"): _quantile_table()}


def _table(device: torch.device) -> Tensor:
    if device not in _TABLES:
        _TABLES[device] = _TABLES[torch.device("cpu")].to(device)
    return _TABLES[device]


def _signed(value: int, bits: int = 64) -> int:
    """The signed integer with the same `bits` low bits: torch has no unsigned arithmetic."""
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


_GOLDEN, _LANE = _signed(0x9E3779B97F4A7C15), 0xD1B54A32D192ED03
_MIX64 = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_MIX32 = ((0x7FEB352D, 15), (_signed(0x846CA68B, 32), 16))


def _mix64(x: Tensor) -> Tensor:
    """Finalizer of splitmix64: every input bit changes every output bit with probability 1/2."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX64[0]
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX64[1]
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _mix32(x: Tensor, key: Tensor) -> Tensor:
    """Two rounds of multiply and xor-shift on int32, in place, the key added between them."""
    shifted = torch.empty_like(x)
    for i, (factor, bits) in enumerate(_MIX32):
        if i:
            x += key
        x *= factor
        torch.bitwise_right_shift(x, bits, out=shifted)
        shifted &= (1 << (32 - bits)) - 1
        x ^= shifted
    return x


def fold_in(seed: Tensor, data: Tensor | int) -> Tensor:
    """New int64 seeds from integer seeds and numbers that broadcast with them.

    Different numbers give unrelated streams. Source: splitmix64, Steele, Lea & Flood, OOPSLA 2014.
    """
    offset = data * _GOLDEN if isinstance(data, Tensor) else _signed(data * _GOLDEN)
    return _mix64(_mix64(seed.to(torch.int64) + _GOLDEN) + offset)


def problem_seeds(seed: Any, num_problems: int, device: torch.device) -> Tensor:
    """One seed per problem, [B] int64, from one integer of any size, or a tensor or array of B.

    B integers are used as they are; one integer s becomes fold_in(s, 0 … B−1).

    Raises: ValueError if `seed` is a tensor of another shape, TypeError if it is not integer.
    """
    if getattr(seed, "shape", None):
        seeds, B = torch.as_tensor(seed, device=device), num_problems
        if seeds.is_floating_point() or seeds.is_complex() or seeds.dtype == torch.bool:
            raise TypeError(f"seed must be an integer or [B] integers, got {seeds.dtype}")
        fits = seeds.shape == (B,)
        require(fits, f"seed must be [{B}] to match the problems, got {list(seeds.shape)}")
        return seeds.to(torch.int64)
    index = torch.arange(num_problems, dtype=torch.int64, device=device)
    return fold_in(torch.full_like(index, _signed(integer("seed", seed))), index)


class Stream:
    """The random numbers of one `optimize` call, from one int64 seed per problem, [B].

    If an iteration needs few numbers, those of several iterations are made at once and kept.
    """

    def __init__(self, seed: Tensor) -> None:
        self._seed = seed
        self._ahead: dict[tuple[int, torch.dtype], tuple[int, Tensor]] = {}
        self._positions: dict[int, Tensor] = {}
        self._keys: dict[tuple[int, int], Tensor] = {}

    def normal(self, iteration: int, size: Size, lane: int, dtype: torch.dtype) -> Tensor:
        """[B, *size] standard normal numbers of one iteration and lane."""
        B, device, count = self._seed.shape[0], self._seed.device, math.prod(size)
        limit = _PASS_CPU if device.type == "cpu" else _PASS_GPU
        first, made = self._ahead.get((lane, dtype), (0, None))
        pairs = -(-count // (2 * _RUN)) * _RUN
        # A number depends on its position, not on their count: fewer are the first of more.
        if made is None or not first <= iteration < first + made.shape[0] or made.shape[2] < count:
            # At most to the end of the iterations that share a block of keys.
            most = _AHEAD - iteration % _AHEAD
            first, steps = iteration, min(max(limit // max(B * count, 1), 1), most)
            problems = max(limit // max(steps * count, 1), 1)
            made = torch.empty(steps, B, 2 * pairs, dtype=dtype, device=device)
            for b in range(0, B, problems):
                bits = self._bits(slice(b, b + problems), first, steps, pairs, lane)
                _normal(bits, out=made[:, b : b + problems])
            self._ahead[lane, dtype] = (first, made)
        return made[iteration - first, :, :count].view(-1, *size)

    def uniform(self, iteration: int, size: Size, lane: int, dtype: torch.dtype) -> Tensor:
        """[B, *size] multiples of 2⁻²⁴ in [0, 1) of one iteration and lane."""
        bits = self._bits(slice(None), iteration, 1, math.prod(size), lane)[0]
        made = ((bits >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24
        return made.to(dtype).view(-1, *size)

    def _bits(self, b: slice, first: int, steps: int, count: int, lane: int) -> Tensor:
        """[steps, B, count] int32: 32 random bits per (iteration, problem, position)."""
        low, high = self._key(first // _AHEAD, lane)[:, :, b, None]
        start = first % _AHEAD
        if count not in self._positions:
            position = torch.arange(count, dtype=torch.int32, device=self._seed.device)
            self._positions[count] = _mix32(position.clone(), position)
        bits = self._positions[count] ^ low[start : start + steps]
        return _mix32(bits, high[start : start + steps])

    def _key(self, block: int, lane: int) -> Tensor:
        """[2, 32, B] int32: two words per problem for each iteration of a block of 32."""
        if (block, lane) not in self._keys:
            iterations = torch.arange(_AHEAD, dtype=torch.int64, device=self._seed.device)
            seeds = fold_in(self._seed, iterations[:, None] + block * _AHEAD)
            key = _mix64(seeds + _signed(lane * _LANE))
            words = [key.to(torch.int32), (key >> 32).to(torch.int32)]
            self._keys[block, lane] = torch.stack(words)
        return self._keys[block, lane]


def _normal(bits: Tensor, out: Tensor) -> None:
    """Two normal numbers for each of the bits [I, B, n]: runs of sums and of differences."""
    table, flat = _table(bits.device), bits.flatten()
    index = flat & 0xFFFF
    x = table.index_select(0, index).view(*bits.shape[:2], -1, _RUN)
    torch.bitwise_right_shift(flat, 16, out=index)
    index &= 0xFFFF
    y = table.index_select(0, index).view(x.shape)
    z = out.unflatten(-1, (-1, 2, _RUN))
    z[:, :, :, 0] = x + y
    z[:, :, :, 1] = x - y


class Noise(NamedTuple):
    """The random numbers of one iteration of a method: the same arguments give the same numbers.

    `size` is (S, H, A) or any other shape. Draws with another lane are independent.
    """

    stream: Stream  #: of the B problems
    iteration: int  #: of the method, from 0
    offset: int = 0  #: iterations of earlier methods

    def later(self, iterations: int) -> "Noise":
        """The same numbers for a method that began `iterations` ago."""
        return Noise(self.stream, self.iteration - iterations, self.offset + iterations)

    def normal(self, size: Size, *, dtype: torch.dtype = torch.float32, lane: int = 0) -> Tensor:
        """Standard normal numbers [B, *size], made in float32."""
        return self.stream.normal(self.iteration + self.offset, size, lane, dtype)

    def uniform(self, size: Size, *, dtype: torch.dtype = torch.float32, lane: int = 0) -> Tensor:
        """Uniform numbers in [0, 1), multiples of 2⁻²⁴, [B, *size]."""
        return self.stream.uniform(self.iteration + self.offset, size, lane, dtype)


class Correlation(Protocol):
    """The correlation of noise between steps of the horizon; hashable."""

    def matrix(self, horizon: int) -> Tensor:
        """L, [H, J], float64 on the CPU: noise = L · J independent numbers per action dim."""


@dataclass(frozen=True)
class Colored:
    """Stationary noise whose power falls with frequency as 1 / f^β.

        noise_h = Σ_f c_f (u_f cos 2πfh + v_f sin 2πfh),  f = 0, 1/H, … 1/2
        c_f     ∝ max(f, 1/H)^{−β/2}

    β = 0 is white noise, 1 pink, 2 Brownian; with large β all steps go the same way.

    Source: Timmer & König (1995); for planning: iCEM, arXiv:2008.06389, Section 3.1.
    """

    beta: float  #: β, at least 0.
    #: Whether its variance is 1. If not, Σ c_f² leaves f = 0 out and counts f = 1/2 half, as in the
    #: noise of iCEM's release: σ is above 1 (β = 2: 1.18 at 5 steps, 1.15 at 30), but 1 for β = 0.
    unit: bool = True

    def __post_init__(self) -> None:
        number("beta", self.beta, "[0, inf)")

    def matrix(self, horizon: int) -> Tensor:
        """Cosines and sines, [H, H]: one pair per frequency, one alone at 0 and at 1/2."""
        horizon = integer("horizon", horizon, 1)
        h = torch.arange(horizon, dtype=torch.float64, device="cpu")
        columns, power = [], 0.0
        for k in range(horizon // 2 + 1):
            alone = k in (0, horizon / 2)
            # A pair carries twice the power of a lone cosine.
            weight = max(k, 1) ** -self.beta * (1 if alone else 2)
            if self.unit or not self.beta or horizon == 1:
                power += weight
            elif k:
                power += weight / 2 if alone else weight
            angle = 2 * math.pi * k / horizon * h
            waves = [angle.cos()] if alone else [angle.cos(), angle.sin()]
            columns += [math.sqrt(weight) * wave for wave in waves]
        return torch.stack(columns, 1) / math.sqrt(power)


@dataclass(frozen=True)
class Integrated:
    """A random walk, H^{−1/2} Σ_{j ≤ h} ε_j: the first step is small, the last has variance 1.

    Source: smooth MPPI, arXiv:2112.09988, where the change of the action is the decision.
    """

    def matrix(self, horizon: int) -> Tensor:
        """Lower triangle of ones over √H, [H, H]."""
        horizon = integer("horizon", horizon, 1)
        ones = torch.ones(horizon, horizon, dtype=torch.float64, device="cpu")
        return ones.tril() / math.sqrt(horizon)


@dataclass(frozen=True)
class Kernel:
    """Noise at a few support points, interpolated by a Gaussian kernel.

        L = K(t, τ) K(τ, τ)⁻¹,  K(s, t) = exp(−(s − t)² / 2ℓ²),  τ: J points over the horizon

    Source: kernel MPPI of the pytorch_mppi package.
    """

    num_support: int  #: J, how many points carry noise, in [2, H].
    length: float = 1.0  #: ℓ, in units of the distance between support points.

    def __post_init__(self) -> None:
        integer("num_support", self.num_support, 2)
        number("length", self.length, "(0, inf)")

    def matrix(self, horizon: int) -> Tensor:
        """Interpolation weights, [H, J]."""
        J, horizon = self.num_support, integer("horizon", horizon, 1)
        require(J <= horizon, f"num_support must be at most the horizon, {horizon}, got {J}")
        τ = torch.arange(J, dtype=torch.float64, device="cpu")
        t = torch.linspace(0, J - 1, horizon, dtype=torch.float64, device="cpu")
        across, among = (
            torch.exp(-((at[:, None] - τ) ** 2) / (2 * self.length**2)) for at in (t, τ)
        )
        return torch.linalg.solve(among, across, left=False)


# Cached, because a copy inside the loop would wait for the device.
_MATRICES: dict[tuple[Correlation, int, torch.dtype, torch.device], Tensor] = {}


def correlated(
    noise: Noise, correlation: Correlation | None, num_samples: int, like: Tensor
) -> Tensor:
    """Noise [B, S, H, A] for plans like `like`; without a correlation steps are independent."""
    H, A = like.shape[1:]
    if correlation is None:
        return noise.normal((num_samples, H, A), dtype=like.dtype)
    key = (correlation, H, like.dtype, like.device)
    if key not in _MATRICES:
        _MATRICES[key] = correlation.matrix(H).to(dtype=like.dtype, device=like.device)
    L = _MATRICES[key]
    z = noise.normal((num_samples, L.shape[1], A), dtype=like.dtype)
    # Column by column, because a matrix product rounds differently in another batch.
    total = L[:, 0, None] * z[:, :, 0, None]
    for j in range(1, L.shape[1]):
        total += L[:, j, None] * z[:, :, j, None]
    return total
