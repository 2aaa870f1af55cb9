"""The kernels as torch operators: eager, traced and compiled code see the same two functions.

`sigreg::loss` takes its gradient on the way forward, as soon as the sums are known, so that its
backward is one product with a number and nothing of the size of the projections outlives the call.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sigreg._arguments import check_choice
from sigreg._kernels.contract import Answer, Problem
from sigreg.directions import Directions, directions_op, draw, gaussian_rows
from sigreg.quadrature import Quadrature

__all__ = ["BACKENDS", "choose_backend", "draw_on_gpu", "loss_op", "loss_operator"]

# Found, not imported: `import sigreg` must work and stay light without it.
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def _cpu(problem: Problem) -> Answer:
    from sigreg._kernels import ecf_cpu

    return ecf_cpu.loss(problem)


def _triton(problem: Problem) -> Answer:
    from sigreg._kernels import ecf_triton

    return ecf_triton.loss(problem)


_KERNELS: dict[str, Callable[[Problem], Answer]] = {"cpu": _cpu, "triton": _triton}
BACKENDS = ("auto", "reference", *_KERNELS)


def choose_backend(backend: str, device: torch.device, rule: Quadrature) -> str:
    """The implementation that will run: "reference" or a kernel.

    "auto" is the fused kernel of the device, and the reference for knots that are not equally
    spaced from 0 and for devices without a kernel. A name that was asked for is never replaced.

    Raises: ValueError on an unknown name, or a kernel asked for that cannot do it.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        if rule.spacing is None:
            return "reference"
        if device.type == "cuda" and _HAS_TRITON:
            return "triton"
        return "cpu" if device.type == "cpu" else "reference"
    if backend != "reference" and rule.spacing is None:
        raise ValueError(
            f"backend={backend!r} needs a quadrature with equally spaced knots from 0 (its "
            "`spacing` is None); use 'auto' or 'reference'"
        )
    if backend == "triton" and not _HAS_TRITON:
        raise ValueError("backend='triton' needs the triton package, which is not installed")
    return backend


@directions_op.register_kernel("cuda")
def draw_on_gpu(
    step: Tensor, num_proj: int, dim: int, seed: int, orthogonal: bool
) -> tuple[Tensor, Tensor]:
    """`sigreg::directions` by one kernel where there is triton, to the same bits."""
    if not _HAS_TRITON:
        return draw(gaussian_rows(num_proj, dim, seed, step), orthogonal)
    from sigreg._kernels import ecf_triton

    rows, scale = ecf_triton.gaussian_directions(num_proj, dim, seed, step)
    return draw(rows, orthogonal) if orthogonal else (rows, scale)


def _loss(
    z: Tensor,
    rows: Tensor,
    scale: Tensor | None,
    shares: Tensor | None,
    weight: Tensor,
    target: Tensor,
    spacing: float,
    scale_by_n: bool,
    chunk: int,
    backend: str,
    group: str,
    want_z: bool,
    want_rows: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean statistic of z [G, N, D], and its gradients with respect to z and to the rows."""
    rule = Quadrature(weight, weight, target, spacing)  # kernels need no t beside the spacing
    directions = Directions(rows, scale)
    problem = Problem(z, directions, shares, rule, scale_by_n, chunk, group, want_z, want_rows)
    return _KERNELS[backend](problem)


loss_op = torch.library.custom_op("sigreg::loss", _loss, mutates_args=())


@loss_op.register_fake
def _(z: Tensor, rows: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight, want_z, want_rows = rest[2], *rest[-2:]
    return (
        weight.new_empty(()),
        weight.new_empty(z.shape if want_z else (0,)),
        weight.new_empty(rows.shape if want_rows else (0,)),
    )


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    z, rows, *_, want_z, want_rows = inputs
    ctx.dtypes = (z.dtype if want_z else None, rows.dtype if want_rows else None)


def _pull(ctx: Any, upstream: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    if any(gradient is not None for gradient in second):
        raise RuntimeError(
            "sigreg's fused kernels have no second derivative; use backend='reference' where a "
            "gradient of a gradient is needed"
        )
    grad_z, grad_rows = (
        None if upstream is None or dtype is None else (upstream * gradient).to(dtype)
        for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
    )
    return grad_z, grad_rows, *[None] * 11


loss_op.register_autograd(_pull, setup_context=_save_gradients)


@functools.cache
def _register_seen_through() -> None:
    operator: Any = torch.library.triton_op("sigreg::loss_triton", _loss, mutates_args=())
    operator.register_autograd(_pull, setup_context=_save_gradients)
    from torch.utils.flop_counter import register_flop_formula  # imports triton too

    register_flop_formula([torch.ops.sigreg.loss, torch.ops.sigreg.loss_triton])(_flops)


def _flops(z: Sequence[int], rows: Sequence[int], *rest: Any, **_: Any) -> int:
    """Of the products with the directions, as torch counts its own; the rest is not products."""
    products = 1 + sum(rest[-2:])  # and one for each gradient
    return int(2 * math.prod(z) * rows[0] * products)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_registered() -> bool:
    """True, and from then on there is `sigreg::loss_triton`; not before, for it imports triton."""
    _register_seen_through()
    return True


def loss_operator(backend: str, group: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """`sigreg::loss`; on one GPU its twin, whose kernels a compiler sees and launches itself."""
    if backend == "triton" and not group and _is_registered():
        seen: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.ops.sigreg.loss_triton
        return seen
    return loss_op
