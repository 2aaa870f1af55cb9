"""The regularizers beside SIGReg: sliced tests, weak and subspace SIGReg, VICReg."""

import math

import pytest
import torch

import sigreg
from sigreg import (
    NearIsometry,
    SIGReg,
    SlicedTest,
    SubspaceRegularizer,
    VCReg,
    WeakSIGReg,
    random_directions,
)
from sigreg.directions import Sketch

STATISTICS = [
    sigreg.anderson_darling,
    sigreg.cramer_von_mises,
    sigreg.watson,
    sigreg.hermite_moments,
    sigreg.extended_jarque_bera,
    sigreg.epps_pulley_exact,
]
REGULARIZERS = {
    "sigreg": lambda: SIGReg(num_proj=64),
    "anderson-darling": lambda: SlicedTest(sigreg.anderson_darling, 64),
    "moments": lambda: SlicedTest(sigreg.hermite_moments, 64),
    "exact": lambda: SlicedTest(sigreg.epps_pulley_exact, 64),
    "weak": lambda: WeakSIGReg(6),
    "vcreg": VCReg,
    "subspace": lambda: SubspaceRegularizer(SIGReg(num_proj=64), 12, 4),
    "isometry": lambda: NearIsometry(SIGReg(num_proj=64), 12).requires_grad_(False),
}


def _gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _white(n, dim, seed=0):
    """Samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    z = _gaussian(n, dim, seed=seed, dtype=torch.float64)
    z = z - z.mean(0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov())).mT


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS.keys())
def test_one_contract(make):
    """Each is a scalar of [..., N, D] that averages over leading dims and prefers a Gaussian."""
    z = _gaussian(3, 200, 12)
    regularizer = make().eval()
    value = regularizer(z)
    assert value.shape == ()
    mean = sum(float(regularizer(part)) for part in z) / 3
    assert float(value) == pytest.approx(mean, rel=1e-5)
    for collapsed in (0.01 * z, z * (torch.arange(12) < 2)):
        assert float(regularizer(collapsed)) > float(value)


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS.keys())
def test_descent_opens_a_collapsed_batch(make):
    """Gradient descent on the regularizer alone opens a narrow batch to about unit scale."""
    z = (0.3 * _gaussian(128, 12)).requires_grad_()
    regularizer = make()
    optimizer = torch.optim.Adam([z], lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        regularizer(z).backward()
        optimizer.step()
    # VICReg's hinge pushes outwards and never back, so momentum carries it a little beyond.
    assert 0.88 < float(z.detach().std(0).mean()) < 1.35


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS.keys())
def test_autocast_changes_nothing(make):
    """Under bfloat16 autocast the value is that of float32."""
    z = _gaussian(64, 12)
    plain = make().eval()(z)
    with torch.autocast("cpu", torch.bfloat16):
        cast = make().eval()(z)
    assert float(cast) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS.keys())
def test_state_round_trip(make):
    """A loaded state dict continues with the same directions."""
    first, second, z = make(), make(), _gaussian(32, 12)
    for _ in range(3):
        first(z)
    second.load_state_dict(first.state_dict())
    assert float(first(z)) == float(second(z))


@pytest.mark.parametrize("make", REGULARIZERS.values(), ids=REGULARIZERS.keys())
def test_built_on_the_meta_device(make):
    """`to_empty` and `reset_parameters` of its modules, as FSDP2 does, make it new."""
    with torch.device("meta"):
        late = make()
    late = late.to_empty(device="cpu")
    for module in late.modules():
        if isinstance(module, (Sketch, SubspaceRegularizer, NearIsometry)):
            module.reset_parameters()
    z = _gaussian(64, 12)
    assert torch.equal(late(z), make()(z))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_sliced_test_is_the_mean_over_projections(statistic):
    """Along the axes it is the mean of the statistics of the coordinates."""
    z = _gaussian(50, 5)
    mean = sum(float(statistic(z[:, i : i + 1])) for i in range(5)) / 5
    test = SlicedTest(statistic)
    assert float(test(z, directions=torch.eye(5))) == pytest.approx(mean, rel=1e-5)
    assert test.step == 0


def test_sliced_exact_statistic_is_nearly_sigreg():
    """Sliced with the closed form on the whole line it is SIGReg up to the cut at t_max = 3."""
    z = _gaussian(100, 8)
    exact = float(SlicedTest(sigreg.epps_pulley_exact, 256)(z))
    assert exact == pytest.approx(float(SIGReg(num_proj=256)(z)), rel=0.02)


def test_sliced_directions_change_with_the_step_and_rest_in_evaluation():
    """Training draws new directions at every call, evaluation repeats."""
    z, test = _gaussian(32, 6), SlicedTest(sigreg.anderson_darling, 8)
    assert float(test(z)) != float(test(z))
    test.eval()
    assert float(test(z)) == float(test(z))
    assert int(test.step) == 2


def test_weak_loss_vanishes_at_the_identity_covariance():
    """White samples score 0 through any sketch, orthogonal or not, wherever their mean is."""
    z = _white(60, 10) + 3
    for directions in (torch.eye(10), random_directions(7, 10, seed=0, step=0)):
        assert float(WeakSIGReg()(z, directions=directions)) == pytest.approx(0, abs=1e-6)


def test_weak_loss_of_scaled_and_collapsed_samples():
    """Covariance s²I scores |s² − 1| √D, a point √D."""
    z = _white(60, 9)
    assert float(WeakSIGReg()(2 * z)) == pytest.approx(3 * 3, rel=1e-6)
    assert float(WeakSIGReg()(0 * z)) == pytest.approx(3)


def test_weak_module_uses_the_whole_covariance_when_it_can():
    """With no fewer rows than dims the sketch is the identity."""
    z = _gaussian(40, 5)
    whole = WeakSIGReg(3)(z, directions=torch.eye(5))
    assert float(WeakSIGReg(64)(z)) == pytest.approx(float(whole), rel=1e-6)


def test_subspaces_are_orthonormal_and_cover_the_space():
    """The bases together are a rotation, so an isotropic Gaussian stays one in each."""
    regularizer = SubspaceRegularizer(SIGReg(num_proj=8), 12, 3)
    torch.testing.assert_close(regularizer.rotation @ regularizer.rotation.mT, torch.eye(12))


def test_one_subspace_is_a_rotation():
    """With one subspace the value is the regularizer's of the rotated samples."""
    z, inner = _gaussian(30, 6), SIGReg(num_proj=16).eval()
    regularizer = SubspaceRegularizer(inner, 6, 1)
    assert float(regularizer(z)) == pytest.approx(
        float(inner(z @ regularizer.rotation.mT)), rel=1e-6
    )


