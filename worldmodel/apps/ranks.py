"""The processes of one command: their ranks, their messages, and training on all of them.

torchrun, srun or mpirun starts them. A single process forms no process group.
"""

import atexit
import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.apps.machine import device_of
from worldmodel.layers import AdaLNBlock, ViTBlock
from worldmodel.loss import PLDMTerms

_MEETING = timedelta(minutes=5)  # for all processes to join
_PATIENCE = timedelta(days=7)  # for a message: a rank may simulate far longer than another
_WORDS = 64  # most bytes of a message in `gather`
# By launcher: the variables with the number of processes, the rank, the rank on the machine.
_LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "LOCAL_RANK"),  # torchrun
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
    ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),  # srun
)


class Launched(NamedTuple):
    """What a launcher's environment variables say."""

    rank: int = 0
    size: int = 1
    local: int = 0  #: rank among the processes of this machine
    host: str = "localhost"  #: machine of rank 0
    port: int = 29500  #: port on which rank 0 listens


def launched() -> Launched:
    """What torchrun, mpirun or srun says about this process; a single process without them.

    Raises: ValueError if the variables contradict each other, or srun did not start Slurm's tasks.
    """
    names = next((names for names in _LAUNCHERS if names[0] in os.environ), None)
    if names is None or (size := _number(names[0])) == 1:
        return Launched()
    if names[1] not in os.environ:
        raise ValueError(f"{names[0]} is {size}, but {names[1]} is not set: use a launcher")
    if (rank := _number(names[1])) >= size:
        raise ValueError(f"{names[1]} must be below {names[0]} = {size}, got {rank}")
    unstarted = "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ
    if names[0] == "SLURM_NTASKS" and unstarted:
        remedy = "put srun in front of the command, or WORLD_SIZE=1 for one process"
        told = f"Slurm granted {size} tasks, but srun did not start this process"
        raise ValueError(f"{told}: {remedy}")
    local = _number(names[2], _number("SLURM_LOCALID", rank))
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", ""))
    host = os.environ.get("MASTER_ADDR") or first_host(nodes)
    if not host and size > _number("OMPI_COMM_WORLD_LOCAL_SIZE", _number("MPI_LOCALNRANKS", size)):
        raise ValueError("MASTER_ADDR must name the machine of rank 0, it is not set")
    # Two Slurm jobs on one machine need different ports.
    number = _number("SLURM_JOB_ID", 14_500) + _number("SLURM_STEP_ID", 0)
    port = _number("MASTER_PORT", 15_000 + number % 20_000)
    return Launched(rank, size, local, host or "localhost", port)


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


class Ranks(NamedTuple):
    """The processes that share a command's work; rank 0 writes files and prints."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"  #: of this process

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def gather(self, words: str) -> list[str]:
        """Exchange short messages: those of every rank, in order; every rank must call it."""
        if self.size == 1:
            return [words]
        # Bytes, because torch's own function for objects unpickles them.
        said = words.encode()
        if len(said) > _WORDS:
            raise ValueError(f"words must have at most {_WORDS} bytes, got {len(said)}")
        mine = torch.frombuffer(bytearray(said.ljust(_WORDS, b"\0")), dtype=torch.uint8)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        torch.distributed.all_gather(rows, mine)
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in rows]

    def send(self, tensor: Tensor) -> None:
        """Send a CPU tensor to rank 0, and wait until rank 0 calls `receive` or has ended."""
        torch.distributed.send(tensor, 0)

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """Receive a tensor like `like` from a rank, into `like`."""
        torch.distributed.recv(like, rank)
        return like

    def mean(self, values: Tensor) -> Tensor:
        """Average of a tensor over the ranks, on the CPU if there are several; all must call it."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu() / self.size

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block on all ranks; if it fails on one of them, it fails on all.

        Raises: the error of the block on the lowest rank that failed; SystemExit on the others.
        """
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
    """Join the processes that a launcher started for this command, while the block runs.

    `device` is the setting; with several processes "cpu", or "cuda" for a GPU each. A process
    forms one group only: a block within another block uses the group of the outer one.

    Raises: ValueError if there is no such device, or the processes cannot share it; OSError if the
        others do not join within five minutes, or one of them ends before the block does.
    """
    rank, size, local, host, port = launched()
    if size > 1 and device != "cpu" and torch.cuda.is_available():
        # First of all, or each process would take memory of the first GPU.
        torch.cuda.set_device(local % torch.cuda.device_count())
    device = device_of(device)
    if size > 1 and device not in ("cpu", "cuda"):
        raise ValueError(f'--device must be "cpu" or "cuda" on {size} processes, got {device!r}')
    if size > 1 and device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"
    ranks = Ranks(rank, size, device)
    if size == 1 or torch.distributed.is_initialized():
        yield ranks
        return
    # At its import this module keeps the group there is, and its threads: import it before.
    import_module("torch.distributed.nn")
    from torch.distributed.rendezvous import rendezvous

    try:
        store, *_ = next(rendezvous(f"tcp://{host}:{port}", rank, size, timeout=_MEETING))
        store.set_timeout(_PATIENCE)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            store=store, rank=rank, world_size=size, timeout=_PATIENCE,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise OSError(
            f"{size} processes must meet at {host}:{port} within {_MEETING.seconds // 60} minutes, "
            f"and did not: {str(error).splitlines()[0]}"
        ) from error
    try:
        yield ranks
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "NCCL")):
            raise
        reason = str(error).splitlines()[0]
        raise OSError(
            f"one of the {size} processes ended, so rank {rank} ends too: {reason}"
        ) from error
    finally:
        atexit.register(_end_threads, [torch.distributed.group.WORLD])
        torch.distributed.destroy_process_group()


def _end_threads(groups: list[Any]) -> None:
    """Let go of groups, which joins gloo's threads, before Python ends.

    A thread that frees a tensor while Python ends aborts the process. A wrapped module is part of
    a cycle of references and shares the group, so the cycles go first.
    """
    gc.collect()
    groups.clear()


def blocks(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks in a module: what is gathered, or compiled, one at a time."""
    return [piece for piece in module.modules() if isinstance(piece, (ViTBlock, AdaLNBlock))]


