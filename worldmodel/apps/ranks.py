"""The processes of one command: who they are, and how they wait, agree and share out work.

Started by torchrun, srun or mpirun. One process alone needs none of this, and no process group.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldmodel.apps.devices import device_of

__all__ = ["ALONE", "Launched", "Ranks", "joined", "launched"]

_MEETING = timedelta(minutes=5)  # for all processes to come together
_PATIENCE = timedelta(days=7)  # one rank may simulate far longer than another
_GROUPS = itertools.count()
# Who starts processes, by the variables that number them: all, this one, this one on its machine.
_LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),  # torchrun
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
    ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),  # srun
)


class Launched(NamedTuple):
    """What a launcher says in the environment.

    Attributes:
        rank: number of this process.
        size: how many there are.
        local: number of this process among those of its machine.
        host: machine of rank 0.
        port: where it listens.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    host: str = "localhost"
    port: int = 29500


def launched() -> Launched:
    """What torchrun, mpirun or srun says about this process; alone where none of them does.

    Raises: ValueError if the words do not agree, or Slurm granted several tasks to a process that
        srun did not start: it would wait for others that never come.
    """
    names = next((names for names in _LAUNCHERS if names[0] in os.environ), None)
    if names is None or (size := _number(names[0])) == 1:
        return Launched()
    if names[1] not in os.environ:
        raise ValueError(f"{names[0]} is {size}, but {names[1]} is not set: use a launcher")
    rank, slurm = _number(names[1]), names[0].startswith("SLURM")
    if not 0 <= rank < size:
        raise ValueError(f"{names[1]} must be below {names[0]} = {size}, got {rank}")
    if slurm and "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ:
        raise ValueError(
            f"Slurm granted {size} tasks, but srun did not start this process: put srun in front "
            "of the command, or WORLD_SIZE=1 for one process"
        )
    locals_ = [name for name in (names[2], "SLURM_LOCALID") if name in os.environ]
    local = _number(locals_[0]) if locals_ else rank
    nodes = [n for n in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
             if n in os.environ]  # fmt: skip
    host = os.environ.get("MASTER_ADDR") or (first_host(os.environ[nodes[0]]) if nodes else "")
    if not host and size > _number("OMPI_COMM_WORLD_LOCAL_SIZE", _number("MPI_LOCALNRANKS", size)):
        raise ValueError("MASTER_ADDR must name the machine of rank 0, it is not set")
    # Two jobs of Slurm on one machine must not meet.
    job = _number("SLURM_JOB_ID", 14_500) + _number("SLURM_STEP_ID", 0)
    return Launched(
        rank, size, local, host or "localhost", _number("MASTER_PORT", 15_000 + job % 20_000)
    )


def first_host(nodes: str) -> str:
    """The first machine of a list as Slurm writes it: "gpu[07-09,12],cpu1" -> "gpu07"."""
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", nodes)[0])


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return int(text)


@dataclass(frozen=True)
class Ranks:
    """The processes that share a command's work.

    Attributes:
        rank: which one this is; the first, 0, writes and speaks.
        size: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, num: int) -> range:
        """This rank's part of `num` things in a row; the parts differ by one at most."""
        return range(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Continue when every rank has come here."""
        self.gather("")

    def gather(self, words: str) -> list[str]:
        """The words of every rank, in order, on every rank; all must call it."""
        if self.size == 1:
            return [words]
        # Bytes, for torch's own way to gather objects unpickles them.
        mine = torch.frombuffer(bytearray(words.encode() + b"."), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        torch.distributed.all_gather(lengths, torch.tensor([len(mine)]))
        longest = max(int(length) for length in lengths)
        padded = torch.nn.functional.pad(mine, (0, longest - len(mine)))
        rows = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        torch.distributed.all_gather(rows, padded)
        return [
            bytes(row[: int(length) - 1].tolist()).decode()
            for row, length in zip(rows, lengths, strict=True)
        ]

    def send(self, tensor: Tensor) -> None:
        """Hand a tensor on the CPU to rank 0, and wait until it calls `receive`.

        Raises: OSError if rank 0 has ended.
        """
        self._pass(0, lambda: torch.distributed.send(tensor.contiguous(), 0))

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """What a rank sends, into a tensor of that shape and type.

        Raises: OSError if that rank has ended.
        """
        self._pass(rank, lambda: torch.distributed.recv(like, rank))
        return like

    def _pass(self, other: int, hand: Callable[[], object]) -> None:
        try:
            hand()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise OSError(f"rank {other} ended before its work was done: {reason}") from error

    def mean(self, values: Tensor) -> Tensor:
        """Average of a tensor over the ranks, on the CPU if there are several; all must call it."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu() / self.size

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block on all ranks; where it fails on one, it fails on all, and one says so.

        Raises: what the block raised, on the lowest rank where it did; SystemExit elsewhere.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except Exception:
            if "failed" not in self.gather("failed")[: self.rank]:
                raise
            raise SystemExit(2) from None
        if "failed" in self.gather(""):
            raise SystemExit(2)


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes of this command, if a launcher started some, for a block.

    Args:
        device: as the setting says; with several processes "cpu", or "cuda" for a GPU each.
    Yields: Ranks.
    Raises: ValueError if there is no such device, or the processes cannot share it; OSError if the
        others do not come within five minutes.
    """
    found = launched()
    if found.size == 1:
        yield Ranks(device=device_of(device))
        return
    device = device_of(device)
    if device not in ("cpu", "cuda"):
        raise ValueError(
            f'--device must be "cpu" or "cuda" on {found.size} processes, got {device!r}'
        )
    if device == "cuda":
        device = f"cuda:{found.local % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    _meet(found, device)
    try:
        yield Ranks(found.rank, found.size, device)
    finally:
        torch.distributed.destroy_process_group()


@functools.cache
def _store(found: Launched) -> Any:
    """Where the processes tell each other how to be reached; one for all groups they form."""
    from torch.distributed.rendezvous import rendezvous

    address = f"tcp://{found.host}:{found.port}"
    store, _, _ = next(rendezvous(address, found.rank, found.size, timeout=_MEETING))
    return store


def _meet(found: Launched, device: str) -> None:
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch's __all__ lacks it

    try:
        store = _store(found)
        store.set_timeout(_PATIENCE)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            # A group finds nothing of the one before it.
            store=PrefixStore(f"worldmodel/{next(_GROUPS)}", store),
            rank=found.rank,
            world_size=found.size,
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{found.size} processes must meet at {found.host}:{found.port} within "
            f"{_MEETING.seconds // 60} minutes, and did not: {reason}"
        ) from error
