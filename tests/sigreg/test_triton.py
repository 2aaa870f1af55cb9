"""What the Triton kernels promise beside the loss: exact products, ranks, draws, replays."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from sigreg import Directions, SIGReg, sigreg_loss, trapezoid_rule
from sigreg._kernels.contract import Problem, finish
from sigreg._kernels.ops import draw_on_gpu
from sigreg.directions import SAMPLERS, Sketch, draw, gaussian_rows
from sigreg.reference import ecf_sums

from .backends import CUDA, WHY_NOT

pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    *([pytest.mark.gpu] if CUDA else []),
]
DEVICE = "cuda" if CUDA else "cpu"


def host_code() -> ModuleType:
    """What launches the kernels; importing it imports triton."""
    from sigreg._kernels.ecf_triton import launch

    return launch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_parts_of_a_number_add_up_to_it(dtype: torch.dtype) -> None:
    """A product with the identity gives its factor back to the last bit, whatever its size."""
    module = host_code()
    a = torch.randn(130, 64, device=DEVICE) * 10 ** torch.empty(130, 64, device=DEVICE).uniform_(
        -4, 4
    )
    a = a.to(dtype)
    identity = torch.eye(64, dtype=torch.bfloat16, device=DEVICE)
    found = module.product(a, identity, torch.empty(130, 64, device=DEVICE))
    assert torch.equal(found, a.float())
    assert torch.equal(module.product(a, identity, found.clone(), add=True), 2 * a.float())


def test_a_product_errs_like_one_in_float32() -> None:
    """Against float64 it is at most half as far again off as torch's float32 product."""
    module = host_code()
    a = torch.randn(70, 320, device=DEVICE)
    b = torch.randn(48, 320, device=DEVICE).bfloat16().T
    exact = a.double() @ b.double()
    found = module.product(a, b, torch.empty(70, 48, device=DEVICE))
    plain = float((a @ b.float() - exact).norm())
    assert float((found - exact).norm()) < 1.5 * plain


@pytest.mark.parametrize("knots", [9, 17, 40])
def test_the_finish_is_its_twin_on_any_number_of_ranks(
    knots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From sums and sizes of three ranks come the contract's loss, and its gradient times three."""
    launch = host_code()
    for module in ("sigreg._kernels.contract", "sigreg._kernels.ecf_triton.launch"):
        monkeypatch.setattr(f"{module}.whereabouts", lambda _: (3, 1))
    z = torch.randn(2, 50, 5, dtype=torch.float64, device=DEVICE)
    rule = trapezoid_rule(knots).to(z)
    axes = Directions(torch.eye(5, dtype=z.dtype, device=DEVICE))
    shares = torch.rand(2, 50, dtype=z.dtype, device=DEVICE)
    problem = Problem(z, axes, shares, rule, True, 0, "", True, False)
    others = 3.1  # times this rank's own samples
    total, squares = (others * size for size in problem.own_sizes())

    leaf = z.clone().requires_grad_()
    sums = torch.cat(ecf_sums(leaf, rule.t, shares), -1)
    loss, slope = finish(others * sums.detach(), total, squares, problem)
    (gradient,) = torch.autograd.grad(sums, leaf, slope)

    ours = others * launch._sums(z, axes, problem)
    parts, weights = launch._finish(ours, axes, (total, squares), 5, problem)
    pull = launch._pull(z.clone(), axes, weights, problem)
    torch.testing.assert_close(parts.sum(), loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(pull, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_gpu_draws_the_same_directions(sampler: str) -> None:
    """What the operator runs for CUDA gives the CPU's rows and scales to the last bit."""
    orthogonal = sampler == "orthogonal"
    for num, dim, seed, step in ((5, 1, 0, 0), (9, 7, 9, 2**40), (40, 24, -3, 5)):
        theirs = draw(gaussian_rows(num, dim, seed, torch.tensor(step)), orthogonal)
        ours = draw_on_gpu(torch.tensor(step, device=DEVICE), num, dim, seed, orthogonal)
        for mine, exact in zip(ours, theirs, strict=True):
            assert torch.equal(mine.cpu(), exact)


def test_a_replayed_recording_trains() -> None:
    """Operators recorded once in training mode draw anew at every replay, as eager calls do."""
    eager, recorded = (SIGReg(num_proj=20, backend="triton").to(DEVICE) for _ in range(2))
    x = torch.randn(30, 6, device=DEVICE)

    def step(x: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        loss: Tensor = torch.func.functional_call(recorded, buffers, (x,))
        return loss

    buffers = dict(recorded.named_buffers())
    recording = make_fx(step)(x, {name: part.clone() for name, part in buffers.items()})
    losses = [(recording(x, buffers), eager(x)) for _ in range(3)]
    assert all(torch.equal(ours, theirs) for ours, theirs in losses)
    assert len({float(ours) for ours, _ in losses}) == 3
    assert int(buffers["step"]) == 3


def test_the_products_are_counted() -> None:
    """After a first call torch's counter of operations finds both products with the directions."""
    layer = SIGReg(num_proj=32, backend="triton").to(DEVICE)
    x = torch.randn(2, 20, 16, device=DEVICE, requires_grad=True)
    layer(x)
    with FlopCounterMode(display=False) as counter:
        layer(x).backward()
    assert counter.get_total_flops() == 2 * (2 * 2 * 20 * 16 * 32)


def test_half_precision_samples_are_projected_as_they_are() -> None:
    """bfloat16 samples give the loss of the same numbers in float32, bit for bit."""
    a = Sketch(32, seed=3).draw(torch.empty(16, device=DEVICE))
    z = torch.randn(40, 16, device=DEVICE).bfloat16()
    losses = [sigreg_loss(part, a, trapezoid_rule(), backend="triton") for part in (z, z.float())]
    assert torch.equal(*losses)


def test_directions_by_the_block_are_the_same_directions() -> None:
    """Blocks that are no multiple of 16 give the loss and gradient of all at once."""
    layer = SIGReg(num_proj=40, backend="triton").to(DEVICE).eval()
    x = torch.randn(3, 40, 10, device=DEVICE, requires_grad=True)
    whole, blocks = loss_and_gradient(layer, x, None), loss_and_gradient(layer, x, 33)
    torch.testing.assert_close(blocks[0], whole[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(blocks[1], whole[1], rtol=1e-5, atol=1e-8)


def loss_and_gradient(layer: SIGReg, x: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
    """By that many directions at a time."""
    layer.chunk = chunk
    loss = layer(x)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def test_a_card_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older card multiplies in float32: the same loss and gradient, without tensor cores."""
    launch = host_code()
    layer = SIGReg(num_proj=40, backend="triton").to(DEVICE).eval()
    x = torch.randn(40, 10, device=DEVICE, requires_grad=True)
    new = loss_and_gradient(layer, x, None)
    monkeypatch.setattr(launch, "product", None)
    here = launch.card(x.device)
    monkeypatch.setattr(launch, "card", lambda _: here._replace(bfloat16=False))
    old = loss_and_gradient(layer, x, None)
    torch.testing.assert_close(old[0], new[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(old[1], new[1], rtol=1e-5, atol=1e-8)
