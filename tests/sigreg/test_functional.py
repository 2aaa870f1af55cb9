"""The loss as a function: what it equals, what it leaves out, what it refuses."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from sigreg import Directions, Quadrature, random_directions, sigreg_loss, trapezoid_rule

from .backends import ON_CPU
from .truths import TRUTHS, Truth

RULE = trapezoid_rule()


def directions(num: int, dim: int) -> Tensor:
    """[num, dim], unit rows in float64."""
    a = random_directions(num, dim, seed=0, step=0).double()
    return a / a.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_known_statistics(truth: Truth, backend: str) -> None:
    """Samples along a line have, seen along it, the statistic of their position on it."""
    axis = directions(1, 5)
    value = sigreg_loss(truth.x[:, None] * axis, axis, RULE, backend=backend)
    torch.testing.assert_close(value, truth.statistic(RULE), rtol=2e-8, atol=1e-12)


def test_the_blind_spot() -> None:
    """A shift by 2π/Δt = 33.5 along a direction changes nothing; half of it does."""
    z, axis = torch.randn(64, 3, dtype=torch.float64), directions(1, 3)
    assert RULE.spacing is not None
    period = 2 * torch.pi / RULE.spacing
    assert period == pytest.approx(33.51, abs=0.01)
    here = sigreg_loss(z, axis, RULE)
    torch.testing.assert_close(sigreg_loss(z + period * axis, axis, RULE), here)
    assert sigreg_loss(z + period / 2 * axis, axis, RULE) > 10 * here


def test_the_gradient_fades_with_the_spread() -> None:
    """Samples within ε of each other get a gradient of order ε, coinciding ones none at all."""
    z, a = torch.randn(32, 4, dtype=torch.float64), directions(64, 4)
    z = z - z.mean(0)

    def pull(spread: float) -> float:
        leaf = (spread * z).requires_grad_()
        return float(torch.autograd.grad(sigreg_loss(leaf, a, RULE), leaf)[0].norm())

    assert pull(0.0) == 0
    assert pull(1e-3) / pull(1e-4) == pytest.approx(10, rel=0.01)


def test_masked_samples_have_no_influence() -> None:
    """What is masked may hold anything: the loss and gradient are those of the rest alone."""
    z = torch.randn(3, 20, 6, dtype=torch.float64)
    mask = torch.rand(3, 20) > 0.3
    a = directions(16, 6)
    for rubbish in (0.0, 1e30, float("nan"), float("inf")):
        leaf = z.masked_fill(~mask[..., None], rubbish).requires_grad_()
        loss = sigreg_loss(leaf, a, RULE, mask=mask)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))
        for b in range(3):
            alone = z[b, mask[b]].requires_grad_()
            part = sigreg_loss(alone, a, RULE) / 3
            torch.testing.assert_close(
                gradient[b, mask[b]], torch.autograd.grad(part, alone)[0], rtol=1e-9, atol=1e-12
            )
    means = torch.stack([sigreg_loss(z[b, mask[b]], a, RULE) for b in range(3)])
    torch.testing.assert_close(loss.detach(), means.mean())


def test_a_batch_without_samples_adds_nothing() -> None:
    """Where the mask leaves no sample the statistic is 0 and the gradient too."""
    z = torch.randn(2, 10, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1] = False
    a = directions(8, 4)
    for backend in ON_CPU:
        for scale_by_n in (True, False):
            loss = sigreg_loss(z, a, RULE, mask=mask, backend=backend, scale_by_n=scale_by_n)
            alone = sigreg_loss(z[0], a, RULE, backend=backend, scale_by_n=scale_by_n)
            torch.testing.assert_close(loss, alone / 2)
            assert not torch.autograd.grad(loss, z)[0][1].any()


def test_knots_that_are_not_equally_spaced() -> None:
    """They are summed by the reference, and a fused kernel asked for them refuses."""
    t = torch.tensor([0.0, 0.3, 1.1], dtype=torch.float64)
    uneven = Quadrature(t=t, weight=torch.ones(3, dtype=torch.float64), target=(-(t**2) / 2).exp())
    z, a = torch.randn(20, 4, dtype=torch.float64), directions(8, 4)
    x = z @ a.T
    distance = (x[..., None] * t).cos().mean(0) - uneven.target
    distance = distance**2 + (x[..., None] * t).sin().mean(0) ** 2
    torch.testing.assert_close(sigreg_loss(z, a, uneven), 20 * distance.sum(-1).mean())
    with pytest.raises(ValueError, match="needs a quadrature with equally spaced knots"):
        sigreg_loss(z, a, uneven, backend="cpu")


def test_directions_may_be_learned() -> None:
    """Directions that need a gradient get the reference's, from the fused sums too."""
    z, a = torch.randn(20, 4, dtype=torch.float64, requires_grad=True), directions(8, 4)
    a.requires_grad_()
    grads = [
        torch.autograd.grad(sigreg_loss(z, a, RULE, backend=name), (z, a))
        for name in ("reference", "cpu")
    ]
    for plain, fused in zip(*grads, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("backend", ON_CPU)
def test_weights_of_samples(backend: str) -> None:
    """Weights enter the means, and N is (Σ w)² / Σ w²: of 0 and 1 they are a mask."""
    z, a = torch.randn(3, 20, 6, dtype=torch.float64), directions(16, 6)
    w = torch.rand(3, 20, dtype=torch.float64)
    loss = sigreg_loss(z, a, RULE, sample_weight=w, backend=backend)
    phi = torch.exp(1j * (z @ a.T)[..., None] * RULE.t) * w[..., None, None]
    phi = phi.sum(-3) / w.sum(-1)[:, None, None]
    n = w.sum(-1).square() / w.square().sum(-1)
    distance = (phi - RULE.target).abs().square() @ RULE.weight
    torch.testing.assert_close(loss, (n[:, None] * distance).mean())
    for scaled in (1e-6 * w, 1e6 * w):
        torch.testing.assert_close(
            sigreg_loss(z, a, RULE, sample_weight=scaled, backend=backend), loss
        )
    mask = w > 0.3
    masked = sigreg_loss(z, a, RULE, mask=mask, backend=backend)
    zeros = sigreg_loss(z, a, RULE, sample_weight=mask.double(), backend=backend)
    torch.testing.assert_close(zeros, masked)
    both = sigreg_loss(z, a, RULE, mask=mask, sample_weight=w, backend=backend)
    product = sigreg_loss(z, a, RULE, sample_weight=w * mask, backend=backend)
    torch.testing.assert_close(both, product)


def test_weights_leave_the_floor() -> None:
    """Gaussian samples of any weights score 1.0525 in the mean."""
    z, w = torch.randn(4000, 32, 8), torch.rand(4000, 32).square()
    loss = sigreg_loss(z, directions(16, 8), RULE, sample_weight=w)
    assert float(loss) == pytest.approx(1.0525, rel=0.02)


def test_gradients_of_weighted_samples() -> None:
    """The fused kernel's gradients of samples and directions are the reference's."""
    z, a = torch.randn(2, 20, 4, dtype=torch.float64), directions(8, 4)
    w = torch.rand(2, 20, dtype=torch.float64)
    found = []
    for backend in ("reference", "cpu"):
        leaves = z.clone().requires_grad_(), a.clone().requires_grad_()
        loss = sigreg_loss(*leaves, RULE, sample_weight=w, scale_by_n=False, backend=backend)
        found.append(torch.autograd.grad(loss, leaves))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("backend", ON_CPU)
def test_chunks_change_nothing(backend: str, learned: bool) -> None:
    """However many directions are projected at a time, loss and gradients are the same."""
    z, found = torch.randn(2, 20, 4, dtype=torch.float64), []
    for chunk in (None, 1, 3, 8, 100):
        leaves = [z.clone().requires_grad_(), directions(8, 4).requires_grad_(learned)]
        loss = sigreg_loss(leaves[0], leaves[1], RULE, backend=backend, chunk=chunk)
        found.append((loss, *torch.autograd.grad(loss, leaves[: 1 + learned])))
    for other in found[1:]:
        for mine, first in zip(other, found[0], strict=True):
            torch.testing.assert_close(mine, first)


@pytest.mark.parametrize("backend", ON_CPU)
def test_rows_with_a_scale_may_be_learned_too(backend: str) -> None:
    """The gradient of rows goes through their scale, to both."""
    z, found = torch.randn(20, 4, dtype=torch.float64), []
    rows, scale = torch.randn(2, 8, 4, dtype=torch.float64)
    scale = scale[:, 0].exp()
    for given in (Directions(rows.requires_grad_(), scale), None):
        a = Directions(rows * scale[:, None]) if given is None else given
        loss = sigreg_loss(z.float(), a, RULE, backend=backend)
        found.append(torch.autograd.grad(loss, rows)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_result(dtype: torch.dtype) -> None:
    """The loss is float32, or float64 for float64 samples; the gradient has the samples' dtype."""
    z = torch.randn(20, 4).to(dtype).requires_grad_()
    loss = sigreg_loss(z, directions(8, 4), RULE)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    loss.backward()
    assert z.grad is not None
    assert z.grad.dtype == dtype


@pytest.mark.parametrize("backend", ON_CPU)
def test_autocast_does_not_reach_inside(backend: str) -> None:
    """Loss and gradient are bit for bit the same under autocast."""
    z, a = torch.randn(40, 8, requires_grad=True), directions(16, 8).float()
    plain = sigreg_loss(z, a, RULE, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = sigreg_loss(z, a, RULE, backend=backend)
    assert torch.equal(plain, cast)
    pulls = [torch.autograd.grad(loss, z)[0] for loss in (plain, cast)]
    assert torch.equal(*pulls)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_sample_shows(backend: str, bad: float) -> None:
    """One sample that is not finite makes the loss not finite, in any batch."""
    z = torch.randn(3, 40, 8)
    z[2, 5, 1] = bad
    loss = sigreg_loss(z, directions(16, 8), RULE, backend=backend)
    assert not torch.isfinite(loss)


def test_one_sample_and_one_direction_suffice() -> None:
    """N = M = D = 1 is a legal, finite case."""
    z = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    loss = sigreg_loss(z, torch.ones(1, 1), RULE)
    expected = (RULE.weight * (1 - 2 * (0.7 * RULE.t).cos() * RULE.target + RULE.target**2)).sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "z must be floating point, got torch.int64", {"z": torch.ones(4, 3).long()}),
        (TypeError, "z must be a torch.Tensor, got list", {"z": [[1.0, 2.0, 3.0]]}),
        (ValueError, "z must be [..., N, D] with N at least 1", {"z": torch.ones(3)}),
        (ValueError, "no other axis empty, got [4, 0]", {"z": torch.ones(4, 0)}),
        (ValueError, "no other axis empty, got [0, 4, 3]", {"z": torch.ones(0, 4, 3)}),
        (
            ValueError,
            "no other axis empty, got [0, 3]",
            {"z": torch.ones(0, 3)},
        ),
        (
            ValueError,
            "directions must be [M, 3] to match z [..., 3], got [5, 4]",
            {"directions": torch.ones(5, 4)},
        ),
        (ValueError, "got [0, 3]", {"directions": torch.ones(0, 3)}),
        (ValueError, "mask must be [4] to match z [4, 3], got [3]", {"mask": torch.ones(3) > 0}),
        (TypeError, "mask must be boolean, got torch.float32", {"mask": torch.ones(4)}),
        (
            ValueError,
            "sample_weight must be [4] to match z [4, 3], got [3]",
            {"sample_weight": torch.ones(3)},
        ),
        (
            TypeError,
            "sample_weight must be floating point, got torch.bool",
            {"sample_weight": torch.ones(4) > 0},
        ),
        (
            ValueError,
            "sample_weight must not require a gradient",
            {"sample_weight": torch.ones(4, requires_grad=True)},
        ),
        (ValueError, "chunk must be a whole number of at least 1, got 0", {"chunk": 0}),
        (ValueError, "backend must be one of auto, reference, cpu, cpp, tri", {"backend": "gpu"}),
        (ValueError, "group must be", {"group": "all"}),
    ],
)
def test_what_is_refused(
    error: type[Exception], message: str, arguments: dict[str, object]
) -> None:
    """Errors name the argument, the rule and what came, before anything is computed."""
    call: dict[str, object] = {"z": torch.ones(4, 3), "directions": torch.eye(3)} | arguments
    with pytest.raises(error, match=re.escape(message)):
        sigreg_loss(quadrature=RULE, **call)  # type: ignore[arg-type]
