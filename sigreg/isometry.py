"""A learned near-isometry between the embedding and its regularizer, dropped after training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sigreg._arguments import check_count, full_precision

__all__ = ["NearIsometry"]


class NearIsometry(nn.Module):
    """A regularizer of T(x), where T is learned, keeps distances nearly, and starts as identity.

        L(x) = regularizer(T x),   T = B_L ∘ … ∘ B_1,   B(x) = x + c V tanh(U x + b)
        (1 − c)^L ≤ |T x − T x′| / |x − x′| ≤ (1 + c)^L

    The embedding itself need not be Gaussian then, but only a gentle bending of it: what the
    prediction wants and what the regularizer wants pull less against each other, and a collapse
    stays impossible, for T can open none. U and V are divided by an upper bound of their spectral
    norms where that is above 1, so the inequality holds at every step of the training.

    T belongs to the loss: give its parameters to the optimizer, and leave it out of what is saved
    for use. One seed elsewhere: 84 against 64 % of Push-T goals after 20,000 steps; not run here.

    Args:
        regularizer: any function [..., N, D] -> [], as `SIGReg`.
        dim: D.
        depth: L, blocks. 2 as published.
        bend: c, in [0, 1). 0.2 as published: distances change by less than a factor 1.44.
        hidden: rows of U; None means D, as published.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Raises: ValueError if `dim`, `depth` or `hidden` is below 1, or `bend` outside [0, 1).
    Source: github.com/sige0002/bt-sigreg, bounded transport; its factors are Cayley rotations.
    """

    def __init__(
        self,
        regularizer: Callable[[Tensor], Tensor],
        dim: int,
        depth: int = 2,
        *,
        bend: float = 0.2,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        for name, value in (("dim", dim), ("depth", depth), ("hidden", hidden)):
            check_count(name, value)
        if not 0 <= bend < 1:
            raise ValueError(f"bend must be in [0, 1), got {bend}")
        self.regularizer = regularizer
        self.bend = bend
        self.inner = nn.Parameter(torch.empty(depth, hidden, dim))
        self.bias = nn.Parameter(torch.empty(depth, hidden))
        self.outer = nn.Parameter(torch.empty(depth, dim, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U of spectral norm about 1, b and V zero: T is the identity."""
        nn.init.normal_(self.inner, std=self.inner.shape[-1] ** -0.5 / 2)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.outer)

    def transport(self, x: Tensor) -> Tensor:
        """T x, [..., D], in float32 (float64 for float64 x) whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            inner, outer = _contract(self.inner.to(x)), _contract(self.outer.to(x))
            for u, b, v in zip(inner, self.bias.to(x), outer, strict=True):
                x = x + self.bend * (torch.tanh(x @ u.mT + b) @ v.mT)
            return x

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of T x, a scalar."""
        return self.regularizer(self.transport(x))


def _contract(weight: Tensor) -> Tensor:
    """Each matrix of [L, p, q] with a spectral norm of at most 1.

    ‖W‖ = ‖(WWᵀ)^{2^k}‖^{2^{−k−1}}, and the Frobenius norm is never below the spectral one: with
    k = 5 it is at most p^{1/128} above it.
    """
    power = weight @ weight.mT if weight.shape[1] <= weight.shape[2] else weight.mT @ weight
    # The grain of sand keeps the gradient of a norm finite at W = 0.
    power = power + 1e-12 * torch.eye(power.shape[-1], dtype=power.dtype, device=power.device)
    bound = torch.ones_like(power[:, :1, :1])
    for k in range(6):
        norm = torch.linalg.matrix_norm(power, keepdim=True)
        bound = bound * norm ** (0.5 ** (k + 1))
        power = power / norm
        power = power @ power
    return weight / bound.clamp(min=1)
