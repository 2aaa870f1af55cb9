"""Any one-dimensional test as a regularizer of embeddings: project, test, average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sigreg.directions import random_directions

__all__ = ["SlicedTest", "sliced_loss"]


def sliced_loss(z: Tensor, directions: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of a one-dimensional statistic over projections of z.

        mean_m statistic(⟨a_m, z_1⟩, …, ⟨a_m, z_N⟩)

    A distribution is N(0, I) exactly if all its projections are N(0, 1) (Cramér & Wold), so any
    test of the latter becomes a test of the former.

    Args:
        z: [..., N, D]. Leading dims are separate batches, each tested alone.
        directions: [M, D], unit rows.
        statistic: [..., N, M] -> [..., M], for example `anderson_darling`.
    Returns: [], float32 (float64 for float64 z).
    Raises: ValueError on disagreeing shapes, TypeError on integers.
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    if not z.is_floating_point():
        raise TypeError(f"z must be floating point, got {z.dtype}")
    if z.ndim < 2 or z.shape[-2] == 0:
        raise ValueError(f"z must be [..., N, D] with N at least 1, got {list(z.shape)}")
    if directions.ndim != 2 or directions.shape[1] != z.shape[-1]:
        raise ValueError(
            f"directions must be [M, {z.shape[-1]}] to match z [..., {z.shape[-1]}], "
            f"got {list(directions.shape)}"
        )
    # Sorting and squaring lose what bfloat16 has to spare: float32 whatever autocast says.
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        return statistic(z @ directions.to(z).mT).mean()


class SlicedTest(nn.Module):
    """Regularizer from a one-dimensional test, with fresh directions at every training step.

        L(x) = mean_m statistic(x a_m),   m = 1..M random directions

    Stands wherever `SIGReg` stands. It sees this process's samples only: under data parallelism
    every rank tests its own shard.

    Args:
        statistic: [..., N, M] -> [..., M], for example `anderson_darling`.
        num_proj: M, directions. 1024 as `SIGReg`.
        seed: which sequence of directions.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """

    step: Tensor

    def __init__(
        self, statistic: Callable[[Tensor], Tensor], num_proj: int = 1024, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.statistic = statistic
        self.num_proj = num_proj
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        directions = random_directions(
            self.num_proj, x.shape[-1], seed=self.seed, step=self.step, device=x.device
        )
        if self.training:
            self.step += 1
        return sliced_loss(x, directions, self.statistic)
