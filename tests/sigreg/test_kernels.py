"""Every fused kernel against its plain twin: one suite for CPU, Triton's interpreter and GPU."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from torch import Tensor

from sigreg import Directions, Quadrature, random_directions, sigreg_loss, trapezoid_rule
from sigreg._kernels.ops import loss_op
from sigreg.directions import SAMPLERS, Sketch

from .backends import CUDA, device_of, every_backend

EPS = torch.finfo(torch.float32).eps


def along_the_axes(
    x: Tensor, rule: Quadrature, mask: Tensor | None, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients with respect to x [..., N, M] and to the axes, in float64.

    Projections along the axes are the coordinates themselves, so that what is compared is a
    kernel's sums and pulls and nothing before them.
    """
    x = x.detach().to(device_of(backend)).requires_grad_()
    full = x.dtype if x.dtype == torch.float64 else torch.float32
    axes = torch.eye(x.shape[-1], dtype=full, device=x.device, requires_grad=True)
    shares = {}
    if mask is not None:
        shares["sample_weight" if mask.is_floating_point() else "mask"] = mask.to(x.device)
    loss = sigreg_loss(x, axes, rule, **shares, backend=backend)
    found = (loss, *torch.autograd.grad(loss, (x, axes)))
    return tuple(part.detach().double().cpu() for part in found)  # type: ignore[return-value]


def strange(knots: int = 17, t_max: float = 3.0) -> Quadrature:
    """A rule that weighs every knot by its own number, against targets no sample has."""
    rule = trapezoid_rule(knots, t_max)
    generator = torch.Generator().manual_seed(knots)
    weight, target = torch.rand(2, knots, generator=generator, dtype=torch.float64) + 0.5
    return rule._replace(weight=weight, target=-target)


