"""Compare packages that ship a SIGReg: scale, layout, ranks, bfloat16, mask, memory, time.

    pip install --no-deps --target DIR lightly stable-pretraining torch-world jepa-science pyjepa
    python benchmarks/sigreg_rivals.py DIR

The script runs each package's own file, as installed, without the rest of the package. An empty
stand-in replaces imports that the loss does not use. In one dimension every package's directions
are ±1, so packages with the same statistic give the same number, whatever they draw.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from bench_sigreg import processor_time, published, step
from harness import Cell, mebibytes, peak_memory, save
from torch import Tensor, nn

from sigreg import SIGReg, trapezoid_rule

SHAPE = (4, 128, 192)
SHARDS = (13, 7)
Loss = Callable[[Tensor], Tensor]


class _StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        return type(name, (), {})


@dataclass(frozen=True)
class Package:
    """A distribution, the file of it that holds the loss, and how to build it."""

    name: str
    file: str
    build: Callable[[Any], nn.Module]
    stands_in: tuple[str, ...] = ()

    def load(self, folder: str) -> nn.Module:
        """The loss, with 1024 directions and the published rule."""
        path = Path(folder, self.file)
        spec = importlib.util.spec_from_file_location(path.stem + "_of_a_package", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        empty: dict[str, types.ModuleType] = {name: _StandIn(name) for name in self.stands_in}
        if "lightly.utils" in empty:  # the one helper that the loss uses: the number of ranks
            helper = types.SimpleNamespace(world_size=world_size)
            empty["lightly.utils"].dist = helper  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {**empty, spec.name: module}):
            spec.loader.exec_module(module)
        return self.build(module)


def world_size() -> int:
    """Ranks of the default group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


PACKAGES = (
    Package(
        "lightly",
        "lightly/loss/lejepa_loss.py",
        lambda m: m.SIGReg(gather_distributed=world_size() > 1),
        ("lightly", "lightly.utils"),
    ),
    Package(
        "stable-pretraining",
        "stable_pretraining/methods/lejepa.py",
        lambda m: m.SlicedEppsPulley(),
        (
            "timm",
            "stable_pretraining",
            "stable_pretraining.backbone",
            "transformers",
            "transformers.utils",
        ),
    ),
    Package("torch-world", "torch_world/losses/sigreg.py", lambda m: m.SIGReg()),
    Package("jepa-science", "jepa_science/sigreg.py", lambda m: m.SIGReg()),
    Package("pyjepa", "pyjepa/losses/sigreg.py", lambda m: m.SIGReg()),
)


def losses(folder: str) -> dict[str, nn.Module]:
    """Our loss, and that of every package in the folder."""
    found: dict[str, nn.Module] = {"sigreg": SIGReg()}
    return found | {p.name: p.load(folder) for p in PACKAGES if Path(folder, p.file).exists()}


