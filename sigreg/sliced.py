"""One-dimensional tests as regularizers of embeddings: project, test, average.

Each test takes projections [..., N, M] and compares every column with N(0, 1), by its first moments
or its sorted samples. Moments are cheap and smooth, but finitely many do not determine a
distribution (LeJEPA, Theorem 3), and their gradients grow like a power of the outliers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg.directions import Sketch
from sigreg.reference import full_precision

__all__ = [
    "SlicedTest", "anderson_darling", "cramer_von_mises", "extended_jarque_bera", "hermite_moments",
    "jarque_bera", "watson",
]  # fmt: skip


class SlicedTest(Sketch):
    """Regularizer from a one-dimensional test, with fresh directions at every training step.

        L(x) = mean_m statistic(x a_m),   m = 1..M random directions

    It is N(0, I) iff all projections are N(0, 1) (Cramér & Wold). It uses this process's samples.

    Args:
        statistic: [..., N, M] -> [..., M], for example `anderson_darling`.
        num_proj: M, directions. 1024 as `SIGReg`.
        seed: of the sequence of directions.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """

    def __init__(
        self, statistic: Callable[[Tensor], Tensor], num_proj: int = 1024, *, seed: int = 0
    ) -> None:
        super().__init__(num_proj, seed=seed)
        require.kind("statistic", statistic, callable)
        self.statistic = statistic

    def forward(self, x: Tensor, *, directions: Tensor | None = None) -> Tensor:
        """The regularizer of x, a scalar. With your own directions [M, D] `step` stays."""
        require.samples(x, "x")
        a = self.draw(x).unit() if directions is None else directions
        require.directions(a, x)
        # float32 even under autocast: sorting and squaring need more digits than bfloat16 has.
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            return self.statistic(x @ a.to(x).mT).mean()


def hermite_moments(x: Tensor, order: int = 4) -> Tensor:
    """Squared distance of the first moments from those of N(0, 1), in orthonormal form.

        N Σ_{j=1..order} (mean_n He_j(x_n))² / j!

    It is zero exactly if the first `order` moments are Gaussian. The published form has powers; the
    Hermite polynomials He_j are uncorrelated under N(0, 1), so every term has expectation 1.

    Args:
        x: [..., N, M] projections.
        order: highest moment. 2 tests mean and variance alone; 4 adds skewness and kurtosis.
    Returns: [..., M], float32 (float64 for float64 x).
    Raises: ValueError if `order` is below 1.
    Source: moment matching as in LeJEPA, arXiv:2511.08544, Section 4; orthonormal form ours.
    """
    require.count("order", order)
    x = _checked(x)
    # He_j / √j! by its recurrence, whose numbers stay small.
    previous, current = torch.ones_like(x), x
    total = current.mean(-2).square()
    for j in range(1, order):
        previous, current = current, (x * current - j**0.5 * previous) / (j + 1) ** 0.5
        total = total + current.mean(-2).square()
    return x.shape[-2] * total


def jarque_bera(x: Tensor) -> Tensor:
    """Skewness and kurtosis of the standardized sample against those of a Gaussian.

        N / 6 · (S² + (K − 3)² / 4)

    About 2 for large Gaussian samples (χ² with two degrees of freedom). It ignores mean and
    variance, so alone it does not prevent collapse: see `extended_jarque_bera`.

    Args:
        x: [..., N, M] projections, N at least 2. A constant column counts as kurtosis 0.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Jarque & Bera (1980).
    """
    _, _, skewness, kurtosis = _standardized_moments(x)
    return x.shape[-2] / 6 * (skewness.square() + (kurtosis - 3).square() / 4)


def extended_jarque_bera(x: Tensor) -> Tensor:
    """Jarque-Bera that also tests the mean and the variance.

        N [ m² + (v − 1)² / 2 + S² / 6 + (K − 3)² / 24 ]

    About 4 for large Gaussian samples: four terms, each χ² with one degree of freedom.

    Args:
        x: [..., N, M] projections, N at least 2. A constant column counts as kurtosis 0.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Jarque & Bera (1980), extended as in LeJEPA, arXiv:2511.08544, Section 4.
    """
    mean, variance, skewness, kurtosis = _standardized_moments(x)
    location_scale = mean.square() + (variance - 1).square() / 2
    return x.shape[-2] * (location_scale + skewness.square() / 6 + (kurtosis - 3).square() / 24)


def cramer_von_mises(x: Tensor) -> Tensor:
    """Cramér-von Mises distance between the sample and N(0, 1).

        W² = 1 / 12N + Σ_i (Φ(x_(i)) − (2i − 1) / 2N)²,   x_(1) ≤ … ≤ x_(N)

    Expectation 1/6 for N(0, 1) samples of any size. Its gradient falls like the density e^{−x²/2},
    so it hardly moves outliers: standardize the projections first.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Anderson & Darling (1952); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    u: Tensor = torch.special.ndtr(_checked(x).sort(-2).values)
    return (u - _midpoints(u)).square().sum(-2) + 1 / (12 * u.shape[-2])


def watson(x: Tensor) -> Tensor:
    """Watson's U²: Cramér-von Mises without the effect of a common shift.

        U² = W² − N (mean_i Φ(x_i) − ½)²

    Expectation 1/12 for N(0, 1) samples of any size. Something else must fix the mean.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Watson (1961); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    u: Tensor = torch.special.ndtr(_checked(x).sort(-2).values)
    n = u.shape[-2]
    shift = n * (u.mean(-2) - 0.5).square()
    return (u - _midpoints(u)).square().sum(-2) + 1 / (12 * n) - shift


def anderson_darling(x: Tensor) -> Tensor:
    """Anderson-Darling distance: Cramér-von Mises with more weight on the tails.

        A² = −N − Σ_i (2i − 1) / N · [ln Φ(x_(i)) + ln Φ(−x_(N+1−i))]

    Expectation 1 for N(0, 1) samples of any size. The gradient grows like |x|, without underflow.

    Args:
        x: [..., N, M] projections.
    Returns: [..., M], float32 (float64 for float64 x).
    Source: Anderson & Darling (1952); as a regularizer, LeJEPA, arXiv:2511.08544, Section 4.
    """
    ordered = _checked(x).sort(-2).values
    log_below: Tensor = torch.special.log_ndtr(ordered)
    log_above: Tensor = torch.special.log_ndtr(-ordered.flip(-2))
    return -2 * (_midpoints(ordered) * (log_below + log_above)).sum(-2) - x.shape[-2]


def _standardized_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = _checked(x, at_least=2)
    mean = x.mean(-2, keepdim=True)
    centred = x - mean
    variance = centred.square().mean(-2, keepdim=True)
    # The guard keeps the value of a collapsed column finite; a variance term can open it again.
    y = centred * (variance + 1e-12).rsqrt()
    cube = y * y.square()
    return mean.squeeze(-2), variance.squeeze(-2), cube.mean(-2), (cube * y).mean(-2)


def _midpoints(like: Tensor) -> Tensor:
    """(2i − 1) / 2N for i = 1..N, as a column [N, 1]."""
    n = like.shape[-2]
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5).unsqueeze(-1) / n


def _checked(x: Tensor, at_least: int = 1) -> Tensor:
    require.samples(x, "x", axes="N, M", at_least=at_least)
    return full_precision(x)
