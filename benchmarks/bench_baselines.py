"""How much faster does LeWM plan than DINO-WM, at the published sizes of both?

One token a frame and an encoder trained with the predictor, against 196 patches of a frozen
ViT-S/14. Random weights (time does not depend on them), the same planner and the same settings,
start and goal encoded by each model's own encoder. Candidates and iterations are scaled down
equally, for the larger model's sake.

    python benchmarks/bench_baselines.py                8 candidates, 1 iteration
    python benchmarks/bench_baselines.py --samples 300 --iterations 30      the published planner
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import harness
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planners import CEM, optimize
from worldmodel import DinoPatches, WorldModel, goal_cost, presets

HORIZON, A = 5, 10
# facebook/dinov2-small, as its config.json says.
VIT_S14 = {
    "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4,
    "image_size": 518, "patch_size": 14,
}  # fmt: skip
PAPER = "LeWM's paper, on an L40S: 0.98 s against 47 s, 48 times"


def plan(model: WorldModel, frames: Tensor, goal: Tensor, samples: int, iterations: int) -> Tensor:
    """One plan from pictures, encoding included."""
    method = CEM(num_samples=samples, num_elites=max(samples // 10, 2))
    start = torch.zeros(1, HORIZON, A)
    return optimize(method, goal_cost(model, frames, goal), start, iterations=iterations).actions


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in a call, two per multiply-add."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def check(model: WorldModel, frames: Tensor, goal: Tensor) -> None:
    """Refuse to time a quick rollout that differs from the plain one."""
    actions = torch.randn(1, 1, 3, A)
    with torch.no_grad():
        z, z_goal = model.encode(frames), model.encode(goal[:, None])
        plain = (model.rollout(z, actions[0])[:, -1] - z_goal[0]).square().sum(-1)
        ours = goal_cost(model, frames, goal)(actions)[0]
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def bench(rounds: int, samples: int, iterations: int) -> None:
    """Both models, turn by turn."""
    models = {"LeWM": presets.lewm(A), "DINO-WM": presets.dino_wm(DinoPatches(VIT_S14), A)}
    tokens = {"LeWM": 1, "DINO-WM": int(models["DINO-WM"].predictor.config["tokens"])}
    frames, goal = torch.rand(1, 1, 3, 224, 224), torch.rand(1, 3, 224, 224)
    calls: dict[str, Callable[[], object]] = {}
    work = {}
    for name, model in models.items():
        model.eval()
        check(model, frames, goal)
        cost = goal_cost(model, frames, goal)
        work[name] = operations(lambda cost=cost: cost(torch.zeros(1, 1, HORIZON, A)))
        calls[name] = lambda model=model: plan(model, frames, goal, samples, iterations)
        calls[f"{name}, encoding"] = lambda model=model: (
            model.encode(frames),
            model.encode(goal[:, None]),
        )
    timings = harness.interleave(calls, rounds=rounds, warmup=0, min_seconds=1.0)
    ratio = harness.speedup(timings, "LeWM", "DINO-WM")
    inside = {
        name: tuple(
            whole - encoding
            for whole, encoding in zip(
                timings[name].seconds, timings[f"{name}, encoding"].seconds, strict=True
            )
        )
        for name in models
    }
    search = harness.speedup({n: harness.Timing(s) for n, s in inside.items()}, "LeWM", "DINO-WM")
    size = {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
    harness.save(
        "baselines",
        f"One plan by LeWM and by DINO-WM: {samples} candidates, {iterations} iteration{'s' * (iterations != 1)}, horizon "
        f"{HORIZON}, published sizes, random weights",
        [
            {"case": n, **t.record(), "tokens": tokens.get(n), "flops_per_candidate": work.get(n),
             "parameters": size.get(n)}
            for n, t in timings.items()
        ] + [{"case": "ratio", "plan": ratio.median, "search": search.median,
              "operations": work["DINO-WM"] / work["LeWM"]}],
        columns=("model", "parameters", "tokens a frame", "GFLOP a candidate", "encoding", "plan",
                 "LeWM is faster by"),
        rows=[
            (n, f"{size[n] / 1e6:.1f} M", str(tokens[n]), f"{work[n] / 1e9:.3g}",
             str(timings[f"{n}, encoding"]), str(timings[n]),
             "" if n == "LeWM" else f"{ratio.median:.0f}; {search.median:.0f} without encoding")
            for n in models
        ],
        note=f"Encoding of start and goal is part of a plan; with 300 candidates and 30 iterations "
        f"it no longer counts. {PAPER}.",
    )  # fmt: skip


def main() -> None:
    """Run at the given settings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bench(arguments.rounds, arguments.samples, arguments.iterations)


if __name__ == "__main__":
    sys.exit(main())
