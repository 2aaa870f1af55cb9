"""What torch needs of a kernel to make an operator of it: a function, a gradient, a count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sigreg._kernels.contract import Answer, Problem
from sigreg.directions import Directions
from sigreg.quadrature import Quadrature

__all__ = ["flops", "function_of", "pull", "save_gradients"]


def function_of(kernels: Mapping[str, Callable[[Problem], Answer]]) -> Callable[..., Answer]:
    """The kernels' answers as a function of tensors and numbers alone."""

    def loss(
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
        rule = Quadrature(weight, weight, target, spacing)  # kernels need no t beside the spacing
        directions = Directions(rows, scale)
        problem = Problem(z, directions, shares, rule, scale_by_n, chunk, group, want_z, want_rows)
        return kernels[backend](problem)

    return loss


def save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """They were taken on the way forward."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    z, rows, *_, want_z, want_rows = inputs
    ctx.dtypes = (z.dtype if want_z else None, rows.dtype if want_rows else None)


def pull(ctx: Any, upstream: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    """Times what comes from above."""
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


def flops(z: Sequence[int], rows: Sequence[int], *rest: Any, **_: Any) -> int:
    """Of the products with the directions, as torch counts its own; the rest is not products."""
    products = 1 + sum(rest[-2:])  # and one for each gradient
    return int(2 * math.prod(z) * rows[0] * products)
