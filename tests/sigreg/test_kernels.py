"""Every fused kernel against its plain twin: one suite for CPU, Triton's interpreter and GPU."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from torch import Tensor

from sigreg import Quadrature, random_directions, reference, sigreg_loss, trapezoid
from sigreg._kernels import ecf_sums

CUDA = torch.cuda.is_available()
if importlib.util.find_spec("triton") is None:
    WHY_NOT = "triton is not installed"
elif not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    WHY_NOT = "no GPU, and TRITON_INTERPRET=1 is not set (nox sets it)"
else:
    WHY_NOT = ""
BACKENDS = [
    "cpu",
    pytest.param("triton", marks=pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)),
]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
EPS = torch.finfo(torch.float32).eps


def device_of(backend: str) -> str:
    """Where a backend's tensors live here."""
    return "cuda" if backend == "triton" and CUDA else "cpu"


def sums_and_pull(
    x: Tensor, rule: Quadrature, mask: Tensor | None, pull: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """([..., M, 2K] sums, gradient of Σ pull · sums) in float64."""
    x = x.detach().to(device_of(backend)).requires_grad_()
    mask = None if mask is None else mask.to(x.device)
    rule = rule._replace(t=rule.t.to(x.device))
    sums = torch.cat(ecf_sums(x, rule, mask, backend=backend), -1)
    (gradient,) = torch.autograd.grad(sums, x, pull.to(sums))
    return sums.detach().double().cpu(), gradient.double().cpu()


def error(value: Tensor, truth: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((value - truth).norm() / truth.norm())


def compare(
    x: Tensor, backend: str, knots: int = 17, mask: Tensor | None = None, t_max: float = 3.0
) -> None:
    """Errors are at most thrice the plain twin's in the same dtype, both against float64."""
    rule = trapezoid(knots, t_max)
    pull = torch.randn(*x.shape[:-2], x.shape[-1], 2 * knots, dtype=torch.float64)
    truth = sums_and_pull(x.double(), rule, mask, pull, "reference")
    twin = sums_and_pull(x, rule, mask, pull, "reference")
    ours = sums_and_pull(x, rule, mask, pull, backend)
    # The floor is for dtypes and sizes in which the twin happens to be exact.
    floor = 1e-15 if x.dtype == torch.float64 else EPS
    for mine, plain, exact in zip(ours, twin, truth, strict=True):
        assert error(mine, exact) <= 3 * error(plain, exact) + 4 * floor


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 3), (64, 5), (131, 129), (2, 33, 2), (3, 2, 17, 1)], ids=str
)
def test_odd_sizes(backend: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Sums and gradient are the twin's for any N, M and leading dims."""
    compare(1.5 * torch.randn(shape, dtype=dtype), backend)


@every_backend
@pytest.mark.parametrize("knots", [2, 3, 8, 9, 10, 16, 17, 18, 33, 40])
def test_any_number_of_knots(backend: str, knots: int) -> None:
    """K may lie on, before or behind the borders between centres."""
    dtype = torch.float64 if knots % 2 else torch.float32
    compare(torch.randn(40, 3, dtype=dtype), backend, knots)


@every_backend
def test_unround_spacing(backend: str) -> None:
    """A spacing that float32 cannot hold keeps float64 accuracy for float64 projections."""
    compare(torch.randn(40, 3, dtype=torch.float64), backend, knots=12, t_max=3.3)


@every_backend
def test_masks(backend: str) -> None:
    """A mask takes samples out of sums and gradient, a whole batch too."""
    mask = torch.rand(3, 70) > 0.4
    mask[1] = False
    compare(torch.randn(3, 70, 4, dtype=torch.float64), backend, mask=mask)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(backend: str, dtype: torch.dtype) -> None:
    """Half precision rounds the projections, not the sums of what they stand for."""
    x = torch.randn(300, 3).to(dtype)
    rule = trapezoid()
    sums, _ = sums_and_pull(x, rule, None, torch.ones(3, 34), backend)
    truth = torch.cat(reference.ecf_sums(x.double(), rule.t), -1)
    assert error(sums, truth) < 1e-6


@every_backend
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3, 1e5])
def test_any_magnitude(backend: str, scale: float) -> None:
    """Angles of many turns, and tiny ones, are as good as the twin's."""
    compare(scale * torch.randn(60, 4), backend)


@every_backend
def test_strides_do_not_matter_and_nothing_is_written(backend: str) -> None:
    """Transposed, expanded and strided views give the same bits; inputs stay as they were."""
    rule, pull = trapezoid(), torch.randn(5, 34)
    x = torch.randn(40, 5)
    kept = x.clone()
    expected = sums_and_pull(x, rule, None, pull, backend)
    wide = torch.randn(80, 15)
    wide[::2, ::3] = x
    for view in (x.T.contiguous().T, wide[::2, ::3]):
        assert not view.is_contiguous()
        for mine, plain in zip(
            sums_and_pull(view, rule, None, pull, backend), expected, strict=True
        ):
            assert torch.equal(mine, plain)
    row = torch.randn(1, 5)
    spread = sums_and_pull(row.expand(40, 5), rule, None, pull, backend)
    solid = sums_and_pull(row.repeat(40, 1), rule, None, pull, backend)
    assert torch.equal(spread[0], solid[0])
    assert torch.equal(x, kept)


