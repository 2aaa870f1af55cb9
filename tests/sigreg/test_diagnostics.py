"""Noise floor, effective rank and the report."""

import dataclasses
import math

import pytest
import torch

from sigreg import (
    SIGReg,
    diagnostics,
    null_law,
    random_directions,
    sigreg_loss,
    student_t_cf,
    trapezoid_rule,
)
from sigreg.diagnostics import collapse_value, effective_rank, embedding_report, noise_floor
from sigreg.directions import quantiles


def _gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("knots", "t_max", "floor"),
    [(17, 3.0, 1.0525), (5, 3.0, 1.0497), (9, 3.0, 1.0519), (33, 3.0, 1.0526), (17, 5.0, 1.0594)],
)
def test_noise_floor_values(knots, t_max, floor):
    """The floor has its known value for the published rules."""
    assert noise_floor(trapezoid_rule(knots, t_max)) == pytest.approx(floor, abs=5e-5)


def test_noise_floor_limit():
    """A fine rule's floor is √2π − √(2π/3)."""
    exact = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    assert noise_floor(trapezoid_rule(401, 12.0)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("n", [2, 16])
def test_noise_floor_is_the_gaussian_mean(n):
    """The mean statistic of many Gaussian batches is the floor, for any N."""
    z = _gaussian(20_000, n, 1)
    value = float(sigreg_loss(z, torch.ones(1, 1), trapezoid_rule()))
    assert value == pytest.approx(noise_floor(), abs=4 * 0.96 / math.sqrt(20_000))


def test_collapse_value_is_the_statistic_of_zeros():
    """All samples at 0 score the collapse value, 0.402 N by default."""
    value = float(
        sigreg_loss(torch.zeros(128, 8), random_directions(4, 8, seed=0, step=0), trapezoid_rule())
    )
    assert collapse_value(128) == pytest.approx(value, rel=1e-6)
    assert collapse_value(1) == pytest.approx(0.402, abs=5e-4)


def test_effective_rank_counts_equal_eigenvalues():
    """Equally large eigenvalues are counted: k of them give rank k, and scale does not matter."""
    for k in range(6):
        covariance = torch.diag(torch.tensor([3.0] * k + [0.0] * (6 - k)))
        assert float(effective_rank(covariance)) == pytest.approx(k, abs=1e-9)
    covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
    assert float(effective_rank(covariance)) == pytest.approx(
        float(effective_rank(100 * covariance)), rel=1e-9
    )


def test_effective_rank_ignores_rotation():
    """A rotation of the data leaves the effective rank alone."""
    q = torch.linalg.qr(_gaussian(5, 5, dtype=torch.float64)).Q
    covariance = torch.diag(torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    assert float(effective_rank(q @ covariance @ q.mT)) == pytest.approx(
        float(effective_rank(covariance)), rel=1e-9
    )


def test_report_of_a_gaussian():
    """Gaussian samples are reported as such, at the rank that Gaussian samples show."""
    r = embedding_report(_gaussian(256, 32), num_proj=256)
    assert r.verdict == "isotropic Gaussian as far as N=256 can tell"
    assert r.p_value > 0.01
    assert r.worst_p_value > 0.01
    assert r.effective_rank == pytest.approx(r.gaussian_rank, rel=0.02)
    assert r.mean_error == pytest.approx(1 / 16, rel=0.5)
    assert r.covariance_error == pytest.approx(math.sqrt(33 / 256), rel=0.1)


def test_report_statistic_is_the_loss():
    """The report's statistic is what the loss returns for the same directions and rule."""
    z, directions = _gaussian(3, 50, 8) * 1.3 + 0.1, random_directions(40, 8, seed=5, step=2)
    rule = trapezoid_rule(9, 4.0)
    r = embedding_report(z, directions, rule)
    assert r.statistic == pytest.approx(float(sigreg_loss(z, directions, rule)), rel=1e-5)
    assert r.excess == pytest.approx(r.statistic - noise_floor(rule), rel=1e-6)
    assert float(r.per_direction.mean()) == pytest.approx(r.statistic, rel=1e-5)
    assert r.per_direction.shape == (3, 40)
    assert r.num_batches == 3


def test_report_default_is_the_default_module():
    """Without arguments it measures what SIGReg() measures in its first step."""
    z = _gaussian(64, 16)
    assert embedding_report(z).statistic == pytest.approx(float(SIGReg()(z)), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_report_names_the_rank_of_a_collapse(rank):
    """Samples in a k-dimensional plane, and a little fog, have rank k: collapsed, or explained."""
    q = torch.linalg.qr(_gaussian(192, rank, seed=1)).Q
    z = _gaussian(4000, rank) @ q.mT * math.sqrt(192 / rank) + 0.01 * _gaussian(4000, 192, seed=2)
    r = embedding_report(z, num_proj=64)
    assert r.effective_rank == pytest.approx(rank, rel=0.02)
    assert r.verdict.endswith("of 192: collapsed, unless the data hold no more")
    assert r.verdict.startswith(f"rank {rank}")
    explained = embedding_report(z, num_proj=64, state_rank=rank + 0.5).verdict
    assert explained.endswith(f"as states of rank {rank + 0.5:.3g} explain: no collapse")
    lost = embedding_report(z, num_proj=64, state_rank=3 * rank).verdict
    assert lost.startswith("collapsed to rank")
    assert lost.endswith(f"where the states have {3 * rank}")


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_report_names_total_collapse(offset):
    """Equal samples are a point, wherever they sit; on the origin the fraction is exactly 1."""
    r = embedding_report(torch.full((64, 8), offset), num_proj=64)
    assert r.verdict.startswith("collapsed to a point")
    assert r.effective_rank == 0
    assert r.covariance_error == pytest.approx(1)
    assert r.p_value == pytest.approx(1e-8)
    if offset == 0:
        assert r.collapse == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda z: z + 0.3, "mean off by 0.3"),
        (lambda z: 1.3 * z, "standard deviation 1.3 instead of 1"),
        (lambda z: z * torch.linspace(0.3, 1.38, 16), "covariance off"),
        (lambda z: z * torch.randint(0, 2, (1000, 1)) * math.sqrt(2), "its shape differs"),
    ],
)
def test_report_names_the_cause(change, word):
    """A wrong mean, scale, covariance or shape is named."""
    torch.manual_seed(0)
    z = _gaussian(1000, 16)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov(correction=0))).T
    r = embedding_report(change(z), num_proj=256)
    assert r.p_value < 0.01
    assert word in r.verdict


