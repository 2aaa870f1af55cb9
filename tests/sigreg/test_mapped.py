"""The learned near-isometry: how far it may bend, and where it starts."""

from __future__ import annotations

import pytest
import torch

from sigreg import NearIsometry, SIGReg
from sigreg.mapped import _contract


def bent(scale: float, bend: float = 0.2) -> NearIsometry:
    """One whose weights have gone anywhere, in float64."""
    layer = NearIsometry(SIGReg(num_proj=16).eval(), 6, 3, bend=bend, hidden=9).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return layer.requires_grad_(False)


def test_it_starts_as_the_identity() -> None:
    """Before the first step it is the regularizer itself, bit for bit, and already learns."""
    # With and without a gradient the loss takes two ways, whose last bits may differ.
    inner, z = SIGReg(num_proj=16).eval(), torch.randn(40, 6, requires_grad=True)
    layer = NearIsometry(inner, 6)
    assert torch.equal(layer(z), inner(z))
    layer(z).backward()
    assert layer.outer.grad is not None
    assert float(layer.outer.grad.abs().sum()) > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_distances_change_within_the_bounds(scale: float) -> None:
    """Whatever the weights, singular values of its derivative are in [(1 − c)^L, (1 + c)^L]."""
    layer = bent(scale)
    for x in (torch.zeros(6), 0.1 * torch.randn(6), 10 * torch.randn(6)):
        slope = torch.autograd.functional.jacobian(layer.transport, x.double())
        values = torch.linalg.svdvals(slope)
        assert float(values.min()) >= 0.8**3
        assert float(values.max()) <= 1.2**3
    if scale == 1.0:  # and they do use the room they have
        x = torch.randn(200, 6, dtype=torch.float64)
        moved = torch.pdist(layer.transport(x).detach()) / torch.pdist(x)
        assert float(moved.max() - moved.min()) > 0.05


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (3, 8), (40, 40)])
def test_the_bound_of_a_spectral_norm_is_one_and_near(shape: tuple[int, int]) -> None:
    """Large matrices are divided to a spectral norm just below 1, small ones stay."""
    weight = 5 * torch.randn(2, *shape, dtype=torch.float64)
    norms = torch.linalg.matrix_norm(_contract(weight), 2)
    assert float(norms.max()) <= 1 + 1e-12
    big = torch.linalg.matrix_norm(weight, 2) > 1
    assert float(norms[big].min()) > min(shape) ** (-1 / 128) - 1e-9
    small = weight / torch.linalg.matrix_norm(weight, 2, keepdim=True) / 2
    torch.testing.assert_close(_contract(small), small)


def test_learning_it_lowers_the_loss_and_no_collapse_is_opened() -> None:
    """It bends uniform samples towards a Gaussian; samples on a point stay on a point."""
    torch.manual_seed(0)
    layer = NearIsometry(SIGReg(num_proj=64), 2, bend=0.5)
    z = (torch.rand(512, 2) - 0.5) * 12**0.5
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    before = float(layer(z).detach())
    for _ in range(150):
        optimizer.zero_grad()
        layer(z).backward()
        optimizer.step()
    assert float(layer(z).detach()) < 0.7 * before
    point = torch.ones(512, 2)
    spread = layer.transport(point).detach().std(0)
    assert float(spread.max()) == 0


def test_autocast_and_half_precision_do_not_reach_inside() -> None:
    """It computes in float32 whatever comes."""
    layer, z = bent(1.0).float(), torch.randn(40, 6).bfloat16()
    plain = layer(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(z), plain)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"bend must be in \[0, 1\), got 1", {"bend": 1.0}),
        ("depth must be a whole number of at least 1, got 0", {"depth": 0}),
        ("hidden must be a whole number of at least 1, got 0", {"hidden": 0}),
    ],
)
def test_what_is_refused(message: str, arguments: dict[str, object]) -> None:
    """A map that could fold, or has no layers, is not built."""
    with pytest.raises(ValueError, match=message):
        NearIsometry(SIGReg(), 6, **arguments)  # type: ignore[arg-type]
