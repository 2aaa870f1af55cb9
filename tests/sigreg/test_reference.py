"""The plain mathematics, held against closed forms."""

import pytest
import torch

from sigreg import epps_pulley_exact, trapezoid_rule
from sigreg.reference import ecf_sums, epps_pulley

from .truths import TRUTHS, Truth


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
@pytest.mark.parametrize("knots", [17, 4])
def test_known_statistics(truth: Truth, knots: int) -> None:
    """Samples with a known characteristic function have the statistic it implies."""
    rule = trapezoid_rule(knots)
    n = truth.x.numel()
    cos, sin = ecf_sums(truth.x[:, None], rule.t)
    value = epps_pulley(cos / n, sin / n, n, rule)
    torch.testing.assert_close(value[0], truth.statistic(rule), rtol=2e-8, atol=1e-12)


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
def test_a_fine_rule_reaches_the_exact_form(truth: Truth) -> None:
    """The O(N²) closed form is the limit of the quadrature."""
    rule = trapezoid_rule(401, 10.0)
    exact = epps_pulley_exact(truth.x[:, None])
    torch.testing.assert_close(exact[0], truth.statistic(rule), rtol=2e-8, atol=1e-9)


def test_masked_samples_are_absent() -> None:
    """Sums under a mask are the sums of the samples that count."""
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    mask = torch.rand(2, 30) > 0.4
    rule = trapezoid_rule(6)
    for b in range(2):
        got = ecf_sums(x, rule.t, mask)
        expected = ecf_sums(x[b, mask[b]], rule.t)
        torch.testing.assert_close(got[0][b], expected[0])
        torch.testing.assert_close(got[1][b], expected[1])
