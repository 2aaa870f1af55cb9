"""How much of a GPU does one training step of the published LeWM use, and does it wait?

    python benchmarks/gpu_training.py              batches of 128 × 4 frames of 224 px, bfloat16
    python benchmarks/gpu_training.py --try-out    tiny, on any machine; saves nothing

The step is the one of `worldmodel train`, with batches that are already on the device. Its products
are counted, so the share of the card's peak is known. The profiler counts kernels and waits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import harness
import torch
from scale import PEAK
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from worldmodel import presets
from worldmodel.apps.train import Recipe, Training
from worldmodel.data import Episodes, Windows

FRAMES, BLOCK, STEPS = 4, 10, 20
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::item")


def main() -> int:
    """Time and profile each arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--try-out", action="store_true", help="tiny, to see that it runs")
    tiny = parser.parse_args().try_out
    if not (tiny or torch.cuda.is_available()):
        print("no CUDA device: not run")
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch, side = (4, 32) if tiny else (128, 224)
    torch.manual_seed(0)
    rows, results = list[list[harness.Cell]](), list[dict[str, object]]()
    for name, options in (("as usual", {}), ("accumulate=4", {"accumulate": 4})):
        steps = begin(batch, side, device, tiny, **options)
        with FlopCounterMode(display=False) as flops:
            next(steps)
        calls = {name: lambda steps=steps: next(steps)}
        taken = harness.interleave(calls, rounds=3 if tiny else STEPS, warmup=2, device=device)
        most = harness.peak_memory(lambda steps=steps: next(steps), device=device)
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if device == "cuda" else []
        with profile(activities=activities) as seen:
            for _ in range(2):
                next(steps)
        events = seen.key_averages()
        waits = sum(e.count for e in events if e.key in WAITS) / 2
        kernels = sum(e.count for e in events if e.key.startswith("cudaLaunchKernel")) / 2
        share = flops.get_total_flops() / taken[name].median / PEAK
        slow = sorted(events, key=lambda e: -e.self_device_time_total)[:10]
        results.append({
            "case": name, **taken[name].record(), "flops": flops.get_total_flops(), "share": share,
            "waits": waits, "kernels": kernels, "peak_bytes": most,
            "slowest": {e.key[:60]: e.self_device_time_total / 2e6 for e in slow},
        })  # fmt: skip
        rows.append([name, str(taken[name]), f"{batch / taken[name].median:.0f}", f"{share:.1%}",
                     f"{kernels:,.0f}", f"{waits:.1f}", f"{most / 2**30:.1f} GiB"])  # fmt: skip
        print(*rows[-1], flush=True)
    if not tiny:
        harness.save(
            "gpu_training", "A training step of the published LeWM on a GPU", results, rows=rows,
            columns=("step", "time", "windows a second", "of the peak", "kernels", "waits",
                     "peak memory"),
            note=f"{batch} windows of {FRAMES} frames of {side} px, bfloat16, batches already on "
            f"the device; the peak is {PEAK / 1e12:.0f} TFLOP/s. Kernels and waits for the host "
            "are those of one step, by torch's profiler. The records hold the ten slowest kernels.",
        )  # fmt: skip
    return 0


def begin(batch: int, side: int, device: str, tiny: bool, **options: Any) -> Iterator[Any]:
    """Steps of training on random frames."""
    rows = batch * (FRAMES + 1)
    frames = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, device=device)
    actions, lengths = torch.randn(rows, BLOCK), torch.full((batch,), FRAMES + 1)
    episodes = Episodes(frames, actions.to(device), lengths.to(device))
    model = presets.small(BLOCK, image_size=side) if tiny else presets.lewm(BLOCK)
    recipe = Recipe(steps=10 * STEPS, batch_size=batch, num_proj=64 if tiny else 1024)
    windows = Windows(episodes, num_frames=FRAMES, frameskip=1)
    return Training(model.to(device), windows, recipe, **options).run()


if __name__ == "__main__":
    sys.exit(main())
