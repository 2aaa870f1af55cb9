"""The kernels as torch operators: eager, traced and compiled code see the same two functions.

`sigreg::ecf_sums` is the contract of the kernels with a gradient. `sigreg::loss` goes further: it
takes the gradient on the way forward, as soon as the sums are known, so that its backward is one
product with a number and nothing of the size of the projections outlives the call.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sigreg._distributed import resolve, sum_over_ranks, world_size
from sigreg._kernels import ecf_cpu
from sigreg.directions import directions_op, draw, gaussian_rows

__all__ = ["HAS_TRITON", "ecf_sums_op", "loss_op"]

# Found, not imported: `import sigreg` must work and stay light without it.
HAS_TRITON = importlib.util.find_spec("triton") is not None

_NO_SECOND = (
    "sigreg's fused kernels have no second derivative; use backend='reference' where a gradient "
    "of a gradient is needed"
)


def _kernel(backend: str) -> ModuleType:
    return importlib.import_module(f"sigreg._kernels.ecf_{backend}")


@directions_op.register_kernel("cuda")
def _(step: Tensor, num: int, dim: int, seed: int, orthogonal: bool) -> Tensor:
    rows = _kernel("triton").gaussian_rows if HAS_TRITON else gaussian_rows
    return draw(rows, num, dim, seed, step, orthogonal)


@torch.library.custom_op("sigreg::ecf_sums", mutates_args=())
def ecf_sums_op(
    x: Tensor, mask: Tensor | None, num_knots: int, spacing: float, backend: str
) -> Tensor:
    """[B, M, 2K] sums of cosines and sines of x [B, N, M]."""
    sums: Tensor = _kernel(backend).sums(x, mask, num_knots, spacing)
    return sums


@torch.library.custom_op("sigreg::ecf_sums_gradient", mutates_args=())
def _ecf_sums_gradient_op(
    x: Tensor, mask: Tensor | None, gradient: Tensor, spacing: float, backend: str
) -> Tensor:
    out = torch.empty_like(x)
    _kernel(backend).sums_gradient(x, mask, gradient, spacing, out)
    return out


@ecf_sums_op.register_fake
def _(x: Tensor, _mask: Tensor | None, num_knots: int, _spacing: float, _backend: str) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(x.shape[0], x.shape[2], 2 * num_knots, dtype=dtype)


@_ecf_sums_gradient_op.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _save_x(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, mask, _, ctx.spacing, ctx.backend = inputs
    ctx.save_for_backward(x, mask)


def _pull_sums(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, mask = ctx.saved_tensors
    grad_x = _ecf_sums_gradient_op(x, mask, gradient.contiguous(), ctx.spacing, ctx.backend)
    return grad_x, None, None, None, None


def _refuse(_ctx: Any, *_gradients: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError(_NO_SECOND)


ecf_sums_op.register_autograd(_pull_sums, setup_context=_save_x)
_ecf_sums_gradient_op.register_autograd(_refuse)


def _loss_in_two_phases(
    kernel: ModuleType,
    z: Tensor,
    directions: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    target: Tensor,
    spacing: float,
    scale_by_n: bool,
    chunk: int,
    group: str,
    want_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Sums of all directions, then one message between ranks, then the gradient."""
    groups, n, _ = z.shape
    num, num_knots = directions.shape[0], weight.numel()
    ranks = resolve(group)
    blocks = torch.split(directions, chunk or num)
    x = z.new_empty(0)
    parts = []
    for a in blocks:
        x = kernel.project(z, a)
        parts.append(kernel.sums(x, mask, num_knots, spacing))
    sums = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    count = z.new_full((groups,), n) if mask is None else mask.sum(1)
    if ranks is not None:
        packed = sum_over_ranks(torch.cat((sums.flatten(1), count[:, None]), 1), ranks)
        sums, count = packed[:, :-1].view_as(sums).contiguous(), packed[:, -1].contiguous()
    loss, pulls = kernel.finish(sums, count, weight, target, scale_by_n, world_size(ranks))
    if not want_gradient:
        return loss, z.new_empty(0)
    gradient = torch.zeros_like(z, memory_format=torch.contiguous_format)
    for a, pull in zip(blocks, torch.split(pulls, chunk or num, 1), strict=True):
        if len(blocks) > 1:
            x = kernel.project(z, a)
        # The last use of x: its gradient may take its place.
        gradient += kernel.sums_gradient(x, mask, pull.contiguous(), spacing, x) @ a
    return loss, gradient


@torch.library.custom_op("sigreg::loss", mutates_args=())
def loss_op(
    z: Tensor,
    directions: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    target: Tensor,
    spacing: float,
    scale_by_n: bool,
    chunk: int,
    backend: str,
    group: str,
    want_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Mean statistic of z [G, N, D], and its gradient (empty unless wanted)."""
    if want_gradient and not group and backend == "cpu" and 0 < z.shape[1] <= ecf_cpu.MAX_SAMPLES:
        return ecf_cpu.loss_and_gradient(
            z, directions, mask, weight, target, spacing, scale_by_n, chunk
        )
    return _loss_in_two_phases(
        _kernel(backend),
        z,
        directions,
        mask,
        weight,
        target,
        spacing,
        scale_by_n,
        chunk,
        group,
        want_gradient,
    )


@loss_op.register_fake
def _(z: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    want_gradient = rest[-1]
    return z.new_empty(()), z.new_empty(z.shape if want_gradient else (0,))


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG001
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _pull_loss(
    ctx: Any, upstream: Tensor | None, second: Tensor | None
) -> tuple[Tensor | None, ...]:
    if second is not None:
        raise RuntimeError(_NO_SECOND)
    (gradient,) = ctx.saved_tensors
    return (None if upstream is None else upstream * gradient, *[None] * 10)


loss_op.register_autograd(_pull_loss, setup_context=_save_gradient)
