"""Which windows make up each batch, and worker processes that fetch them ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from worldmodel.data.windows import Windows
from worldmodel.records import Batch

__all__ = ["BatchOrder", "loader"]


class BatchOrder(Sampler[Tensor]):
    """Window indices of every step, a pure function of (seed, step, rank).

    Each pass over the windows has an order of its own; the short rest of a pass is left out. A run
    that resumes at step n needs n and nothing else. The ranks of one step share the batch of a
    single process: rank r takes the r-th part.

    Args:
        num: number of windows.
        batch_size: windows per step, over all ranks.
        seed: of every pass.
        start: first step that iterating yields.
        stop: step to end before; None means never.
        rank: which part of each batch is ours.
        ranks: number of parts.
    Raises: ValueError if there are fewer windows than `batch_size`, or the ranks do not divide it.
    """

    def __init__(
        self,
        num: int,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 0 < batch_size <= num:
            raise ValueError(
                f"batch_size must be between 1 and the {num} windows, got {batch_size}"
            )
        if batch_size % ranks or not 0 <= rank < ranks:
            raise ValueError(
                f"batch_size must be a multiple of ranks, and rank one of them, "
                f"got {batch_size}, {ranks} and {rank}"
            )
        self.num, self.batch_size, self.seed = num, batch_size, seed
        self.start, self.stop, self.rank, self.ranks = start, stop, rank, ranks
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[Tensor]:
        step = self.start
        while self.stop is None or step < self.stop:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Tensor:
        """Indices of our part of the batch of `step`: [batch_size / ranks]."""
        turn, position = divmod(step, self.num // self.batch_size)
        if turn != self._pass:
            seed = (self.seed * 1_000_003 + turn) % 2**63
            generator = torch.Generator().manual_seed(seed)
            self._order, self._pass = torch.randperm(self.num, generator=generator), turn
        share = self.batch_size // self.ranks
        first = position * self.batch_size + self.rank * share
        return self._order[first : first + share]


def loader(
    windows: Windows, order: BatchOrder, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Batches of `windows` in `order`, fetched ahead by worker processes.

    Args:
        windows: Windows; with workers its episodes should read from disk, or be forked.
        order: BatchOrder.
        workers: processes; 0 fetches in this one.
        pin_memory: page-locked batches, for quick copies to a GPU.
    Returns: an iterable of Batch; frames from disk are channels-last in memory.
    """
    return DataLoader(
        windows,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        # Iterating draws a seed; a generator of its own leaves the global one untouched.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
