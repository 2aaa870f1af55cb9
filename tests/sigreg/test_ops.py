"""The kernels as torch operators: traced, compiled, and honest about what they do to inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid_rule
from sigreg._kernels.ops import loss_op
from sigreg.directions import Sketch, directions_op

from .backends import ON_CPU

RULE = trapezoid_rule()


def loss_arguments(
    *, want_gradient: bool, mask: bool, drawn: bool, chunk: int, strided: bool
) -> tuple[object, ...]:
    """A call of `sigreg::loss`."""
    groups = 1 if strided else 2  # one, or flattening would copy
    z = torch.randn(groups, 6, 20).mT if strided else torch.randn(groups, 20, 6)
    z.requires_grad_(want_gradient)
    if drawn:
        rows, scale = Sketch(9).draw(z.detach())
    else:
        rows, scale = random_directions(9, 6, seed=0, step=0).T.contiguous().T, None
        rows.requires_grad_(want_gradient)
    shares = torch.rand(groups, 20) if mask else None
    weight, target = RULE.weight.float(), RULE.target.float()
    wanted = want_gradient, want_gradient and not drawn
    return z, rows, scale, shares, weight, target, RULE.spacing, "cpu", True, chunk, "", *wanted


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("want_gradient", [False, True])
def test_the_loss_operator_is_what_it_declares(
    mask: bool, drawn: bool, strided: bool, want_gradient: bool, chunk: int
) -> None:
    """Schema, aliasing, mutation, shapes and strides are as registered."""
    arguments = loss_arguments(
        want_gradient=want_gradient, mask=mask, drawn=drawn, chunk=chunk, strided=strided
    )
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(loss_op, arguments, test_utils=tests)
    with FakeTensorMode(allow_non_fake_inputs=True):
        promised = loss_op(*arguments)
    for real, fake in zip(loss_op(*arguments), promised, strict=True):
        assert (real.shape, real.stride(), real.dtype) == (fake.shape, fake.stride(), fake.dtype)


def test_the_directions_operator_is_what_it_declares() -> None:
    """It passes every check torch has, dynamic shapes included."""
    torch.library.opcheck(directions_op, (torch.tensor(3), 5, 4, 7, False))
    torch.library.opcheck(directions_op, (torch.tensor(3), 5, 4, 7, True))


class Step(nn.Module):
    """An encoder and its regularizer, as a training step holds them."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.regularizer = SIGReg(num_proj=8, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """[]."""
        loss: Tensor = self.regularizer(self.encoder(x))
        return loss


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("autocast", [False, True])
def test_one_graph(backend: str, autocast: bool) -> None:
    """Traced as a single graph, loss, gradient and step counter are those of eager code."""
    torch.compiler.reset()
    eager, traced = Step(backend), Step(backend)
    traced.load_state_dict(eager.state_dict())
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    for n in (20, 20, 21):
        x = torch.randn(2, n, 6)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = eager(x), compiled(x)
        torch.testing.assert_close(losses[1], losses[0])
        for loss in losses:
            loss.backward()
    assert eager.regularizer.step == traced.regularizer.step == 3
    # A compiler runs a traced backward under the autocast of the forward around it, so only the
    # fused loss, which has its gradient when the forward ends, keeps it in float32.
    rtol = 0.1 if autocast and backend == "reference" else 1e-4
    for a, b in zip(eager.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=rtol, atol=rtol / 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_generated_code() -> None:
    """Generated code computes the loss and the gradient that eager code computes."""
    torch.compiler.reset()
    eager, traced = Step("cpu"), Step("cpu")
    traced.load_state_dict(eager.state_dict())
    compiled = torch.compile(traced, fullgraph=True)
    for _ in range(2):
        x = torch.randn(2, 20, 6, requires_grad=True)
        ours, theirs = compiled(x), eager(x)
        torch.testing.assert_close(ours, theirs)
        mine, other = torch.autograd.grad(ours, x)[0], torch.autograd.grad(theirs, x)[0]
        torch.testing.assert_close(mine, other)


def test_inputs_are_not_written() -> None:
    """Samples, mask and directions are the same after forward and backward."""
    x = torch.randn(2, 20, 6, requires_grad=True)
    mask, a = torch.rand(2, 20) > 0.5, random_directions(9, 6, seed=0, step=0)
    kept = [t.detach().clone() for t in (x, mask, a)]
    SIGReg()(x, mask=mask, directions=a).backward()
    for before, after in zip(kept, (x, mask, a), strict=True):
        assert torch.equal(before, after)


def test_a_graph_may_be_walked_twice() -> None:
    """With retain_graph a second backward adds the same gradient again, scaled by its upstream."""
    x = torch.randn(20, 6, requires_grad=True)
    loss = SIGReg(num_proj=8)(x)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(2 * loss, x)
    torch.testing.assert_close(second, 2 * first)


def test_transposed_samples() -> None:
    """Non-contiguous samples give the same bits as their copies."""
    x = torch.randn(20, 3, 6, dtype=torch.float64)
    a = random_directions(9, 6, seed=0, step=0)
    view = x.transpose(0, 1).requires_grad_()
    copy = view.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    layer = SIGReg()
    losses = [layer(t, directions=a) for t in (view, copy)]
    assert torch.equal(*losses)
    pulls = [torch.autograd.grad(loss, t)[0] for loss, t in zip(losses, (view, copy), strict=True)]
    assert torch.equal(*pulls)


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors alive at once inside a call, as the benchmarks count them."""
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import harness

    return int(harness.peak_memory(call))


@pytest.mark.parametrize("shape", [(4, 128, 192), (8, 512, 64), (1, 20_000, 16)], ids=str)
def test_memory_is_bounded_by_the_projections(shape: tuple[int, ...]) -> None:
    """Forward and backward together take at most three times the projections, and chunks less."""
    x = torch.randn(shape, requires_grad=True)
    projections = 4 * shape[0] * shape[1] * 1024
    layer = SIGReg(num_proj=1024)
    assert peak_bytes(lambda: layer(x).backward()) < 3 * projections
    small = SIGReg(num_proj=1024, chunk=64)
    assert peak_bytes(lambda: small(x).backward()) <= peak_bytes(lambda: layer(x).backward())


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("backend", ON_CPU)
def test_chunk_bounds_memory(backend: str, learned: bool) -> None:
    """Few directions at a time take less memory, also in the reference and with learned ones."""
    x = torch.randn(2, 512, 32, requires_grad=True)
    a = random_directions(512, 32, seed=0, step=0).requires_grad_(learned)

    def peak(chunk: int) -> int:
        return peak_bytes(lambda: sigreg_loss(x, a, RULE, backend=backend, chunk=chunk).backward())

    # A kernel has a working set beside the projections.
    assert peak(32) < (0.1 if backend == "reference" else 1) * peak(512)