def test_report_finds_the_worst_direction():
    """If one axis alone is off, the worst direction points along it."""
    z = _gaussian(500, 4)
    z[:, 2] *= 0.05
    directions = torch.cat([random_directions(50, 4, seed=0, step=0), torch.eye(4)])
    r = embedding_report(z, directions)
    assert r.worst_direction.tolist() == [0, 0, 1, 0]
    assert r.worst_p_value < 0.01


def test_report_p_value_is_uniform():
    """Over Gaussian batches the p-value is uniform: 5 % fall below 0.05."""
    directions = random_directions(32, 8, seed=0, step=0)
    p = torch.tensor(
        [embedding_report(_gaussian(64, 8, seed=s), directions).p_value for s in range(200)]
    )
    uniform = (torch.arange(200) + 0.5) / 200
    assert (p.sort().values - uniform).abs().max() < 1.63 / math.sqrt(200)  # KS, 1 % level


def test_report_averages_over_batches():
    """Every leading dim is a batch of its own; scalars are means over them."""
    z = torch.stack([_gaussian(80, 6), 3 * _gaussian(80, 6, seed=1)])
    both, parts = (
        embedding_report(z, num_proj=64),
        [embedding_report(part, num_proj=64) for part in z],
    )
    for name in ("statistic", "effective_rank", "mean_error", "covariance_error"):
        mean = sum(getattr(part, name) for part in parts) / 2
        assert getattr(both, name) == pytest.approx(mean, rel=1e-5)
    assert both.p_value == pytest.approx(2 * min(part.p_value for part in parts), rel=1e-3)


