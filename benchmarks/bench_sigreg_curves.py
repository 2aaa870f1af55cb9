"""Does the cost of the fused SIGReg grow linearly with every size?"""

from __future__ import annotations

import functools

import torch
from bench_sigreg import processor_time, step
from harness import mebibytes, peak_memory, save
from torch import Tensor

from sigreg import SIGReg

BATCHES = 4
BASE = {"N": 128, "M": 1024, "K": 17, "D": 192}
SWEEPS = {
    "N": (32, 128, 512, 2048),
    "M": (256, 1024, 4096),
    "K": (9, 17, 33, 65),
    "D": (48, 192, 768),
}


def fused(z: Tensor, layer: SIGReg) -> None:
    """Loss and gradient, directions drawn inside."""
    step(z, layer(z))


def main() -> None:
    """All cases take turns."""
    torch.manual_seed(0)
    cases, calls = {}, {}
    for name, values in SWEEPS.items():
        for value in values:
            size = BASE | {name: value}
            z = torch.randn(BATCHES, size["N"], size["D"], requires_grad=True)
            label = f"{name} = {value}"
            cases[label] = {"sweep": name, **size}
            calls[label] = functools.partial(fused, z, SIGReg(size["K"], size["M"]))
    times = processor_time(calls, rounds=9)
    results, rows = [], []
    for label, call in calls.items():
        memory = peak_memory(call)
        size = cases[label]
        projections = 4 * BATCHES * int(size["N"]) * int(size["M"])
        results.append({**size, "seconds": times[label].record(), "bytes": memory})
        share = f"{memory / projections:.1f}×"
        rows.append([label, str(times[label]), mebibytes(memory), share])
    save(
        "sigreg_curves",
        f"Cost of the fused SIGReg against each size: forward and backward of [{BATCHES}, N, D], "
        "otherwise N = 128, M = 1024, K = 17, D = 192; processor time of one thread.",
        results,
        columns=("size", "time", "peak memory", "of all projections"),
        rows=rows,
        note="Medians and quartiles of interleaved rounds. Dashed: what is linear.",
    )


if __name__ == "__main__":
    main()
