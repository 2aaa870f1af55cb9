"""The kernels as torch operators: eager, traced and compiled code see the same two functions.

`sigreg::loss` takes its gradient on the way forward, as soon as the sums are known, so that its
backward is one product with a number and nothing of the size of the projections outlives the call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sigreg._arguments import check_choice
from sigreg._kernels.contract import Answer, Problem
from sigreg.directions import Directions, directions_op, draw, gaussian_rows
from sigreg.quadrature import Quadrature

__all__ = ["BACKENDS", "choose_backend", "loss_op"]

# Found, not imported: `import sigreg` must work and stay light without it.
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def _cpu(problem: Problem) -> Answer:
    from sigreg._kernels import ecf_cpu

    return ecf_cpu.loss(problem)


def _cpp(problem: Problem) -> Answer:
    from sigreg._kernels import ecf_cpp

    return ecf_cpp.loss(problem)


def _triton(problem: Problem) -> Answer:
    from sigreg._kernels import ecf_triton

    return ecf_triton.loss(problem)


_KERNELS: dict[str, Callable[[Problem], Answer]] = {"cpu": _cpu, "cpp": _cpp, "triton": _triton}
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
def _(step: Tensor, num_proj: int, dim: int, seed: int, orthogonal: bool) -> tuple[Tensor, Tensor]:
    rows = gaussian_rows
    if _HAS_TRITON:
        from sigreg._kernels import ecf_triton

        rows = ecf_triton.gaussian_rows
    return draw(rows(num_proj, dim, seed, step), orthogonal)


@torch.library.custom_op("sigreg::loss", mutates_args=())
def loss_op(
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