def test_report_is_frozen_readable_and_free_of_autograd():
    """A report is a record: no field can be set, none carries a gradient, and it prints."""
    z = _gaussian(32, 4).requires_grad_()
    r = embedding_report(z, num_proj=8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.p_value = 1.0
    assert not r.per_direction.requires_grad
    text = str(r)
    assert text.startswith(r.verdict)
    assert "floor 1.052" in text
    assert "worst of 8 directions" in text


def test_report_accepts_half_precision():
    """A bfloat16 batch is measured in float32."""
    z = _gaussian(64, 8).bfloat16()
    assert (
        embedding_report(z, num_proj=16).statistic
        == embedding_report(z.float(), num_proj=16).statistic
    )


@pytest.mark.parametrize(
    ("z", "directions", "message"),
    [
        (
            torch.zeros(4),
            None,
            r"z must be \[..., N, D\] with N at least 2.*got \[4\]",
        ),
        (torch.zeros(1, 4), None, r"with N at least 2 and no other axis empty, got \[1, 4\]"),
        (torch.zeros(9, 4), torch.ones(2, 3), r"\[M, 4\] to match z \[..., 4\], got \[2, 3\]"),
        (torch.full((2, 2), torch.nan), None, "z must be finite, got 4 non-finite values"),
    ],
)
def test_report_refuses(z, directions, message):
    """Errors name the argument, the rule and what came."""
    with pytest.raises(ValueError, match=message):
        embedding_report(z, directions)


@pytest.mark.parametrize(
    ("z", "got"), [(torch.ones(4, 3).long(), "torch.int64"), ([[0.0, 1.0]], "list")]
)
def test_a_report_is_on_floating_tensors_alone(z, got):
    """Integers and lists are refused by type, as the regularizer refuses them."""
    with pytest.raises(TypeError, match=f"z must be .*, got {got}"):
        embedding_report(z)


def test_a_report_stays_on_its_device():
    """Whatever the default device is, everything is computed where z and the law are."""
    z = _gaussian(64, 8)
    expected = embedding_report(z, num_proj=16)
    diagnostics._law.cache_clear()
    quantiles.cache_clear()
    with torch.device("meta"):  # on which nothing can be computed
        found = embedding_report(z, num_proj=16)
    for name in ("statistic", "p_value", "worst_p_value", "effective_rank"):
        assert getattr(found, name) == getattr(expected, name)


def test_the_null_law_is_computed_once(monkeypatch):
    """Reports along the same drawn directions share their law; other directions get their own."""
    seen = []

    def counted(rule, directions=None):
        seen.append(None if directions is None else len(directions))
        return null_law(rule, directions)

    diagnostics._law.cache_clear()
    monkeypatch.setattr(diagnostics, "null_law", counted)
    for seed in range(3):
        embedding_report(_gaussian(32, 8, seed=seed), num_proj=16)
    assert sorted(seen, key=str) == [16, None]
    embedding_report(_gaussian(32, 8), num_proj=17)
    embedding_report(_gaussian(32, 8), num_proj=16, quadrature=trapezoid_rule(9))
    embedding_report(_gaussian(32, 8), torch.eye(8))
    assert sorted(seen, key=str) == [16, 16, 17, 8, None, None]


def test_a_report_is_beside_a_gaussian():
    """Another target has another null law: refused, not misread."""
    with pytest.raises(ValueError, match=r"must have the target of N\(0, 1\)"):
        embedding_report(_gaussian(32, 8), quadrature=trapezoid_rule(target=student_t_cf(5)))
