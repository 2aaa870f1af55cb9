"""The law of the statistic under the null hypothesis."""

import math

import pytest
import torch
from scipy import integrate, stats

from sigreg.diagnostics import noise_floor
from sigreg.directions import random_directions
from sigreg.null_law import ChiSquareSum, null_law, tail_probability
from sigreg.quadrature import trapezoid_rule
from sigreg.reference import ecf_sums, epps_pulley


def _chi_square_sum(weight, dof):
    return ChiSquareSum(
        torch.tensor(weight, dtype=torch.float64), torch.tensor(dof, dtype=torch.float64)
    )


def _statistics(z, directions, rule):
    """Statistic averaged over directions, [...] for z [..., N, D]."""
    n = z.shape[-2]
    cos, sin = ecf_sums(z @ directions.mT, rule.t)
    return epps_pulley(cos / n, sin / n, n, rule).mean(-1)


def test_two_equal_weights_are_exponential():
    """λ·χ²(2) has the tail e^{−x/2λ}."""
    x = torch.linspace(0.1, 12.0, 50, dtype=torch.float64)
    tail = tail_probability(_chi_square_sum([0.7, 0.7], [1.0, 1.0]), x)
    torch.testing.assert_close(tail, torch.exp(-x / 1.4), atol=2e-6, rtol=0)


@pytest.mark.parametrize("dof", [3.0, 7.5, 200.0])
def test_one_weight_is_a_scaled_chi_square(dof):
    """A single weight gives the chi-square tail, for whole and broken degrees of freedom."""
    x = torch.linspace(0.2 * dof, 3 * dof, 40, dtype=torch.float64)
    tail = tail_probability(_chi_square_sum([0.5], [dof]), x / 2)
    expected = torch.from_numpy(stats.chi2.sf(x.numpy(), dof))
    torch.testing.assert_close(tail, expected.clamp_min(1e-8), atol=3e-6, rtol=0)


def test_matches_imhofs_integral():
    """Unequal weights agree with Imhof's formula integrated by an adaptive rule."""
    weight = [0.5, 0.3, 0.1, 0.05, 0.02]

    def imhof(u, x):
        theta = sum(math.atan(w * u) for w in weight) / 2 - x * u / 2
        rho = math.prod((1 + (w * u) ** 2) ** 0.25 for w in weight)
        return math.sin(theta) / (u * rho)

    law = _chi_square_sum(weight, [1.0] * 5)
    for x in (0.2, 1.0, 3.0):
        value, _ = integrate.quad(imhof, 0, 4000, args=(x,), limit=4000)
        assert float(tail_probability(law, torch.tensor(x))) == pytest.approx(
            0.5 + value / math.pi, abs=1e-5
        )


@pytest.mark.parametrize("knots", [5, 17])
@pytest.mark.parametrize(("num", "dim"), [(1, 1), (40, 3), (100, 64)])
def test_mean_is_the_noise_floor(knots, num, dim):
    """The weights sum to the noise floor whatever the directions."""
    rule = trapezoid_rule(knots, 3.0)
    law = null_law(rule, random_directions(num, dim, seed=0, step=0))
    assert float((law.weight * law.dof).sum()) == pytest.approx(noise_floor(rule), rel=1e-4)


def test_weights_of_one_direction_are_covariance_eigenvalues():
    """Cov(cos sX, cos tX) = (φ(s−t) + φ(s+t))/2 − φ(s)φ(t), and likewise for the sines."""
    rule = trapezoid_rule()
    s, t = rule.t[:, None], rule.t[None, :]
    plus, minus = torch.exp(-((s + t) ** 2) / 2), torch.exp(-((s - t) ** 2) / 2)
    root = rule.weight.sqrt()
    outer = root[:, None] * root[None, :]
    cosine = ((minus + plus) / 2 - rule.target[:, None] * rule.target) * outer
    sine = (minus - plus) / 2 * outer
    expected = torch.cat([torch.linalg.eigvalsh(cosine), torch.linalg.eigvalsh(sine)])
    expected = expected.sort(descending=True).values[:10]
    weight = null_law(rule).weight.sort(descending=True).values[:10]
    torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)


def test_weights_of_many_directions_are_covariance_eigenvalues():
    """With several directions the weights are the eigenvalues of the full 2MK covariance."""
    rule = trapezoid_rule(9, 3.0)
    directions = random_directions(6, 3, seed=1, step=0).double()
    gram = directions @ directions.mT
    product = torch.einsum("ij,s,t->isjt", gram, rule.t, rule.t)
    scale = torch.einsum("s,t->st", *[rule.weight.sqrt() * rule.target] * 2)[:, None] / 6
    blocks = [(f(product) * scale).reshape(54, 54) for f in (lambda v: v.cosh() - 1, torch.sinh)]
    expected = torch.cat([torch.linalg.eigvalsh(block) for block in blocks])
    law = null_law(rule, directions)
    torch.testing.assert_close(
        law.weight[law.dof == 1].sort(descending=True).values[:20],
        expected.sort(descending=True).values[:20],
        rtol=1e-3,
        atol=1e-6,
    )
    variance = 2 * float((law.weight**2 * law.dof).sum())
    assert variance == pytest.approx(2 * float(expected.square().sum()), rel=1e-4)


@pytest.mark.parametrize(("num", "dim", "n"), [(1, 1, 64), (16, 2, 32), (64, 32, 16)])
def test_tail_matches_monte_carlo_to_one_percent(num, dim, n):
    """P(statistic > x) agrees within 1 % with the share of Gaussian batches that exceed x."""
    rule = trapezoid_rule()
    directions = random_directions(num, dim, seed=2, step=0)
    single = rule.to(directions)
    generator = torch.Generator().manual_seed(3)
    draws, batch = 20_000, max(1, 60_000 // (num * n))
    values = torch.cat(
        [
            _statistics(torch.randn(batch, n, dim, generator=generator), directions, single)
            for _ in range(draws // batch)
        ]
    )
    p = tail_probability(null_law(rule, directions), values).sort().values
    uniform = (torch.arange(len(p)) + 0.5) / len(p)
    assert (p - uniform).abs().max() < 0.0125  # 1 % plus the noise of 20,000 draws
    for level in (0.1, 0.05, 0.01):
        share = float((p <= level).double().mean())
        assert abs(share - level) < 0.01
