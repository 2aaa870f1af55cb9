"""The statistic of many N(0, I) samples is a sum of chi-squares: its weights and its tail."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg.quadrature import Quadrature, gaussian

__all__ = ["ChiSquareSum", "null_law", "tail_probability"]

_RESOLUTION = 1e-8  # smallest tail probability that is resolved and reported


class ChiSquareSum(NamedTuple):
    """The law of Σ_i weight_i · χ²(dof_i), all terms independent."""

    weight: Tensor  #: [Q], float64, non-negative
    dof: Tensor  #: [Q], float64, degrees of freedom; need not be whole numbers


def null_law(quadrature: Quadrature, directions: Tensor | None = None) -> ChiSquareSum:
    """Law of the statistic averaged over `directions`, for N(0, I) samples and large N.

    For two directions with inner product ρ, at frequencies s and t, the empirical characteristic
    functions have the covariances e^{−(s²+t²)/2} (cosh(ρst) − 1) between cosines, sinh(ρst) in
    place of cosh − 1 between sines, and none across. That is Σ_{j≥1} ρ^j g_j(s) g_j(t) with g_j(t)
    = e^{−t²/2} t^j / √j!, even j for the cosines. With R the Gram matrix of the directions and
    R^{∘j} its elementwise power, the weights are the eigenvalues of Σ_j R^{∘j} ⊗ √w g_j g_jᵀ √w /
    M. Up to 64 of the largest enter one by one, the others as one gamma term of equal moments.

    Args:
        quadrature: K nodes.
        directions: [M, D], unit rows; None means one direction.
    Returns: ChiSquareSum; its mean is the noise floor.
    Raises: ValueError unless the target is that of N(0, 1).
    Source: weighted chi-square limits of such statistics, Baringhaus & Henze (1988); the covariance
        across directions is derived here.
    """
    require.kind("quadrature", quadrature, Quadrature)
    if directions is None:
        directions = torch.ones(1, 1, device="cpu")
    require.directions(directions, directions)
    if not torch.allclose(quadrature.target, gaussian(quadrature.t), rtol=0, atol=1e-6):
        raise ValueError("quadrature must have the target of N(0, 1), e^{−t²/2}, got another")
    rows = directions.detach().to("cpu", torch.float64)
    gram = rows @ rows.mT
    eigenvalues, means, squares = zip(
        *(_largest_eigenvalues(gram, *_series(quadrature, first=j)) for j in (1, 2)), strict=True
    )
    weight, mean, square = torch.cat(eigenvalues), sum(means), sum(squares)
    weight = weight[weight > 1e-9 * weight.max()]
    dof = torch.ones_like(weight)
    if mean > 1e-6 * float(weight.sum()) and square > 0:  # else the rest is rounding
        # c·χ²(ν) with the mean cν and the variance 2c²ν of all other eigenvalues.
        weight = torch.cat([weight, weight.new_tensor([square / mean])])
        dof = torch.cat([dof, dof.new_tensor([mean**2 / square])])
    return ChiSquareSum(weight, dof)


def _series(quadrature: Quadrature, first: int) -> tuple[list[int], Tensor]:
    """Powers j = first, first + 2, … and √w g_j [J, r] in a basis of the few dims they span."""
    t = quadrature.t.to("cpu", torch.float64)
    base = quadrature.weight.to("cpu", torch.float64).sqrt() * torch.exp(-(t**2) / 2)
    powers, g = [], []
    for j in itertools.count(first, 2):
        powers.append(j)
        g.append(base * torch.exp(j * t.clamp_min(1e-30).log() - math.lgamma(j + 1) / 2))
        if j > t.max() ** 2 and g[-1].square().sum() < 1e-9:
            break
    stacked = torch.stack(g)
    _, singular, basis = torch.linalg.svd(stacked, full_matrices=False)
    return powers, stacked @ basis[singular > 1e-5 * singular[0]].mT


def _largest_eigenvalues(gram: Tensor, powers: list[int], g: Tensor) -> tuple[Tensor, float, float]:
    """Top eigenvalues of Σ_j gram^{∘j} ⊗ g_j g_jᵀ / M; the sum and square sum of the others."""
    m, r = gram.shape[0], g.shape[1]
    squared = gram.square()
    # Mean elementwise powers ρ^2, ρ^4, … give both traces; they fall off with the power.
    power, mean_power = squared, {}
    for p in range(2, 2 * powers[-1] + 1, 2):
        mean_power[p] = float(power.mean())
        power = power * squared
    overlap = (g @ g.mT).square().tolist()
    pairs = itertools.product(enumerate(powers), repeat=2)
    square = sum(overlap[a][b] * mean_power[i + j] for (a, i), (b, j) in pairs)
    trace = float(g.square().sum())
    # Off the diagonal high powers of the Gram matrix vanish, so they need no product.
    split = sum(mean_power[2 * j] - 1 / m > 1e-10 for j in powers)
    hadamard = [gram ** powers[i] / m for i in range(split)]
    diagonal = g[split:].mT @ g[split:] / m

    def apply(x: Tensor) -> Tensor:
        x = x.reshape(m, r, -1)
        out = torch.einsum("rs,msq->mrq", diagonal, x)
        for power_j, g_j in zip(hadamard, g[:split], strict=True):
            out += g_j[:, None] * (power_j @ torch.einsum("r,mrq->mq", g_j, x))[:, None]
        return out.reshape(m * r, -1)

    size = min(32, m * r)
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(m * r, size, dtype=gram.dtype, generator=generator, device="cpu")
    for _ in range(2):
        x = torch.linalg.qr(apply(x)).Q
    top = torch.linalg.eigvalsh(x.mT @ apply(x)).clamp_min(0)
    rest = trace - float(top.sum()), square - float(top.square().sum())
    return top, max(rest[0], 0.0), max(rest[1], 0.0)


def tail_probability(law: ChiSquareSum, x: Tensor) -> Tensor:
    """P(Q > x) for Q distributed as `law`.

        P(Q > x) = ½ + Im Σ_{k≥0} φ((k+½)δ) e^{−i(k+½)δx} / (π(k+½))

    This is the midpoint rule for the Gil-Pelaez integral of the characteristic function φ, by one
    FFT on a fine grid of x. Its error is P(Q > x + 2π/δ); δ is chosen to make it negligible.

    Args:
        law: weights and degrees of freedom.
        x: any shape.
    Returns: float64 on the CPU, the shape of x, between 1e-8 (the resolution) and 1.
    Raises: TypeError for another law, or an x that is no real tensor.
    Source: Imhof (1961); Davies (1980).
    """
    require.kind("law", law, ChiSquareSum)
    require.kind("x", x, Tensor)
    if x.is_complex():
        raise TypeError(f"x must be real, got {x.dtype}")
    weight, dof = law
    largest = float(weight.max())
    deviation = math.sqrt(2 * float((weight**2 * dof).sum()))
    # P(Q > span) is below the resolution: e^{−20} for the largest weight, six deviations for all.
    span = float((weight * dof).sum()) + 6 * deviation + 40 * largest
    step = 2 * math.pi / span

    def modulus(u: float) -> float:
        return math.exp(-0.25 * float((dof * torch.log1p((2 * weight * u) ** 2)).sum()))

    count = 2**12
    while count < 2**20 and modulus(count * step) / count > _RESOLUTION / 10:
        count *= 2
    k = torch.arange(count, dtype=torch.float64, device="cpu")
    log_phi = torch.zeros(count, dtype=torch.complex128, device="cpu")
    for w, d in zip(weight.tolist(), dof.tolist(), strict=True):
        angle = (2 * w * step) * (k + 0.5)
        log_phi += torch.complex(-0.25 * d * torch.log1p(angle**2), 0.5 * d * torch.atan(angle))
    sums = torch.fft.fft(log_phi.exp() / (math.pi * (k + 0.5)))
    # e^{−i(k+½)δx} at x = n·span/count: the FFT gives all of it but the half knot.
    tail = 0.5 + (sums * torch.polar(torch.ones_like(k), -math.pi * k / count)).imag
    tail = tail.clamp(_RESOLUTION, 1.0)
    position = (x.detach().to("cpu", torch.float64) * (count / span)).clamp(0, count - 1)
    below = position.long().clamp_max(count - 2)
    return torch.lerp(tail[below], tail[below + 1], position - below)
