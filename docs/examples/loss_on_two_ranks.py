"""SIGReg on two ranks.

Two gloo processes hold uneven parts of one batch, 96 and 32 samples. DDP averages their gradients.
The result is the gradient of one process that holds all 128.
"""

from __future__ import annotations

import os
import sys
import tempfile

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sigreg import SIGReg, check_distributed

PARTS = (96, 32)


def gradient(encoder: torch.nn.Module, x: torch.Tensor, *, ranks: bool) -> torch.Tensor:
    """The gradient of the loss with respect to the encoder's weights."""
    regularizer = SIGReg(seed=0)
    if ranks:
        check_distributed(regularizer)  # raises if the ranks are set up differently
    regularizer(encoder(x)).backward()
    (weight,) = (p.grad for p in encoder.parameters())
    assert weight is not None
    return weight


def main(rank: int, meeting_point: str) -> None:
    """One rank: compute the gradient on its part and compare it with that of the whole batch."""
    store = dist.FileStore(meeting_point, len(PARTS))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(PARTS))
    torch.manual_seed(0)  # the same encoder and the same batch everywhere
    encoder, batch = torch.nn.Linear(32, 64, bias=False), torch.randn(sum(PARTS), 32)
    mine = batch.split(PARTS)[rank]
    found = gradient(DistributedDataParallel(encoder), mine, ranks=True).clone()
    dist.destroy_process_group()

    encoder.zero_grad()
    whole = gradient(encoder, batch, ranks=False)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    if rank == 0:
        print("Two ranks have the gradient of one process with all samples.")
        sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, args=(f"{folder}/meet",), nprocs=len(PARTS))
