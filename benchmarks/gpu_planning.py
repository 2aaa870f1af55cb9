"""How long does one LeWM plan take on a GPU, against the official code on the same card?

    python benchmarks/gpu_planning.py

Each of ours with and without a CUDA graph, in float32 (with TF32 products), bfloat16 and float16.
The plain rule stands in where stable_worldmodel is not installed, and the note says so.
"""

from __future__ import annotations

import sys

import bench_planning as bench
import harness
import torch

from worldmodel import presets


def main() -> int:
    """Time one plan, then 50 at once."""
    if not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    real = bench.official("cuda")
    model = bench.published_twin(real[1]) if real else bench.trained_like(presets.lewm())
    model = model.to("cuda")
    frames = torch.rand(1, 1, 3, 224, 224, device="cuda")
    goal = torch.rand(1, 3, 224, 224, device="cuda")
    calls = {"plain": lambda: bench.plain_plan(model, frames, goal, bench.ITERATIONS)}
    labels = {"plain": "plain rule, our model"}
    if real:
        calls["official"] = lambda: real[0](frames, goal, bench.ITERATIONS)
        labels["official"] = real[2]
    baseline = "official" if real else "plain"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for graph in (False, True):
            name = f"{str(dtype).removeprefix('torch.')}{', CUDA graph' if graph else ''}"
            calls[name] = lambda dtype=dtype, graph=graph: bench.our_plan(
                model, frames, goal, bench.ITERATIONS, dtype=dtype, cuda_graph=graph
            )
            labels[name] = f"goal_cost and CEM, {name}"
    timings = harness.interleave(calls, rounds=7, warmup=1, device="cuda")
    ratios = {name: harness.speedup(timings, name, baseline) for name in calls}
    harness.save(
        "gpu_planning",
        "One LeWM plan on a GPU: 300 candidates, 30 iterations, horizon 5, 18 M parameters",
        [{"case": n, **t.record(), "speedup": ratios[n].median} for n, t in timings.items()],
        columns=("what", "time", "times faster"),
        rows=[(labels[n], str(t), f"{ratios[n].median:.2f}") for n, t in timings.items()],
        note=(
            f"Compared with {labels[baseline]}; TF32 products allowed on both sides; encoding and "
            "the recording of the graph included."
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
