"""What two gloo processes do in `test_distributed`: each function returns plain results."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sigreg import (
    SIGReg,
    check_distributed,
    embedding_report,
    random_directions,
    scale_term,
    sigreg_loss,
    trapezoid_rule,
)

ON_CPU = ("cpu", "reference") if shutil.which("c++") is None else ("cpu", "cpp", "reference")
RANKS, DIM = 2, 6
RULE = trapezoid_rule()
# Gloo's tensors are on the CPU: under the interpreter alone can they meet these kernels.
INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton")
TRITON = "triton" if INTERPRETER else "cpu"
DIRECTIONS = random_directions(24, DIM, seed=0, step=0)


def batch(lead: tuple[int, ...] = (), n: int = 20) -> Tensor:
    """[*lead, n, DIM], the same everywhere."""
    rows = random_directions(max(1, n * torch.Size(lead).numel()), DIM, seed=1, step=n)
    return 3 * rows[: n * torch.Size(lead).numel()].view(*lead, n, DIM)


def shard(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """This rank's part of axis −2."""
    return x.split(sizes, -2)[dist.get_rank()]


def encoder() -> nn.Linear:
    """The same parameters everywhere."""
    torch.manual_seed(3)
    return nn.Linear(DIM, DIM)


def loss_and_gradient(model: nn.Module, loss: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the first parameter's gradient."""
    model.zero_grad()
    loss.backward()
    gradient = next(model.parameters()).grad
    assert gradient is not None
    return loss.detach(), gradient.clone()


def data_parallel(sizes: tuple[int, ...], lead: tuple[int, ...], **options: Any) -> list[Any]:
    """[(loss, gradient) of all samples in one process, the same under DDP]."""
    x = batch(lead, sum(sizes))
    shares = {}
    if options.pop("masked", False):
        shares["mask"] = x[..., 0] > -0.5
    if options.pop("weighted", False):
        shares["sample_weight"] = x[..., 1].square()
    single, ddp = encoder(), DistributedDataParallel(encoder())
    whole = sigreg_loss(single(x), DIRECTIONS, RULE, **shares, **options)
    mine = {name: share.split(sizes, -1)[dist.get_rank()] for name, share in shares.items()}
    part = sigreg_loss(ddp(shard(x, sizes)), DIRECTIONS, RULE, **mine, group="auto", **options)
    return [loss_and_gradient(single, whole), loss_and_gradient(ddp, part)]


def learned_directions() -> list[Tensor]:
    """Gradient of directions that all ranks share, alone and averaged over the ranks."""
    x, found = batch(), []
    for z, group in ((x, None), (shard(x, (13, 7)), "auto")):
        a = DIRECTIONS.clone().requires_grad_()
        sigreg_loss(z, a, RULE, group=group).backward()  # type: ignore[arg-type]
        assert a.grad is not None
        found.append(a.grad)
    dist.all_reduce(found[1])
    return [found[0], found[1] / RANKS]


def scale() -> list[Any]:
    """The scale term of one process and under DDP."""
    x = 0.1 * batch((3,))
    single, ddp = encoder(), DistributedDataParallel(encoder())
    return [
        loss_and_gradient(single, scale_term(0.1 * single(x))),
        loss_and_gradient(ddp, scale_term(0.1 * ddp(shard(x, (13, 7))), group="auto")),
    ]


def sharded_parameters() -> list[Any]:
    """The same with parameters sharded by FSDP2."""
    x = batch()
    single, sharded = encoder(), encoder()
    whole = loss_and_gradient(single, sigreg_loss(single(x), DIRECTIONS, RULE))
    fully_shard(sharded, mesh=dist.init_device_mesh("cpu", (RANKS,)))
    loss = sigreg_loss(sharded(shard(x, (13, 7))), DIRECTIONS, RULE, group="auto")
    loss.backward()
    gradient: Any = next(sharded.parameters()).grad
    return [whole, (loss.detach(), gradient.full_tensor())]


EARLY = SIGReg(num_proj=16)


def layers() -> dict[str, Any]:
    """Losses of one layer with each `group`; it was built before the group was."""
    x = shard(batch(), (13, 7))
    alone = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    mesh = dist.init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("tp", "dp"))
    found: dict[str, Any] = {"whole mesh": caught(lambda: SIGReg(num_proj=4, group=mesh))}
    for name, group in (
        ("auto", "auto"),
        ("off", None),
        ("world", dist.group.WORLD),
        ("one", alone),
        ("mesh", mesh["dp"]),
        ("mesh of one", mesh["tp"]),
    ):
        EARLY.group = group
        EARLY.reset_parameters()
        found[name] = EARLY.train()(x).detach()
        EARLY.reset_parameters()
        found[f"{name}, evaluated"] = EARLY.eval()(x).detach()
    EARLY.group = "auto"
    if dist.get_rank() == 0:  # the others never come: a message would wait for them
        found["first rank alone"] = EARLY(x).detach()
    found["all"] = sigreg_loss(batch(), early_directions(), RULE)
    found["part"] = sigreg_loss(x, early_directions(), RULE)
    return found


