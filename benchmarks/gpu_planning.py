"""How long does one LeWM plan take on a GPU, against the official code on the same card?

    python benchmarks/gpu_planning.py
    python benchmarks/gpu_planning.py --try-out    one iteration, on any machine; saves nothing

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
    tiny = sys.argv[1:] == ["--try-out"]
    if not (tiny or torch.cuda.is_available()):
        print("no CUDA device: not run")
        return 0
    device, steps = ("cpu", 1) if tiny else ("cuda", bench.ITERATIONS)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    real = bench.official(device)
    model = bench.published_twin(real[1]) if real else bench.trained_like(presets.lewm())
    model = model.to(device)
    frames = torch.rand(1, 1, 3, 224, 224, device=device)
    goal = torch.rand(1, 3, 224, 224, device=device)
    calls = {"plain": lambda: bench.plain_plan(model, frames, goal, steps)}
    labels = {"plain": "plain rule, our model"}
    if real:
        calls["official"] = lambda: real[0](frames, goal, steps)
        labels["official"] = real[2]
    baseline = "official" if real else "plain"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for graph in (False,) if tiny else (False, True):
            name = f"{str(dtype).removeprefix('torch.')}{', CUDA graph' if graph else ''}"
            calls[name] = lambda dtype=dtype, graph=graph: bench.our_plan(
                model, frames, goal, steps, dtype=dtype, cuda_graph=graph
            )
            labels[name] = f"goal_cost and CEM, {name}"
    timings = harness.interleave(calls, rounds=1 if tiny else 7, warmup=1, device=device)
    ratios = {name: harness.speedup(timings, name, baseline) for name in calls}
    if tiny:
        print(*(f"{labels[name]}: {time}" for name, time in timings.items()), sep="\n")
        return 0
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
