"""Subspace SIGReg: a Gaussian in every one of a few fixed subspaces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sigreg._arguments import check_samples, full_precision
from sigreg.directions import random_rotation

__all__ = ["SubspaceRegularizer"]


class SubspaceRegularizer(nn.Module):
    """A regularizer applied inside each of S fixed, mutually orthogonal subspaces.

        L(x) = mean_s regularizer(x B_sᵀ),   B_s [D / S, D] orthonormal rows

    The B_s are consecutive blocks of rows of one random rotation, so together they cover the
    space. The directions tested then lie in the subspaces instead of everywhere: the embedding is
    asked to be Gaussian in blocks, and dependence between blocks is left free. That suits worlds
    with few degrees of freedom, which cannot fill D dimensions with independent noise.

    Args:
        regularizer: any function [..., N, D / S] -> [] that averages over leading dims, as `SIGReg`
            does. All subspaces share the directions it draws.
        dim: D.
        num_subspaces: S, a divisor of D. Published: 32 for D = 192, 16 for Push-T, where 32
            did far worse.
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
        if num_subspaces < 1 or dim % num_subspaces:
            raise ValueError(f"num_subspaces must divide dim {dim}, got {num_subspaces}")
        self.regularizer = regularizer
        self.num_subspaces = num_subspaces
        self.seed = seed
        self.register_buffer("rotation", torch.empty(dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rotation of the seed again, for modules built on the meta device."""
        rotation = random_rotation(len(self.rotation), seed=self.seed)
        self.rotation = rotation.to(self.rotation.device)

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        check_samples(x, "x", at_least=0)
        dim = len(self.rotation)
        if x.shape[-1] != dim:
            raise ValueError(f"x must be [..., N, {dim}], got {list(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            blocks = (x @ self.rotation.to(x).mT).chunk(self.num_subspaces, -1)
            return self.regularizer(torch.stack(blocks, -3))