def test_subspaces_are_blind_to_dependence_between_them():
    """Samples that are Gaussian in every block but repeat it score the floor there, not overall."""
    inner = SIGReg(num_proj=256).eval()
    regularizer = SubspaceRegularizer(inner, 8, 2)
    block = _gaussian(2000, 4)
    z = torch.cat([block, block], -1) @ regularizer.rotation
    assert float(regularizer(z)) < 1.5
    assert float(inner(z)) > 10


def test_vicreg_terms_by_hand():
    """Two samples: variance, hinge and covariance follow by hand, and VICReg of two views."""
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    hinge = (1 - math.sqrt(0.5 + 1e-4)) / 2  # variances 1/2 and 2, of which 2 is past the hinge
    assert float(VCReg(1, 0)(z)) == pytest.approx(hinge, rel=1e-9)
    assert float(VCReg(0, 1)(z)) == pytest.approx(2 * 1.0**2 / 2)  # covariance 1, twice, /D
    assert float(VCReg()(z)) == pytest.approx(25 * hinge + 1, rel=1e-9)
    views = torch.stack((z, z + 1))
    vicreg = 25 * (views[0] - views[1]).square().mean() + VCReg(25, 2)(views)
    assert float(vicreg) == pytest.approx(25 * 1 + 25 * hinge + 1 * (1 + 1), rel=1e-9)


def test_vcreg_is_computed_in_float32():
    """Half precision rounds the samples and no more; autocast changes nothing."""
    z = _gaussian(64, 6).half()
    plain = VCReg()(z.float())
    assert torch.equal(VCReg()(z), plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(VCReg()(z.float()), plain)


def test_vcreg_vanishes_for_white_samples():
    """Unit variance and no correlation cost nothing but the hinge's ε."""
    assert float(VCReg()(1.001 * _white(50, 6))) == pytest.approx(0, abs=1e-9)


def test_errors_name_what_came():
    """Wrong shapes and types are refused with the rule and what came."""
    z = _gaussian(8, 4)
    for layer in (WeakSIGReg(), SlicedTest(sigreg.watson)):
        with pytest.raises(ValueError, match=r"directions must be \[M, 4\].*got \[3, 5\]"):
            layer(z, directions=torch.ones(3, 5))
        with pytest.raises(ValueError, match=r"x must be \[..., N, D\].*got \[4\]"):
            layer(z[0])
        with pytest.raises(TypeError, match=r"got torch\.int64"):
            layer(z.long())
    with pytest.raises(ValueError, match="num_subspaces must divide dim 12, got 5"):
        SubspaceRegularizer(SIGReg(), 12, 5)
    with pytest.raises(ValueError, match=r"x must be \[..., 12\], got \[8, 4\]"):
        SubspaceRegularizer(SIGReg(), 12, 4)(z)
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        VCReg()(z.long())
    for layer in (VCReg(), WeakSIGReg()):
        with pytest.raises(ValueError, match=r"N at least 2 .*got \[1, 4\]"):
            layer(z[:1])
