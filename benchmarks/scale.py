"""Where does training stop scaling? Modelled, not measured: no GPU has run it.

    python benchmarks/scale.py

Counts one training step of the published model here, on a CPU: operations of the products, kernels
that a GPU would be sent, messages between ranks and their bytes. With published rates and the
assumptions below that gives the time of a step on 1 to 512 GPUs. `gpu_worlds.py` measures one GPU.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple
from unittest import mock

import harness
import torch
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from worldmodel import presets
from worldmodel.apps.ranks import synchronise
from worldmodel.apps.train import Recipe, Training, loop
from worldmodel.data import Episodes, Windows

SIDE, FRAMES, BLOCK, PROJECTIONS = 224, 4, 10, 1024
GPUS = (1, 8, 64, 512)
PUBLISHED = 128  # windows of a step

# NVIDIA H200 SXM data sheet: bfloat16 products, and NVLink to the seven others of a machine.
PEAK, NVLINK, MACHINE = 989e12, 450e9, 8
# Assumed: an adapter of 400 Gbit/s for each GPU, the share of the peak that products of width 192
# reach, the time to send a kernel without a graph, and the time of a message's hop.
NETWORK, SHARE, LAUNCH, HOP = 50e9, 0.25, 5e-6, 10e-6
# What sends no kernel.
VIEWS = {"alias", "as_strided", "detach", "empty", "empty_like", "expand", "new_empty", "permute",
         "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
         "_unsafe_view"}  # fmt: skip


class Step(NamedTuple):
    """What was counted of a step."""

    flops: int  #: of a window
    kernels: int
    weights: int
    messages: list[int]  #: bytes of each that waits for all ranks, forward and backward


class Kernels(TorchDispatchMode):
    """Counts operations by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def count() -> Step:
    """One step of the published model, as `worldmodel train --preset lewm` takes it."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    windows, length = 2, FRAMES + 1
    frames = torch.randint(0, 256, (windows * length, 3, SIDE, SIDE), dtype=torch.uint8)
    episodes = Episodes(frames, torch.randn(len(frames), BLOCK), torch.full((windows,), length))
    model = presets.lewm(BLOCK)
    synchronise(model)
    recipe = Recipe(steps=2, batch_size=windows, num_proj=PROJECTIONS)
    with mock.patch.object(loop, "fuses", return_value=True):  # AdamW as on a GPU
        training = Training(model, Windows(episodes, num_frames=FRAMES, frameskip=1), recipe)
    messages, plain = list[int](), torch.distributed.all_reduce

    def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        messages.append(tensor.nbytes)
        tensor *= 2  # the other rank holds the same
        return plain(tensor, *args, **kwargs)

    steps = training.run()
    torch.distributed.all_reduce = noted
    with FlopCounterMode(display=False) as flops:
        next(steps)
    messages.clear()
    with Kernels() as kernels:  # AdamW's moments are there
        next(steps)
    torch.distributed.all_reduce = plain
    sent = sum(n for name, n in kernels.counts.items() if name not in VIEWS)
    weights = sum(p.numel() for p in training.parameters)
    return Step(flops.get_total_flops() // windows, sent, weights, messages)


def reduce(size: float, gpus: int) -> float:
    """Seconds of an all-reduce of `size` bytes: a ring for the bytes, a tree for the hops."""
    if gpus == 1:
        return 0.0
    rate = NVLINK if gpus <= MACHINE else NETWORK
    return 2 * (gpus - 1) / gpus * size / rate + 2 * math.ceil(math.log2(gpus)) * HOP


def seconds(step: Step, windows: float, gpus: int) -> dict[str, float]:
    """The parts of a step with `windows` on each GPU."""
    return {
        "products": windows * step.flops / (PEAK * SHARE),
        "launches": step.kernels * LAUNCH,
        "statistics": sum(reduce(size, gpus) for size in step.messages),
        "gradients": reduce(4 * step.weights, gpus),
    }


def main() -> None:
    """Count, model, write."""
    step = count()
    results, rows = list[dict[str, object]](), list[list[harness.Cell]]()
    for name, batch in (("128 in all, as published", PUBLISHED), ("128 on each GPU", None)):
        alone = 0.0
        for gpus in GPUS:
            windows = PUBLISHED if batch is None else batch / gpus
            if windows < 1:
                rows.append([name, gpus, "less than a window each", *[None] * 6])
                continue
            parts = seconds(step, windows, gpus)
            # Kernels are sent while others compute; gradients travel during the backward pass.
            work = max(parts["products"], parts["launches"])
            total = max(work, parts["gradients"]) + parts["statistics"]
            rate = windows * gpus / total
            alone = alone or rate
            results.append({"batch": name, "gpus": gpus, "windows": windows, **parts,
                            "step": total, "windows_per_second": rate})  # fmt: skip
            rows.append([
                name, gpus, *(harness.duration(parts[part]) if parts[part] else "–" for part in
                ("products", "launches", "statistics", "gradients")), harness.duration(total),
                f"{rate / alone:.1f} ×", round(windows / total),
            ])  # fmt: skip
    most = max(step.messages)
    harness.save(
        "scale",
        "Modelled, not measured: a training step of the published LeWM (224 px, bfloat16) on H200s",
        results,
        columns=("windows", "GPUs", "products", "sending kernels", "statistics of all ranks",
                 "gradients", "step", "windows a second", "to load for each GPU"),
        rows=rows,
        extra={"counted": step._asdict()},
        note=f"Counted: {step.flops / 1e9:.1f} GFLOP a window, {step.kernels:,} kernels a step, "
        f"{step.weights / 1e6:.1f} M weights, {len(step.messages)} messages of statistics of "
        f"{sum(step.messages) / 1e3:.0f} kB together, the largest {most / 1e3:.0f} kB. Assumed: "
        f"{SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s, {LAUNCH * 1e6:.0f} µs to send a kernel, "
        f"{NVLINK / 1e9:.0f} GB/s among {MACHINE} GPUs, {NETWORK / 1e9:.0f} GB/s a GPU beyond, "
        f"{HOP * 1e6:.0f} µs a hop. Gradients travel during the backward pass; the last column "
        "is in windows a second, and the step does not wait for them.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
