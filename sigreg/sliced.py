"""Any one-dimensional test as a regularizer of embeddings: project, test, average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sigreg._arguments import check_directions, check_samples, full_precision
from sigreg.directions import Sketch

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
    check_samples(z)
    check_directions(directions, z)
    # Sorting and squaring lose what bfloat16 has to spare: float32 whatever autocast says.
    with torch.autocast(z.device.type, enabled=False):
        z = full_precision(z)
        return statistic(z @ directions.to(z).mT).mean()


class SlicedTest(Sketch):
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

    def __init__(
        self, statistic: Callable[[Tensor], Tensor], num_proj: int = 1024, *, seed: int = 0
    ) -> None:
        super().__init__(num_proj, seed=seed)
        self.statistic = statistic

    def forward(self, x: Tensor) -> Tensor:
        """The regularizer of x [..., N, D], a scalar."""
        return sliced_loss(x, self.draw(x).unit(), self.statistic)
