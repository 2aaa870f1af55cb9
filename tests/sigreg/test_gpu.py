"""What only a GPU can show: the real kernels' accuracy, graphs, streams, cards, no waiting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid_rule

pytestmark = pytest.mark.gpu


def step(layer: SIGReg, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient."""
    loss = layer(x)
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.detach(), gradient


def samples(*shape: int) -> Tensor:
    """Of an anisotropic Gaussian, on the GPU."""
    x = torch.randn(shape, device="cuda") * torch.linspace(0.5, 2, shape[-1], device="cuda")
    return x.requires_grad_()


@pytest.mark.parametrize("shape", [(8192, 512), (4, 128, 192), (2, 1000, 100)], ids=str)
def test_the_gradient_errs_at_most_twice_as_much_as_eagers(shape: tuple[int, ...]) -> None:
    """Against float64, with drawn directions on tensor cores; eager multiplies in full float32."""
    torch.set_float32_matmul_precision("highest")
    x = samples(*shape)
    layer = SIGReg(num_proj=256, backend="triton").cuda().eval()
    a = random_directions(256, shape[-1], seed=0, step=0, device="cuda")
    found = {"triton": step(layer, x)[1]}
    for name, dtype in (("eager", torch.float32), ("exact", torch.float64)):
        leaf = x.detach().to(dtype).requires_grad_()
        loss = sigreg_loss(leaf, a.to(dtype), trapezoid_rule(), backend="reference", chunk=32)
        found[name] = torch.autograd.grad(loss, leaf)[0]
    error = {name: float((g.double() - found["exact"]).norm()) for name, g in found.items()}
    assert error["triton"] <= 2 * error["eager"]


def test_a_captured_training_step_replays() -> None:
    """A CUDA graph's replays draw anew, advance the step, and give the bits of eager calls."""
    x = samples(300, 64)
    eager, captured = (SIGReg(num_proj=100, backend="triton").cuda() for _ in range(2))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(captured, x)
    torch.cuda.current_stream().wait_stream(side)
    captured.step.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours = step(captured, x)
    for i in range(3):
        graph.replay()
        theirs = step(eager, x)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert int(captured.step) == i + 1


def test_nothing_waits_for_the_device() -> None:
    """Forward and backward, masked or not, never synchronise."""
    x = samples(300, 64)
    layer = SIGReg(num_proj=100).cuda()
    mask = torch.rand(300, device="cuda") > 0.5
    step(layer, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).backward()
        layer(x, mask=mask).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_card_of_the_samples_is_the_one_that_works() -> None:
    """With another card current, the kernels still run where the samples are."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = samples(300, 64)
    layer = SIGReg(num_proj=100, backend="triton").cuda().eval()
    here = step(layer, x)
    with torch.cuda.device(1):
        there = step(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_as_eager() -> None:
    """`torch.compile` launches the same kernels: the same loss and gradient."""
    x = samples(300, 64)
    eager, traced = (SIGReg(num_proj=100).cuda() for _ in range(2))
    compiled = torch.compile(traced, fullgraph=True)
    for _ in range(3):
        loss = compiled(x)
        (gradient,) = torch.autograd.grad(loss, x)
        expected = step(eager, x)
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(gradient, expected[1])


def test_auto_is_triton() -> None:
    """Without a name the layer takes the GPU's kernels, to the last bit."""
    x = samples(300, 64)
    a, b = (SIGReg(num_proj=100, backend=name).cuda() for name in ("auto", "triton"))
    assert all(torch.equal(p, q) for p, q in zip(step(a, x), step(b, x), strict=True))
