"""Regularizers of a map of the embedding: into a few fixed subspaces, or by a learned bending."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sigreg._arguments import (
    check_count,
    check_integer,
    check_kind,
    check_number,
    check_samples,
    full_precision,
)
from sigreg.directions import random_rotation

__all__ = ["NearIsometry", "SubspaceRegularizer"]


class SubspaceRegularizer(nn.Module):
    """A regularizer applied inside each of S fixed, mutually orthogonal subspaces.

        L(x) = mean_s regularizer(x B_sᵀ),   B_s [D / S, D] orthonormal rows

    The B_s are blocks of rows of one random rotation, which together cover the space. Dependence
    between blocks is left free. That suits worlds of few degrees of freedom, which cannot fill D
    dimensions with independent noise.

    Args:
        regularizer: any function [..., N, D / S] -> [] that averages over leading dims, as `SIGReg`
            does. All subspaces share the directions it draws.
        dim: D.
        num_subspaces: S, a divisor of D. Published: 32 for D = 192, but 16 for Push-T.
        seed: of the rotation, which is a buffer and saved with the state.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Raises: ValueError if S does not divide D or x has another width.
    Source: Sub-JEPA, arXiv:2605.09241.
    """

    rotation: Tensor

    def __init__(
        self,
        regularizer: Callable[[Tensor], Tensor],
        dim: int,
        num_subspaces: int,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_kind("regularizer", regularizer, callable)
        check_count("dim", dim)
        check_count("num_subspaces", num_subspaces)
        check_integer("seed", seed)
        if dim % num_subspaces:
            raise ValueError(f"num_subspaces must divide dim {dim}, got {num_subspaces}")
        self.regularizer, self.num_subspaces, self.seed = regularizer, num_subspaces, seed
        self.register_buffer("rotation", torch.empty(dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rotation of the seed again, for modules built on the meta device."""
        rotation = random_rotation(len(self.rotation), seed=self.seed)
        self.rotation = rotation.to(self.rotation.device)

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        check_samples(x, "x", at_least=0)
        _check_width(x, len(self.rotation))
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            blocks = (x @ self.rotation.to(x).mT).chunk(self.num_subspaces, -1)
            return self.regularizer(torch.stack(blocks, -3))


class NearIsometry(nn.Module):
    """A regularizer of T(x), where T is learned, keeps distances nearly, and starts as identity.

        L(x) = regularizer(T x),   T = B_L ∘ … ∘ B_1,   B(x) = x + c V tanh(U x + b)
        (1 − c)^L ≤ |T x − T x′| / |x − x′| ≤ (1 + c)^L

    Only a gentle bending of the embedding need be Gaussian then, so prediction and regularizer pull
    less against each other; and T can open no collapse. U and V are divided by an upper bound of
    their spectral norms where that is above 1, so the inequality holds at every step. T belongs to
    the loss: give its parameters to the optimizer, and leave it out of what is saved for use.
    One seed elsewhere: 84 against 64 % of Push-T goals after 20,000 steps; not run here.

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
        check_kind("regularizer", regularizer, callable)
        check_number("bend", bend, "[0, 1)")
        self.regularizer, self.bend = regularizer, bend
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
        _check_width(x, self.inner.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            inner, outer = _contract(self.inner.to(x)), _contract(self.outer.to(x))
            for u, b, v in zip(inner, self.bias.to(x), outer, strict=True):
                x = x + self.bend * (torch.tanh(x @ u.mT + b) @ v.mT)
            return x

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of T x, a scalar."""
        return self.regularizer(self.transport(x))


def _check_width(x: Tensor, dim: int) -> None:
    check_kind("x", x, Tensor)
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ValueError(f"x must be [..., {dim}], got {list(x.shape)}")


def _contract(weight: Tensor) -> Tensor:
    """Each matrix of [L, p, q] with a spectral norm of at most 1, just below it where it was above.

    ‖W‖ = ‖(WWᵀ)^{2^k}‖^{2^{−k−1}}: with k = 5 the Frobenius norm is at most p^{1/128} above it.
    """
    power = weight @ weight.mT if weight.shape[1] <= weight.shape[2] else weight.mT @ weight
    # A tiny diagonal keeps the gradient of a norm finite at W = 0.
    power = power + 1e-12 * torch.eye(power.shape[-1], dtype=power.dtype, device=power.device)
    bound = torch.ones_like(power[:, :1, :1])
    for k in range(6):
        norm = torch.linalg.matrix_norm(power, keepdim=True)
        bound = bound * norm ** (0.5 ** (k + 1))
        power = power / norm
        power = power @ power
    return weight / bound.clamp(min=1)