def early_directions() -> Tensor:
    """The directions of EARLY."""
    return random_directions(16, DIM, seed=0, step=0)


def messages() -> dict[str, list[int]]:
    """Sizes of the messages of a forward and of a backward pass."""
    sent: list[int] = []
    real = dist.all_reduce

    def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.numel())
        return real(tensor, *args, **kwargs)

    torch.distributed.all_reduce = counted
    try:
        found = {}
        for backend in ON_CPU:
            x = shard(batch(), (13, 7)).requires_grad_()
            loss = sigreg_loss(x, DIRECTIONS, RULE, group="auto", backend=backend)
            found[f"{backend} forward"] = sent.copy()
            sent.clear()
            loss.backward()
            found[f"{backend} backward"] = sent.copy()
            sent.clear()
        return found
    finally:
        torch.distributed.all_reduce = real


def own_check() -> dict[str, Any]:
    """What `check_distributed` says of healthy layers and of layers at different steps."""
    found: dict[str, Any] = {"default": tuple(check_distributed())}
    layer = SIGReg(num_proj=16, chunk=5, sampler="orthogonal", scale_by_n=False)
    found["own"] = tuple(check_distributed(layer))
    layer.step += dist.get_rank()
    found["astray"] = caught(lambda: check_distributed(layer))
    found["off"] = tuple(check_distributed(SIGReg(num_proj=16, group=None)))
    real = dist.all_reduce

    def lost(tensor: Tensor, *args: Any, keep: int = 0, **kwargs: Any) -> None:
        total = tensor.clone()
        real(total, *args, **kwargs)
        tensor[len(tensor) - keep :] = total[len(tensor) - keep :]

    try:
        torch.distributed.all_reduce = lost
        found["dropped"] = caught(check_distributed)
        torch.distributed.all_reduce = partial(lost, keep=16)  # the mark alone arrives
        found["half dropped"] = caught(check_distributed)
    finally:
        torch.distributed.all_reduce = real
    return found


def astray() -> dict[str, Any]:
    """Losses and gradients of layers whose ranks draw other directions, and of one that agrees."""
    found = {}
    for backend in ON_CPU:
        for name, seed, step in (
            ("agreed", 1, 1),
            ("other step", 0, dist.get_rank()),
            ("other seed", dist.get_rank(), 0),
            ("far step", 0, 10**6 * dist.get_rank()),
        ):
            x = shard(batch(), (13, 7)).requires_grad_()
            layer = SIGReg(num_proj=16, seed=seed, backend=backend)
            layer.step += step
            loss = layer(x)
            loss.backward()
            found[f"{name}, {backend}"] = loss.detach(), x.grad
    return found


def outside() -> str:
    """What a rank hears that uses a group of the other one."""
    first = dist.new_group([0])
    if dist.get_rank() == 0:
        return ""
    return caught(lambda: SIGReg(num_proj=4, group=first))


def reports() -> list[Any]:
    """The report of all samples and that of a shard over the ranks; what a bad sample says."""
    x = 1.2 * batch((2,)) + 0.1
    alone = embedding_report(x, num_proj=32)
    shared = embedding_report(shard(x, (20, 0)), num_proj=32, group="auto")
    x[1, 3, 2] = torch.nan
    said = caught(lambda: embedding_report(shard(x, (13, 7)), num_proj=32, group="auto"))
    return [vars(alone), vars(shared), said]


def caught(call: Callable[[], object]) -> str:
    """The message of the error that a call raises."""
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def main(rank: int, folder: str) -> None:
    """One rank: run everything, leave the results in a file."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=Path(folder, "meeting").as_uri(),
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=120),
    )
    try:
        results = {
            "uneven": data_parallel((13, 7), ()),
            "leading dims": data_parallel((13, 7), (3, 2)),
            "an empty shard": data_parallel((0, 20), (3,)),
            "reference": data_parallel((13, 7), (3,), backend="reference"),
            "reference, an empty shard": data_parallel((0, 20), (3,), backend="reference"),
            "chunks": data_parallel((13, 7), (3,), chunk=5),
            "a mask": data_parallel((13, 7), (3,), masked=True),
            "a mask, reference": data_parallel((13, 7), (3,), masked=True, backend="reference"),
            "weights": data_parallel((13, 7), (3,), weighted=True, masked=True),
            "weights, reference": data_parallel((0, 20), (3,), weighted=True, backend="reference"),
            "reference, chunks": data_parallel((13, 7), (3,), backend="reference", chunk=5),
            "triton": data_parallel((13, 7), (3,), masked=True, backend=TRITON),
            "triton, chunks": data_parallel((0, 20), (3,), weighted=True, chunk=5, backend=TRITON),
            "without N": data_parallel((13, 7), (3,), scale_by_n=False),
            "learned directions": learned_directions(),
            "scale": scale(),
            "sharded parameters": sharded_parameters(),
            "layers": layers(),
            "messages": messages(),
            "own check": own_check(),
            "astray": astray(),
            "outside": outside(),
            "reports": reports(),
        }
        torch.save(results, Path(folder, f"rank{rank}.pt"))
    finally:
        dist.destroy_process_group()
