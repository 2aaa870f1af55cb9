"""The multi-view loss and its two conventions for λ."""

import pytest
import torch

from sigreg import LeJEPALoss, SIGReg, VCReg, additive_weight, invariance_loss


def _views(v, n=32, d=6, seed=0):
    return torch.randn(v, n, d, generator=torch.Generator().manual_seed(seed))


def _regularizer():
    return SIGReg(num_proj=16).eval()


def test_total_of_both_conventions():
    """Convex is (1 − λ) inv + λ reg, additive is inv + λ reg, of the same two parts."""
    z = _views(3)
    convex = LeJEPALoss(_regularizer(), 0.2, convention="convex")(z)
    additive = LeJEPALoss(_regularizer(), 0.2, convention="additive")(z)
    assert convex.invariance == additive.invariance
    assert convex.regularizer == additive.regularizer
    inv, reg = float(convex.invariance), float(convex.regularizer)
    assert float(convex.total) == pytest.approx(0.8 * inv + 0.2 * reg, rel=1e-6)
    assert float(additive.total) == pytest.approx(inv + 0.2 * reg, rel=1e-6)


def test_additive_weight_gives_the_same_direction():
    """The convex gradient is 1 − λ times the additive one at the converted weight."""
    z = _views(2).requires_grad_()
    convex = LeJEPALoss(_regularizer(), 0.05)(z).total
    weight = additive_weight(0.05)
    additive = LeJEPALoss(_regularizer(), weight, convention="additive")(z).total
    a, b = (torch.autograd.grad(loss, z)[0] for loss in (convex, additive))
    torch.testing.assert_close(a, 0.95 * b)
    assert weight == pytest.approx(0.05 / 0.95)


def test_equal_views_have_no_invariance_loss():
    """Views that agree cost only the regularizer, and two views cost a quarter of their MSE."""
    z = _views(1).expand(4, -1, -1)
    assert float(LeJEPALoss(_regularizer())(z).invariance) == pytest.approx(0, abs=1e-12)
    a, b = _views(2)
    pair = invariance_loss(torch.stack([a, b]), (a + b) / 2)
    assert float(pair) == pytest.approx(float((a - b).square().mean()) / 4, rel=1e-6)


def test_global_views_alone_set_the_centre():
    """All views are pulled to the mean of the global ones, and all are regularized."""
    global_views, local_views = _views(2), _views(3, seed=1)
    losses = LeJEPALoss(_regularizer())(global_views, local_views)
    views = torch.cat([global_views, local_views])
    expected = (views - global_views.mean(0)).square().mean()
    assert float(losses.invariance) == pytest.approx(float(expected), rel=1e-6)
    assert float(losses.regularizer) == pytest.approx(float(_regularizer()(views)), rel=1e-6)


def test_half_precision_views_are_compared_in_float32():
    """bfloat16 rounds the views, not their distance, mean or centre."""
    z = (10 + 0.1 * _views(3)).bfloat16()
    found = LeJEPALoss(_regularizer())(z).invariance
    assert found.dtype == torch.float32
    assert float(found) == float(LeJEPALoss(_regularizer())(z.float()).invariance)
    assert invariance_loss(z, z[0]).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert LeJEPALoss(_regularizer())(z).invariance == found


def test_pooled_views_multiply_the_misfit():
    """One batch of V·N samples has V times the statistic of V batches with the same misfit."""
    z = torch.zeros(4, 32, 6)
    alone = LeJEPALoss(_regularizer())(z).regularizer
    pooled = LeJEPALoss(_regularizer(), pool_views=True)(z).regularizer
    assert float(pooled) == pytest.approx(4 * float(alone), rel=1e-5)


def test_any_regularizer_fits():
    """The regularizer is an argument: VICReg's terms serve as well, and gradients flow."""
    z = _views(2).requires_grad_()
    LeJEPALoss(VCReg(), 0.5)(z).total.backward()
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0


def test_the_regularizer_is_a_submodule():
    """Its step travels with the state of the loss."""
    loss = LeJEPALoss(SIGReg(num_proj=4))
    loss(_views(2))
    assert int(loss.state_dict()["regularizer.step"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convention": "sum"}, "convention must be one of convex, additive, got 'sum'"),
        ({"weight": 1.5}, r"weight must be in \[0, 1\] for the convex form, got 1.5"),
        (
            {"weight": -1.0, "convention": "additive"},
            "weight must be in .0, inf., got -1.0",
        ),
    ],
)
def test_refuses_weights_out_of_range(arguments, message):
    """A weight that belongs to the other convention is refused, not guessed."""
    with pytest.raises(ValueError, match=message):
        LeJEPALoss(SIGReg(), **arguments)


def test_refuses_wrong_shapes():
    """Errors name the argument, the rule and what came."""
    loss = LeJEPALoss(_regularizer())
    with pytest.raises(ValueError, match=r"global_views must be \[V, N, D\], got \[32, 6\]"):
        loss(_views(2)[0])
    with pytest.raises(ValueError, match=r"global_views must be .*got \[0, 32, 6\]"):
        loss(_views(0), _views(2))
    with pytest.raises(ValueError, match=r"local_views must be \[V, 32, 6\].*got \[2, 31, 6\]"):
        loss(_views(2), _views(2, n=31))
    with pytest.raises(ValueError, match=r"weight must be in \[0, 1\), got 1"):
        additive_weight(1)
