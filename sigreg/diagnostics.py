"""Reading the number: noise floor, p-value, effective rank and a verdict in words."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg._distributed import Group, group_name, over_ranks
from sigreg.directions import random_directions, wrap
from sigreg.null_law import ChiSquareSum, null_law, tail_probability
from sigreg.quadrature import Quadrature, trapezoid_rule
from sigreg.reference import ecf_sums, epps_pulley, full_precision

__all__ = ["EmbeddingReport", "collapse_value", "effective_rank", "embedding_report", "noise_floor"]


def noise_floor(quadrature: Quadrature | None = None) -> float:
    """Expected statistic of N(0, I) samples; a perfect embedding scores this.

        Σ_k weight_k (1 − target_k²),   the same for every N, D and M

    Args:
        quadrature: K nodes; None means `trapezoid_rule()`, whose floor is 1.0525.
    Returns: a float, from E|φ̂ − φ|² = (1 − φ²)/N.
    """
    rule = _rule(quadrature)
    return float((rule.weight.double() * (1 - rule.target.double().square())).sum())


def collapse_value(num_samples: int, quadrature: Quadrature | None = None) -> float:
    """Statistic of N samples that all lie at the origin.

        N Σ_k weight_k (1 − target_k)²,   0.402 N for the default rule

    Args:
        num_samples: N.
        quadrature: K nodes; None means `trapezoid_rule()`.
    Returns: a float, the statistic with φ̂ = 1.
    """
    rule = _rule(quadrature)
    require.count("num_samples", num_samples)
    return float(num_samples * (rule.weight.double() * (1 - rule.target.double()).square()).sum())


def effective_rank(covariance: Tensor) -> Tensor:
    """The number of directions that share the variance.

        exp(−Σ_i p_i ln p_i),   p_i = eigenvalue_i / Σ eigenvalues

    These are eigenvalues of the covariance, not its root: thin noise around a plane adds little.

    Args:
        covariance: [..., D, D], symmetric, positive semi-definite.
    Returns: [...], float64 on the CPU, between 1 and D; 0 if there is no variance.
    Raises: TypeError or ValueError unless it is a floating tensor of that shape.
    Source: Roy & Vetterli (2007), there with singular values of the data.
    """
    require.samples(covariance, "covariance", axes="D, D")
    if covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(f"covariance must be [..., D, D], got {list(covariance.shape)}")
    values = torch.linalg.eigvalsh(covariance.detach().to("cpu", torch.float64)).clamp_min(0)
    total = values.sum(-1, keepdim=True)
    p = values / total.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.special.entr(p).sum(-1).exp() * (total.squeeze(-1) > 0)


@dataclass(frozen=True, eq=False)
class EmbeddingReport:
    """What `embedding_report` found. Leading dims of z are batches; scalars average over them."""

    num_samples: int  #: N
    dim: int  #: D
    num_batches: int  #: how many batches the leading dims hold
    statistic: float  #: SIGReg of z, with the factor N
    floor: float  #: its expectation for N(0, I) samples
    excess: float  #: statistic − floor
    collapse: float  #: excess as a fraction of that of a total collapse on the origin
    #: Probability that N(0, I) samples score at least this statistic, no less than 1e-8. With B
    #: batches: B times the smallest, at most 1 (Bonferroni).
    p_value: float
    effective_rank: float  #: exponential entropy of the covariance spectrum
    gaussian_rank: float  #: mean effective rank of N samples of N(0, I)
    state_rank: float | None  #: effective rank of the true states, if given
    scale: float  #: root mean square standard deviation of the coordinates; 1 is the target
    mean_error: float  #: |mean| / √D; about 1 / √N for N(0, I)
    covariance_error: float  #: ‖C − I‖_F / √D; about √((D + 1) / N) for N(0, I), 1 at collapse
    per_direction: Tensor  #: [..., M], the statistic along every direction
    worst_direction: Tensor  #: [D], the direction of the largest statistic in any batch
    worst_statistic: float  #: that statistic
    worst_p_value: float  #: of the largest of M directions and B batches (Bonferroni)

    @property
    def verdict(self) -> str:
        """One line in words."""
        n, d = self.num_samples, self.dim
        if self.scale < 0.05:
            return f"collapsed to a point: standard deviation {self.scale:.2g} instead of 1"
        if self.p_value >= 0.01:
            return f"isotropic Gaussian as far as N={n} can tell"
        rank = f"rank {self.effective_rank:.3g} of {d}"
        # A third of what Gaussian samples would show is no accident at any N.
        if self.effective_rank < self.gaussian_rank / 3:
            if self.state_rank is None:
                return f"{rank}: collapsed, unless the data hold no more"
            if self.effective_rank < self.state_rank / 2:
                return f"collapsed to {rank}, where the states have {self.state_rank:.3g}"
            return f"{rank}, as states of rank {self.state_rank:.3g} explain: no collapse"
        off = abs(self.scale - 1) > max(0.02, 3 / math.sqrt(2 * n * d))
        causes = {
            f"effective {rank}": self.effective_rank < 0.8 * self.gaussian_rank,
            f"mean off by {self.mean_error:.2g} per coordinate": self.mean_error > 2 / math.sqrt(n),
            f"standard deviation {self.scale:.3g} instead of 1": off,
            f"covariance off by {self.covariance_error:.2g}": (
                self.covariance_error > 1.2 * math.sqrt((d + 1) / n)
            ),
        }
        found = "; ".join(cause for cause, holds in causes.items() if holds)
        return f"not an isotropic Gaussian: {found or 'its shape differs'}"

    def __str__(self) -> str:
        n, d = self.num_samples, self.dim
        p = "< 1e-8" if self.p_value <= 1e-8 else f"= {self.p_value:.2g}"
        m = self.per_direction.shape[-1]
        batches = "" if self.num_batches == 1 else f", mean of {self.num_batches} batches of {n}"
        return (
            f"{self.verdict}\n"
            f"  statistic {self.statistic:.4g} (floor {self.floor:.4g}, excess {self.excess:+.3g}, "
            f"{self.collapse:.1%} of collapse), p {p}{batches}\n"
            f"  effective rank {self.effective_rank:.4g} "
            f"(N={n} Gaussian samples in D={d}: {self.gaussian_rank:.4g})\n"
            f"  standard deviation {self.scale:.3g}, mean error {self.mean_error:.2g} "
            f"(Gaussian: {1 / math.sqrt(n):.2g}), covariance error {self.covariance_error:.2g} "
            f"(Gaussian: {math.sqrt((d + 1) / n):.2g})\n"
            f"  worst of {m} directions {self.worst_statistic:.4g}, p = {self.worst_p_value:.2g}"
        )


@torch.no_grad()
def embedding_report(
    z: Tensor,
    directions: Tensor | None = None,
    quadrature: Quadrature | None = None,
    *,
    num_proj: int = 1024,
    seed: int = 0,
    state_rank: float | None = None,
    group: Group = None,
) -> EmbeddingReport:
    """Measure how far z is from an isotropic Gaussian, and in which way.

    The p-value compares the mean statistic with its null law for exactly these directions
    (`null_law`). Directions that see the same data are therefore not counted as independent
    evidence. The law of drawn directions is computed once and cached.

    Args:
        z: [..., N, D], samples on axis −2. Leading dims are separate batches.
        directions: [M, D], unit rows; None draws random ones.
        quadrature: K nodes with the Gaussian target; None means `trapezoid_rule()`.
        num_proj: M, if `directions` is None.
        seed: of the random directions.
        state_rank: effective rank of the true states, if known. An embedding of a low-dimensional
            world has a low rank; less than half the rank of the states is called a collapse.
        group: ranks that share the samples, as in `sigreg_loss`; each gets the report of all.
    Returns: EmbeddingReport.
    Raises: TypeError unless z is a floating tensor; ValueError on disagreeing shapes, on fewer than
        2 samples, on non-finite values or on another target.
    Source: LeJEPA, arXiv:2511.08544, Section 4, for the statistic; the read-outs are ours.
    """
    name = group_name(group)
    require.samples(z, at_least=0 if name else 2)
    d = z.shape[-1]
    rule = _rule(quadrature)
    require.count("num_proj", num_proj)
    require.integer("seed", seed)
    if state_rank is not None:
        require.number("state_rank", state_rank)
    if directions is None:
        law = _law(_numbers(rule), num_proj, d, wrap(seed))
        directions = random_directions(num_proj, d, seed=seed, step=0, device=z.device)
    else:
        require.directions(directions, z)
        law = null_law(rule, directions)
    z = full_precision(z.detach())
    like = z.new_zeros(z.shape[:-2])
    # A few directions at a time, to bound memory.
    parts = [ecf_sums(z @ a.mT, rule.to(z).t) for a in directions.to(z).split(128)]
    cos, sin = (torch.cat(part, -2) for part in zip(*parts, strict=True))
    ours = [cos, sin, z.sum(-2), like + z.shape[-2], like + (~z.isfinite()).sum()]
    cos, sin, total, count, bad = over_ranks(ours, None, name)
    n = int(count.flatten()[0])
    if bad.any():
        raise ValueError(f"z must be finite, got {int(bad.flatten()[0])} non-finite values")
    if n < 2:
        raise ValueError(f"z must be [..., N, D] with N at least 2 over all ranks, got {n}")
    statistics = epps_pulley(cos / n, sin / n, n, rule.to(z))
    means = statistics.double().mean(-1)
    p_values = tail_probability(law, means)
    statistic, floor = float(means.mean()), noise_floor(rule)
    mean = (total / n).unsqueeze(-2)
    (second,) = over_ranks([(z - mean).mT @ (z - mean)], None, name)
    covariance = second / n
    eye = torch.eye(d, dtype=z.dtype, device=z.device)
    error = torch.linalg.matrix_norm(covariance - eye) / math.sqrt(d)
    worst = int(statistics.argmax())
    worst_tail = float(tail_probability(_law(_numbers(rule)), statistics.flatten()[worst]))
    # Effective rank of N Gaussian samples (Page, 1993: ln m − m / 2n).
    small, large = sorted((max(n - 1, 1), d))
    return EmbeddingReport(
        num_samples=n,
        dim=d,
        num_batches=means.numel(),
        statistic=statistic,
        floor=floor,
        excess=statistic - floor,
        collapse=(statistic - floor) / (collapse_value(n, rule) - floor),
        # Bonferroni: the views and time steps of one batch of data are not independent.
        p_value=min(1.0, means.numel() * float(p_values.min())),
        effective_rank=float(effective_rank(covariance).mean()),
        gaussian_rank=max(small * math.exp(-small / (2 * large)), 1.0),
        state_rank=state_rank,
        scale=float(covariance.diagonal(dim1=-2, dim2=-1).mean().sqrt()),
        mean_error=float(torch.linalg.vector_norm(mean, dim=-1).mean() / math.sqrt(d)),
        covariance_error=float(error.mean()),
        per_direction=statistics,
        worst_direction=directions[worst % statistics.shape[-1]],
        worst_statistic=float(statistics.flatten()[worst]),
        worst_p_value=min(1.0, statistics.numel() * worst_tail),
    )


def _rule(quadrature: Quadrature | None) -> Quadrature:
    if quadrature is None:
        return trapezoid_rule()
    require.kind("quadrature", quadrature, Quadrature)
    return quadrature


def _numbers(rule: Quadrature) -> tuple[tuple[float, ...], ...]:
    """A rule as a hashable key."""
    return tuple(tuple(part.tolist()) for part in rule[:3])


@functools.lru_cache(maxsize=16)
def _law(
    numbers: tuple[tuple[float, ...], ...], num_proj: int = 0, dim: int = 1, seed: int = 0
) -> ChiSquareSum:
    """Null law of random directions of step 0; `num_proj` 0 means a single direction."""
    rows = random_directions(num_proj, dim, seed=seed, step=0, device="cpu") if num_proj else None
    return null_law(Quadrature(*torch.tensor(numbers, dtype=torch.float64, device="cpu")), rows)