@every_backend
def test_same_input_same_bits(backend: str) -> None:
    """Two runs agree in every bit, forward and backward."""
    x, rule, pull = torch.randn(500, 40), trapezoid(), torch.randn(40, 34)
    first = sums_and_pull(x, rule, None, pull, backend)
    second = sums_and_pull(x, rule, None, pull, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_backend
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter's numpy
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(backend: str, bad: float) -> None:
    """One bad projection spoils its direction's sums and no other's."""
    x = torch.randn(30, 3)
    x[7, 1] = bad
    sums, _ = sums_and_pull(x, trapezoid(), None, torch.ones(3, 34), backend)
    # Every knot but t = 0, whose cosine is 1 and sine 0 in some implementations.
    assert not torch.isfinite(sums[1, 1:17]).any()
    assert not torch.isfinite(sums[1, 18:]).any()
    assert torch.isfinite(sums[[0, 2]]).all()


@every_backend
def test_no_samples(backend: str) -> None:
    """An empty shard sums to zero and has an empty gradient."""
    for shape in ((0, 3), (2, 0, 3)):
        pull = torch.ones(*shape[:-2], 3, 34)
        sums, gradient = sums_and_pull(torch.zeros(shape), trapezoid(), None, pull, backend)
        assert torch.equal(sums, torch.zeros_like(sums))
        assert gradient.shape == shape


@every_backend
def test_more_samples_than_a_grid_axis(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N may exceed 65,535, the limit of a CUDA grid's second axis."""
    if backend == "triton" and not CUDA:
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._ROWS", 1024)
    # Few distinct values, so that the truth is a short sum.
    values = torch.tensor([[-1.3], [0.2], [0.9]])
    rule = trapezoid()
    n = 65_535 + 3
    sums, _ = sums_and_pull(values.repeat(n // 3, 1), rule, None, torch.ones(1, 34), backend)
    truth = torch.cat(reference.ecf_sums(values.double(), rule.t), -1) * (n // 3)
    assert error(sums, truth) < 5e-6


@every_backend
def test_offsets_beyond_31_bits(backend: str) -> None:
    """Elements more than 2³¹ from the first are found; memory between them is never touched."""
    stride = 2**30 + 1
    flat = torch.empty(2 * stride + 8, dtype=torch.float16, device=device_of(backend))
    x = flat.as_strided((3, 4), (stride, 1))
    x.copy_(torch.randn(3, 4))
    rule = trapezoid()
    sums = torch.cat(ecf_sums(x, rule, backend=backend), -1).double().cpu()
    truth = torch.cat(reference.ecf_sums(x.double().cpu(), rule.t), -1)
    assert error(sums, truth) < 1e-6


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
                leaf, a, trapezoid(), mask=mask, scale_by_n=scale_by_n, backend=name, chunk=size
            )
            (3 * loss).backward()
            assert leaf.grad is not None
            results.append((loss.detach(), leaf.grad))
        (loss, gradient), (fused_loss, fused_gradient) = results
        assert float((loss - fused_loss).abs() / loss) < tolerance
        assert error(fused_gradient, gradient) < tolerance
        with torch.no_grad():
            silent = sigreg_loss(
                z, a, trapezoid(), mask=mask, scale_by_n=scale_by_n, backend=backend
            )
        torch.testing.assert_close(silent, fused_loss, rtol=1e-6, atol=0)


@every_backend
@pytest.mark.parametrize("shape", [(4, 128, 48), (2, 60, 16)], ids=str)
def test_the_gradient_is_as_exact_as_the_published_formulas(
    backend: str, shape: tuple[int, ...]
) -> None:
    """In float32 the gradient errs at most twice as much as that of the plain formula."""
    z = torch.randn(shape, dtype=torch.float64)
    a = random_directions(64, shape[-1], seed=0, step=0)

    def gradient(backend: str, dtype: torch.dtype) -> Tensor:
        leaf = z.to(device_of(backend), dtype).requires_grad_()
        loss = sigreg_loss(leaf, a.to(leaf), trapezoid(), backend=backend)
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
    loss = sigreg_loss(z, a, trapezoid(), backend=backend)
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()
    cos, sin = ecf_sums(z @ a.T, trapezoid(), backend=backend)
    (gradient,) = torch.autograd.grad((cos + sin).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_the_reference_has_a_second_derivative() -> None:
    """The plain path can be differentiated twice, as gradcheck confirms."""
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    a = random_directions(4, 3, seed=0, step=0).double()

    def loss(z: Tensor) -> Tensor:
        return sigreg_loss(z, a, trapezoid(5), backend="reference")

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


@every_backend
def test_more_samples_than_a_tile(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that fill several tiles or programs add up to the same sums."""
    if backend == "cpu":
        monkeypatch.setattr("sigreg._kernels.ecf_cpu._TILE", 32)
        monkeypatch.setattr("sigreg._kernels.ecf_cpu.MAX_SAMPLES", 32)
    else:
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._PROGRAMS_PER_SM", 64)
        monkeypatch.setattr("sigreg._kernels.ecf_triton.launch._MIN_SAMPLES", 16)
    compare(torch.randn(2, 83, 3), backend, mask=torch.rand(2, 83) > 0.5)
    z = torch.randn(83, 6, device=device_of(backend), requires_grad=True)
    a = random_directions(9, 6, seed=0, step=0, device=z.device)
    losses = [sigreg_loss(z, a, trapezoid(), backend=name) for name in ("reference", backend)]
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
        loss = sigreg_loss(z, a, trapezoid(), mask=mask, backend=backend)
        results.append((loss.detach(), torch.autograd.grad(loss, z)[0]))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.skipif(CUDA, reason="there is a GPU")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter needs none")
def test_triton_without_a_gpu_is_an_error() -> None:
    """A backend that was asked for is never replaced in silence."""
    with pytest.raises(ValueError, match="needs a tensor on a GPU, got one on cpu"):
        ecf_sums(torch.zeros(3, 2), trapezoid(), backend="triton")
