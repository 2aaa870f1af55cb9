"""The contract of a kernel: what it receives, what it returns, and how torch sees it.

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

# The loss [] in float32 (float64 for float64 z), and its gradients with respect to z [G, N, D] and
# the rows [M, D], contiguous, in the loss's dtype. A gradient nobody asked for has shape [0].
Answer = tuple[Tensor, Tensor, Tensor]


class Problem(NamedTuple):
    """One call of `sigreg::loss`."""

    z: Tensor  #: [G, N, D], any floating dtype and any strides, never written
    directions: Directions  #: bfloat16 rows with a scale, or unit rows in z's precision
    shares: Tensor | None  #: [G, N], at least 0, in the answer's precision; None means 1
    rule: Quadrature  #: in the answer's precision
    scale_by_n: bool  #: whether the statistic is multiplied by N
    chunk: int  #: directions projected at a time; 0: the kernel chooses
    group: str  #: name of the process group, "" for this process alone
    want_z: bool  #: whether to return the gradient with respect to z
    want_rows: bool  #: the same for the rows, whose scale is then None

    @property
    def spacing(self) -> float:
        assert self.rule.spacing is not None
        return self.rule.spacing

    def own_sizes(self) -> tuple[Tensor, Tensor]:
        """Σ share and Σ share² of this process's samples, [G] each."""
        groups, n, _ = self.z.shape
        if self.shares is None:
            size = self.rule.weight.new_full((groups,), n)
            return size, size
        return self.shares.sum(1), self.shares.square().sum(1)

    def over_ranks(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`sums` and the two sizes over all ranks; NaN if the ranks drew other directions."""
        drawn = self.group and self.directions.scale is not None
        mark = self.directions.mark() if drawn else None
        sums, total, squares = over_ranks([sums, *self.own_sizes()], mark, self.group)
        return sums, total, squares


def effective_size(total: Tensor, squares: Tensor, scale_by_n: bool) -> tuple[Tensor, Tensor]:
    """What to divide sums by to get means, and the factor N of the statistic.

    N is Kish's effective size (Σ share)² / Σ share². It equals the number of samples if all shares
    are equal, and it keeps the noise floor the same if they are not. An empty batch has N = 0.
    """
    some = total != 0
    divisor = torch.where(some, total, 1)
    n = total.square() / torch.where(some, squares, 1)
    return divisor, n if scale_by_n else n.sign()


def finish(sums: Tensor, total: Tensor, squares: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The loss [], and its derivative with respect to the sums [G, M, 2K] over all ranks."""
    groups, num, _ = sums.shape
    divisor, n = effective_size(total[:, None], squares[:, None], problem.scale_by_n)
    cos, sin = (sums / divisor[..., None]).chunk(2, -1)
    loss = epps_pulley(cos, sin, n, problem.rule).mean()
    # The derivative of Σ weight ((cos − target)² + sin²). DDP and FSDP divide by the ranks.
    ranks, _ = whereabouts(problem.group)
    slope = 2 * problem.rule.weight * (n * (ranks / (groups * num)) / divisor).unsqueeze(-1)
    return loss, torch.cat((slope * (cos - problem.rule.target), slope * sin), -1)


def operator_of(make: Any, name: str, kernels: Mapping[str, Callable[[Problem], Answer]]) -> Any:
    """The kernels as one operator, which `custom_op` or `triton_op` of torch.library makes."""

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

    operator = make(name, loss, mutates_args=())
    operator.register_autograd(_pull, setup_context=_save_gradients)
    return operator


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    z, rows, *_, want_z, want_rows = inputs
    ctx.dtypes = (z.dtype if want_z else None, rows.dtype if want_rows else None)


def _pull(ctx: Any, upstream: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    """The backward pass: scale the gradients by the upstream gradient."""
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
    """Floating-point operations of the matrix products with the directions."""
    products = 1 + sum(rest[-2:])  # the projections, and one product for each gradient
    return int(2 * math.prod(z) * rows[0] * products)