def error(value: Tensor, truth: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((value.double() - truth).norm() / truth.norm())


def formula(x: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The published statistic of x [..., N, D] and its gradient, in float64; D = 1 by default."""
    a = torch.ones(1, 1) if directions is None else directions
    leaf = x.double().requires_grad_()
    loss = published(leaf, trapezoid_rule(), a.double() / a.double().norm(dim=1, keepdim=True))
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def layout(loss: Loss) -> str:
    """How a package treats a stack of batches [4, 128, D], from the score of collapsed samples."""
    alone = loss(torch.zeros(128, 8))
    value = loss(torch.zeros(4, 128, 8))
    if value.ndim:
        return "[..., N, D], a number each"
    if torch.isclose(value, alone, rtol=1e-3):
        return "[..., N, D], their mean"
    assert torch.isclose(value, alone * 4 / 128, rtol=1e-3)
    return "[N, D]; of more axes the first"


def bfloat16(loss: nn.Module) -> tuple[float, float] | str:
    """Errors of loss and gradient of a bfloat16 batch, beside float64 along the same directions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 192, generator=generator).bfloat16()
    a = torch.randn(192, 1024, generator=generator)
    value, slope = formula(x, a.T)
    leaf = x.clone().requires_grad_()

    def drawn(*_: object, dtype: torch.dtype = torch.float32, **__: object) -> Tensor:
        return a.to(dtype, copy=True)

    try:
        with mock.patch.object(torch, "randn", drawn):
            if isinstance(loss, SIGReg):
                found = loss(leaf, directions=(a / a.norm(dim=0)).T)
            else:
                found = loss(leaf).sum()
        (gradient,) = torch.autograd.grad(found, leaf)
    except RuntimeError:
        return "an error"
    return error(found.detach(), value), error(gradient, slope)


def on_ranks(rank: int, folder: str, out: str) -> None:
    """Results of one of two ranks: its errors in one dimension, and its loss in sixteen."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    found: dict[str, list[float]] = {}
    for name, loss in losses(folder).items():
        whole = torch.randn(20, 1, generator=torch.Generator().manual_seed(1))
        truth, slope = formula(whole)
        x = whole.split(SHARDS)[rank].clone().requires_grad_()
        torch.manual_seed(rank)  # as in training, where ranks must not drop out alike
        value = loss(x)
        (gradient,) = torch.autograd.grad(value, x)
        # DDP will average over the ranks: the gradient of a sample is the rank's, halved.
        mine = slope.split(SHARDS)[rank]
        wide = torch.randn(20, 16, generator=torch.Generator().manual_seed(2))
        there = loss(wide.split(SHARDS)[rank]).detach()
        found[name] = [error(value.detach(), truth), error(gradient / 2, mine), float(there)]
    Path(out, f"{rank}.json").write_text(json.dumps(found), "utf-8")
    dist.destroy_process_group()


def ranks(folder: str) -> dict[str, tuple[float, float, bool]]:
    """Worst errors of loss and gradient over two uneven ranks; whether both get the same loss."""
    with tempfile.TemporaryDirectory() as out:
        torch.multiprocessing.spawn(on_ranks, args=(folder, out), nprocs=2)
        texts = [Path(out, f"{rank}.json").read_text("utf-8") for rank in range(2)]
    first, second = map(json.loads, texts)
    return {
        name: (
            max(first[name][0], second[name][0]),
            max(first[name][1], second[name][1]),
            abs(first[name][2] - second[name][2]) < 1e-6 * abs(first[name][2]),
        )
        for name in first
    }


def stacked(loss: nn.Module) -> Loss:
    """The loss of [G, N, D] as one number, batch by batch where it takes no stack."""
    if layout(loss).startswith("[N, D]"):
        return lambda z: torch.stack([loss(part) for part in z]).mean()
    return lambda z: loss(z).mean()


def both_ways(loss: Loss, z: Tensor) -> None:
    """Forward and backward."""
    step(z, loss(z))


def version(name: str, folder: str) -> str:
    """Of the distribution in the folder."""
    (found,) = importlib.metadata.distributions(name=name, path=[folder])
    return f"{name} {found.version}"


def percent(value: float) -> str:
    """An error as text."""
    return "exact" if value < 1e-5 else f"{value:.2g}" if value < 0.01 else f"{value:.0%}"


def main() -> int:
    """Measure every package in the folder."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 1
    folder, z = sys.argv[1], torch.randn(SHAPE, requires_grad=True)
    every, over_ranks = losses(folder), ranks(folder)
    calls = {name: functools.partial(both_ways, stacked(loss), z) for name, loss in every.items()}
    times = processor_time(calls, rounds=5)
    results: list[dict[str, object]] = []
    rows: list[list[Cell]] = []
    for name, loss in every.items():
        x = torch.randn(256, 1)
        scale = float(loss(x).detach()) / float(formula(x)[0])
        half, (value, slope, agree) = bfloat16(loss), over_ranks[name]
        memory = peak_memory(calls[name])
        mask = "mask" in inspect.signature(loss.forward).parameters
        label = "this package" if name == "sigreg" else version(name, folder)
        ratio = times[name].median / times["sigreg"].median
        results.append(
            {
                "package": label, "scale": scale, "layout": layout(loss), "bfloat16": half,
                "ranks_loss_error": value, "ranks_gradient_error": slope, "ranks_agree": agree,
                "mask": mask, "bytes": memory, "seconds": times[name].record(), "time_ratio": ratio,
            }
        )  # fmt: skip
        rows.append(
            [
                label, f"{scale:.3f}", layout(loss),
                half if isinstance(half, str) else " / ".join(map(percent, half)),
                f"{percent(value)} / {percent(slope)}", "yes" if agree else "no",
                "yes" if mask else "no", mebibytes(memory), f"{ratio:.1f}×",
            ]
        )  # fmt: skip
    absent = [p.name for p in PACKAGES if p.name not in every]
    save(
        "sigreg_rivals",
        "The packages that ship a SIGReg, forward and backward, 1024 directions, 17 knots.",
        results,
        columns=(
            "package",
            "value over the published formula's",
            "takes",
            "bfloat16 batch: error of loss / gradient",
            "two uneven ranks: error of loss / gradient",
            "both ranks get the same loss",
            "mask",
            f"peak memory, {SHAPE}",
            "processor time over ours",
        ),
        rows=rows,
        note="Errors are against float64, gradients over ranks as DDP averages them. Ranks differ "
        "in torch's seed, as in training; lightly was told to gather; groups exist before the "
        "layers are built. A package that takes [N, D] is called once a batch. A gradient in "
        "bfloat16 errs by about 0.0016 by its own rounding. Time: one thread, median of "
        f"interleaved rounds. Not installed, not measured: {', '.join(absent) or 'none'}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