def error(value: Tensor, truth: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((value - truth).norm() / truth.norm())


def compare(
    x: Tensor, backend: str, rule: Quadrature | None = None, mask: Tensor | None = None
) -> None:
    """Errors are at most thrice the plain twin's in the same dtype, both against float64."""
    rule = strange() if rule is None else rule
    truth = along_the_axes(x.double(), rule, mask, "reference")
    twin = along_the_axes(x, rule, mask, "reference")
    ours = along_the_axes(x, rule, mask, backend)
    # The floor is for dtypes and sizes in which the twin happens to be exact.
    floor = 1e-15 if x.dtype == torch.float64 else EPS
    plain = [error(part, exact) for part, exact in zip(twin, truth, strict=True)]
    plain[0] = max(plain)  # the error of a single number may vanish by chance
    for mine, exact, bound in zip(ours, truth, plain, strict=True):
        assert error(mine, exact) <= 3 * bound + 4 * floor


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 3), (64, 5), (131, 129), (2, 33, 2), (3, 2, 17, 1)], ids=str
)
def test_odd_sizes(backend: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Loss and gradients are the twin's for any N, M and leading dims."""
    compare(1.5 * torch.randn(shape, dtype=dtype), backend)


@every_backend
@pytest.mark.parametrize("knots", [2, 3, 8, 9, 10, 16, 17, 18, 33, 40])
def test_any_number_of_knots(backend: str, knots: int) -> None:
    """K may lie on, before or behind the borders between centres."""
    dtype = torch.float64 if knots % 2 else torch.float32
    compare(torch.randn(40, 3, dtype=dtype), backend, strange(knots))


@every_backend
def test_every_knot_alone(backend: str) -> None:
    """With all weight on one knot, cosine and sine of that knot are the twin's."""
    x, rule = torch.randn(40, 3, dtype=torch.float64), strange(20)
    for k in range(1, 20):
        alone = rule._replace(weight=torch.eye(20, dtype=torch.float64)[k])
        compare(x, backend, alone)


@every_backend
def test_unround_spacing(backend: str) -> None:
    """A spacing that float32 cannot hold keeps float64 accuracy for float64 projections."""
    compare(torch.randn(40, 3, dtype=torch.float64), backend, strange(12, 3.3))


@every_backend
def test_masks(backend: str) -> None:
    """A mask takes samples out of sums and gradients, a whole batch too."""
    mask = torch.rand(3, 70) > 0.4
    mask[1] = False
    compare(torch.randn(3, 70, 4, dtype=torch.float64), backend, mask=mask)


@every_backend
@pytest.mark.parametrize("knots", [17, 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights(backend: str, knots: int, dtype: torch.dtype) -> None:
    """Weights multiply every sample's part of sums and gradients, of every knot alike."""
    weight = torch.rand(3, 70, dtype=dtype) * (torch.rand(3, 70) > 0.3)
    compare(torch.randn(3, 70, 4, dtype=dtype), backend, strange(knots), weight)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(backend: str, dtype: torch.dtype) -> None:
    """Half precision rounds the samples and their gradient, not what is computed in between."""
    x = torch.randn(300, 3).to(dtype)
    rule = strange()
    truth = along_the_axes(x.double(), rule, None, "reference")
    ours = along_the_axes(x, rule, None, backend)
    assert error(ours[0], truth[0]) < 1e-6
    assert error(ours[1], truth[1]) < torch.finfo(dtype).eps
    assert error(ours[2], truth[2]) < 2e-6


@every_backend
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3, 1e5])
def test_any_magnitude(backend: str, scale: float) -> None:
    """Angles of many turns, and tiny ones, are as good as the twin's."""
    compare(scale * torch.randn(60, 4), backend)


@every_backend
def test_strides_do_not_matter_and_nothing_is_written(backend: str) -> None:
    """Transposed, expanded and strided views give the same bits; inputs stay as they were."""
    rule = strange()
    x = torch.randn(40, 5)
    kept = x.clone()
    expected = along_the_axes(x, rule, None, backend)
    wide = torch.randn(80, 15)
    wide[::2, ::3] = x
    for view in (x.T.contiguous().T, wide[::2, ::3]):
        assert not view.is_contiguous()
        for mine, plain in zip(along_the_axes(view, rule, None, backend), expected, strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-7)
    row = torch.randn(1, 5)
    spread = along_the_axes(row.expand(40, 5), rule, None, backend)
    solid = along_the_axes(row.repeat(40, 1), rule, None, backend)
    torch.testing.assert_close(spread[0], solid[0], rtol=1e-6, atol=0)
    assert torch.equal(x, kept)


@every_backend
def test_same_input_same_bits(backend: str) -> None:
    """Two runs agree in every bit, forward and backward."""
    x, rule = torch.randn(500, 40), trapezoid_rule()
    first = along_the_axes(x, rule, None, backend)
    second = along_the_axes(x, rule, None, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_backend
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter's numpy
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(backend: str, bad: float) -> None:
    """A sample that is not finite makes the loss and every gradient not finite."""
    x = torch.randn(30, 3)
    x[7, 1] = bad
    for found in along_the_axes(x, trapezoid_rule(), None, backend):
        assert not torch.isfinite(found).all()


@every_backend
def test_no_samples(backend: str) -> None:
    """An empty shard adds nothing: loss and gradients are 0."""
    rule = trapezoid_rule().to(torch.empty(0, device=device_of(backend)))
    assert rule.spacing is not None
    for masked in (True, False):
        z = torch.empty(2, 0, 3, device=rule.t.device)
        shares = z[..., 0] if masked else None
        axes = torch.eye(3, device=z.device)
        loss, grad_z, grad_rows = loss_op(
            z, axes, None, shares, rule.weight, rule.target, rule.spacing,
            backend, True, 0, "", True, True,
        )  # fmt: skip
        assert float(loss) == 0
        assert grad_z.shape == z.shape
        assert torch.equal(grad_rows, torch.zeros_like(axes))


@every_backend
def test_more_samples_than_a_grid_axis(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N may exceed 65,535, the limit of a CUDA grid's second axis."""
    if backend == "triton" and not CUDA:
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._ROWS", 1024)
    # Few distinct values, so that the truth is a short sum.
    values = torch.tensor([[-1.3], [0.2], [0.9]])
    n = 65_535 + 3
    loss, *_ = along_the_axes(values.repeat(n // 3, 1), trapezoid_rule(), None, backend)
    truth, *_ = along_the_axes(values.double(), trapezoid_rule(), None, "reference")
    assert error(loss, truth * (n // 3)) < 5e-6


@every_backend
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_drawn_directions(backend: str, sampler: str, dtype: torch.dtype) -> None:
    """Rows in bfloat16 with a scale behind them are the unit vectors they stand for."""
    sketch = Sketch(33, seed=5, sampler=sampler)
    z = (1.3 * torch.randn(2, 70, 24)).to(dtype).to(device_of(backend)).requires_grad_()
    drawn = sketch.draw(z)
    exact = Directions(drawn.rows.double() * drawn.scale.double()[:, None])  # type: ignore[union-attr]
    found = []
    for name, leaf, a in (("reference", z.double(), exact), (backend, z, drawn)):
        loss = sigreg_loss(leaf, a, trapezoid_rule(), backend=name)
        found.append((loss.detach().double(), torch.autograd.grad(loss, z)[0].double()))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert error(found[1][0], found[0][0]) < tolerance
    assert error(found[1][1], found[0][1]) < max(tolerance, torch.finfo(dtype).eps)


@every_backend
@pytest.mark.parametrize(
    ("scale_by_n", "masked", "chunk"),
    [(True, False, None), (False, False, 20), (True, True, 20), (False, True, None)],
)
def test_the_loss(backend: str, scale_by_n: bool, masked: bool, chunk: int | None) -> None:
    """Loss and gradient of the whole chain are the twin's, chunked or not."""
    device = device_of(backend)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        z = (1.3 * torch.randn(2, 70, 24, dtype=dtype)).to(device)
        mask = (torch.rand(2, 70) > 0.3).to(device) if masked else None
        a = random_directions(33, 24, seed=0, step=0).to(device)
        results = []
        for name, size in (("reference", None), (backend, chunk)):
            leaf = z.clone().requires_grad_()
            loss = sigreg_loss(
                leaf,
                a,
                trapezoid_rule(),
                mask=mask,
                scale_by_n=scale_by_n,
                backend=name,
                chunk=size,
            )
            (3 * loss).backward()
            assert leaf.grad is not None
            results.append((loss.detach(), leaf.grad))
        (loss, gradient), (fused_loss, fused_gradient) = results
        assert float((loss - fused_loss).abs() / loss) < tolerance
        assert error(fused_gradient, gradient) < tolerance
        with torch.no_grad():
            silent = sigreg_loss(
                z, a, trapezoid_rule(), mask=mask, scale_by_n=scale_by_n, backend=backend
            )
        torch.testing.assert_close(silent, fused_loss, rtol=1e-6, atol=0)


@every_backend
@pytest.mark.parametrize("shape", [(4, 128, 48), (2, 60, 16), (1, 2048, 128)], ids=str)
def test_the_gradient_is_as_exact_as_the_published_formulas(
    backend: str, shape: tuple[int, ...]
) -> None:
    """In float32 the gradient errs at most twice as much as that of the plain formula."""
    if backend == "triton" and not CUDA and shape[1] > 1000:
        pytest.skip("minutes under the interpreter")
    z = torch.randn(shape, dtype=torch.float64)
    a = random_directions(64, shape[-1], seed=0, step=0)

    def gradient(backend: str, dtype: torch.dtype) -> Tensor:
        leaf = z.to(device_of(backend), dtype).requires_grad_()
        loss = sigreg_loss(leaf, a.to(leaf), trapezoid_rule(), backend=backend)
        return torch.autograd.grad(loss, leaf)[0].double().cpu()

    truth = gradient("reference", torch.float64)
    plain = error(gradient("reference", torch.float32), truth)
    assert error(gradient(backend, torch.float32), truth) <= 2 * plain


@every_backend
def test_no_second_derivative_is_said(backend: str) -> None:
    """A second backward through a fused kernel is an error, never a wrong number."""
    device = device_of(backend)
    z = torch.randn(20, 6, device=device, requires_grad=True)
    a = random_directions(8, 6, seed=0, step=0, device=device)
    loss = sigreg_loss(z, a, trapezoid_rule(), backend=backend)
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_the_reference_has_a_second_derivative() -> None:
    """The plain path can be differentiated twice, as gradcheck confirms."""
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    a = random_directions(4, 3, seed=0, step=0).double()

    def loss(z: Tensor) -> Tensor:
        return sigreg_loss(z, a, trapezoid_rule(5), backend="reference")

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


@every_backend
def test_more_samples_than_a_tile(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that fill several tiles or programs add up to the same sums."""
    n = 83
    if backend == "cpp":
        n = 1100  # more than one task and one run of ecf.cpp hold
    elif backend == "cpu":
        monkeypatch.setattr("sigreg._kernels.ecf_cpu._TILE", 32)
    else:
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._PROGRAMS_PER_SM", 64)
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._MIN_SAMPLES", 16)
    compare(torch.randn(2, n, 3), backend, mask=torch.rand(2, n) > 0.5)
    z = torch.randn(n, 6, device=device_of(backend), requires_grad=True)
    a = random_directions(9, 6, seed=0, step=0, device=z.device)
    losses = [sigreg_loss(z, a, trapezoid_rule(), backend=name) for name in ("reference", backend)]
    torch.testing.assert_close(losses[0], losses[1])
    plain, fused = (torch.autograd.grad(loss, z)[0] for loss in losses)
    assert error(fused, plain) < 2e-6


def test_tiles_need_not_begin_with_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tiles cut across batches, each row still has the mask and the count of its own."""
    monkeypatch.setattr("sigreg._kernels.ecf_cpu._TILE", 20 * 4)  # four rows of twenty samples
    z = torch.randn(3, 20, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(20) < torch.tensor([[20], [11], [3]])
    a = random_directions(9, 6, seed=0, step=0)
    results = []
    for backend in ("reference", "cpu"):
        loss = sigreg_loss(z, a, trapezoid_rule(), mask=mask, backend=backend)
        results.append((loss.detach(), torch.autograd.grad(loss, z)[0]))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.skipif(CUDA, reason="there is a GPU")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter needs none")
def test_triton_without_a_gpu_is_an_error() -> None:
    """A backend that was asked for is never replaced in silence."""
    with pytest.raises(ValueError, match="needs a tensor on a GPU, got one on cpu"):
        sigreg_loss(torch.zeros(3, 2), torch.eye(2), trapezoid_rule(), backend="triton")