def shared(module: nn.Module, ranks: Ranks, sharded: bool = False) -> nn.Module:
    """Wrap `module` so that its gradients are averaged over the ranks.

    Each rank holds all weights (DDP), or with `sharded` a part, gathered block by block (FSDP2).
    """
    device = torch.device(ranks.device)
    if not sharded:
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for piece in (*blocks(module), module):
        fully_shard(piece, mesh=mesh)
    return module


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; every rank must call it."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(value: Tensor, pattern: Tensor) -> Tensor:
    """This rank's part of a whole tensor, sharded like `pattern`, a parameter."""
    if type(pattern) in (Tensor, nn.Parameter):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(pattern, DTensor) or value.shape != pattern.shape:
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the default group; its gradient is summed over the ranks too."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Any:
        return _SumOverRanks.apply(gradient)  # type: ignore[no-untyped-call]


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm1d whose batch is that of all ranks together.

        y = (x − μ) / √(σ² + ε) · γ + β,   μ, σ² over the rows of every rank

    In training the moments of [N, C] are summed over the default group; every rank must call it
    equally often. Otherwise it is BatchNorm1d. Unlike SyncBatchNorm it runs on the CPU.

    Source: Ioffe & Szegedy, arXiv:1502.03167; moments by Chan, Golub & LeVeque (1979).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of x."""
        if not self.training or not _many():
            return super().forward(x)
        total: Callable[[Tensor], Tensor] = _SumOverRanks.apply
        # Reduced precision would lose the variance: moments are float32 at least, as in torch.
        wide = x if x.dtype == torch.float64 else x.float()
        first = total(torch.cat([wide.new_tensor([len(x)]), wide.sum(0)]))
        n, mean = first[0].detach(), first[1:] / first[0].detach()
        centred = wide - mean
        # Two passes: squares of centred values do not cancel.
        variance = total(centred.square().sum(0)) / n
        with torch.no_grad():
            unbiased = variance * (n / (n - 1).clamp_min(1))
            for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(value.to(running), self.momentum)  # type: ignore[union-attr,arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        out = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        return out.to(x.dtype)


class SharedPLDM(PLDMTerms):
    """PLDM's terms of a batch whose samples are those of all ranks together.

    Every rank must call it, with as many samples. Its gradient, averaged over the ranks, is that of
    one process. Without other ranks it is PLDMTerms.
    """

    def forward(self, z: Tensor, actions: Tensor | None = None) -> Tensor:
        """The terms of z [T, B, D] and actions [B, T, A] of each rank: []."""
        return super().forward(_of_all(z, 1), None if actions is None else _of_all(actions, 0))


def _of_all(value: Tensor, axis: int) -> Tensor:
    """The values of all ranks side by side, with a gradient."""
    if not _many():
        return value
    rows = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size())]
    rows[torch.distributed.get_rank()] = value
    return _SumOverRanks.apply(torch.cat(rows, axis))  # type: ignore[no-untyped-call]


def everyone() -> Any:
    """The group of all ranks, or "auto" for a single process, as SIGReg's argument `group`."""
    return torch.distributed.group.WORLD if _many() else "auto"


def _many() -> bool:
    it = torch.distributed
    return it.is_available() and it.is_initialized() and it.get_world_size() > 1


def synchronise(model: nn.Module) -> None:
    """Let every BatchNorm1d use the batch of all ranks, in place; TypeError for other norms."""
    for norm in model.modules():
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or type(norm) is SharedBatchNorm:
            continue
        if type(norm) is not nn.BatchNorm1d:
            raise TypeError(f"batch norms must be BatchNorm1d to be shared by ranks, got {norm}")
        if norm.momentum is None or not norm.affine or not norm.track_running_stats:
            rule = "must have momentum, weights and running values"
            raise TypeError(f"a batch norm to be shared {rule}, got {norm}")
        # The new class has no state of its own, so an existing optimizer keeps its tensors.
        norm.__class__ = SharedBatchNorm
