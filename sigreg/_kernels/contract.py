"""What a kernel is asked and answers, and what torch needs to make an operator of it.

Letters: G batches, N samples, D dims, M directions, K knots.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sigreg._distributed import over_ranks, whereabouts
from sigreg.directions import Directions
from sigreg.quadrature import Quadrature
from sigreg.reference import epps_pulley

# The loss [] in float32 (float64 for float64 z), and the gradients with respect to z [G, N, D] and
# to the rows [M, D], contiguous and in the loss's dtype; of shape [0] where not asked for.
Answer = tuple[Tensor, Tensor, Tensor]


class Problem(NamedTuple):
    """One call of `sigreg::loss`."""

    z: Tensor  #: [G, N, D], any floating dtype and any strides, never written
    directions: Directions  #: drawn, in bfloat16 with a scale, or unit rows in z's precision
    shares: Tensor | None  #: [G, N], not negative, in the answer's precision; None counts all once
    rule: Quadrature  #: in the answer's precision
    scale_by_n: bool  #: whether the statistic is multiplied by N
    chunk: int  #: directions projected at a time; 0 leaves it to the kernel
    group: str  #: name of the ranks that share the samples, "" for this process alone
    want_z: bool  #: whether the gradient with respect to z is asked for
    want_rows: bool  #: the same for the rows, whose scale is then None

    @property
    def spacing(self) -> float:
        """Δt of the rule."""
        assert self.rule.spacing is not None
        return self.rule.spacing

    def own_sizes(self) -> tuple[Tensor, Tensor]:
        """Σ share and Σ share², [G] each, of this process's samples."""
        groups, n, _ = self.z.shape
        if self.shares is None:
            size = self.rule.weight.new_full((groups,), n)
            return size, size
        return self.shares.sum(1), self.shares.square().sum(1)

    def over_ranks(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`sums`, of any shape, and the two sizes, over all ranks: NaN if they drew differently."""
        drawn = self.group and self.directions.scale is not None
        mark = self.directions.mark() if drawn else None
        sums, total, squares = over_ranks([sums, *self.own_sizes()], mark, self.group)
        return sums, total, squares


def effective_size(total: Tensor, squares: Tensor, scale_by_n: bool) -> tuple[Tensor, Tensor]:
    """What to divide sums by to get means, and the factor N of the statistic.

    N is Kish's effective size (Σ share)² / Σ share²: the number of samples if all count alike, and
    what keeps the noise floor where it is if they do not. No samples have N = 0.
    """
    some = total != 0
    divisor = torch.where(some, total, 1)
    n = total.square() / torch.where(some, squares, 1)
    return divisor, n if scale_by_n else n.sign()


def finish(sums: Tensor, total: Tensor, squares: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Loss [], and its derivative with respect to the sums [G, M, 2K], both over all ranks."""
    groups, num, _ = sums.shape
    divisor, n = effective_size(total[:, None], squares[:, None], problem.scale_by_n)
    cos, sin = (sums / divisor[..., None]).chunk(2, -1)
    loss = epps_pulley(cos, sin, n, problem.rule).mean()
    # Of the sum Σ weight ((cos − target)² + sin²). DDP and FSDP will divide by the number of ranks.
    ranks, _ = whereabouts(problem.group)
    slope = 2 * problem.rule.weight * (n * (ranks / (groups * num)) / divisor).unsqueeze(-1)
    return loss, torch.cat((slope * (cos - problem.rule.target), slope * sin), -1)


def function_of(kernels: Mapping[str, Callable[[Problem], Answer]]) -> Callable[..., Answer]:
    """The kernels' answers as a function of tensors and numbers alone, as an operator must be."""

    def loss(
        z: Tensor,
        rows: Tensor,
        scale: Tensor | None,
        shares: Tensor | None,
        weight: Tensor,
        target: Tensor,
        spacing: float,
        backend: str,
        scale_by_n: bool,
        chunk: int,
        group: str,
        want_z: bool,
        want_rows: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rule = Quadrature(weight, weight, target, spacing)  # kernels need no t beside the spacing
        directions = Directions(rows, scale)
        problem = Problem(z, directions, shares, rule, scale_by_n, chunk, group, want_z, want_rows)
        return kernels[backend](problem)

    return loss


def arguments(problem: Problem, backend: str) -> tuple[object, ...]:
    """What `function_of` makes a problem of."""
    z, directions, shares, rule, *rest = problem
    return z, *directions, shares, rule.weight, rule.target, problem.spacing, backend, *rest


def save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """They were taken on the way forward."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    z, rows, *_, want_z, want_rows = inputs
    ctx.dtypes = (z.dtype if want_z else None, rows.dtype if want_rows else None)


def pull(ctx: Any, upstream: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients times what comes from above."""
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
