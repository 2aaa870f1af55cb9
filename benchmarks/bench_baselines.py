"""How much faster does LeWM plan than DINO-WM, at the published sizes of both?

LeWM has one token a frame; DINO-WM has 196 patches of a frozen ViT-S/14. Weights are random,
because time does not depend on them. Planner and settings are the same; each model encodes start
and goal itself. Both get fewer candidates and iterations than published, because DINO-WM is slow.
Times are processor time of one thread, so that other programs on the machine do not count.

    python benchmarks/bench_baselines.py                8 candidates, 1 iteration
    python benchmarks/bench_baselines.py --samples 300 --iterations 30      the published planner
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import harness
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planners import CEM, optimize
from worldmodel import DinoPatches, WorldModel, goal_cost, presets

HORIZON, A = 5, 10
FULL = (300, 30)  # candidates and iterations as published
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


def turn(call: Callable[[], object], least: float = 0.5) -> float:
    """Seconds of processor time per call, repeated until there are enough of them."""
    began, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - began < least:
        call()
        calls += 1
    return (time.process_time() - began) / calls


@torch.inference_mode()
def bench(rounds: int, samples: int, iterations: int) -> None:
    """Time both models in turn."""
    torch.set_num_threads(1)
    models = {"LeWM": presets.lewm(A), "DINO-WM": presets.dino_wm(DinoPatches(VIT_S14), A)}
    frames, goal = torch.rand(1, 1, 3, 224, 224), torch.rand(1, 3, 224, 224)
    calls: dict[str, Callable[[], object]] = {}
    work = {}
    for name, model in models.items():
        model.eval()
        check(model, frames, goal)
        cost = goal_cost(model, frames, goal)
        work[name] = operations(lambda cost=cost: cost(torch.zeros(1, 1, HORIZON, A)))
        calls[f"{name}, plan"] = lambda model=model: plan(model, frames, goal, samples, iterations)
        calls[f"{name}, encoding"] = lambda model=model: (
            model.encode(frames),
            model.encode(goal[:, None]),
        )
        some = torch.randn(1, samples if name == "DINO-WM" else FULL[0], HORIZON, A)
        calls[f"{name}, search"] = lambda cost=cost, some=some: cost(some)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(turn(call))
    timings = {name: harness.Timing(tuple(values)) for name, values in seconds.items()}
    # DINO-WM's time per candidate is constant; LeWM's falls with the number of candidates.
    each = {"LeWM": FULL[0], "DINO-WM": samples}
    whole = {
        n: timings[f"{n}, encoding"].median
        + FULL[0] * FULL[1] * timings[f"{n}, search"].median / each[n]
        for n in models
    }
    measured = harness.speedup(timings, "LeWM, plan", "DINO-WM, plan").median
    tokens = {"LeWM": 1, "DINO-WM": int(models["DINO-WM"].predictor.config["tokens"])}
    size = {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
    ratios = {
        "plan": measured,
        "plan_scaled_up": whole["DINO-WM"] / whole["LeWM"],
        "operations": work["DINO-WM"] / work["LeWM"],
        "tokens": tokens["DINO-WM"] / tokens["LeWM"],
    }
    records: list[dict[str, object]] = [{"case": n, **t.record()} for n, t in timings.items()]
    records += [
        {"case": n, "parameters": size[n], "tokens": tokens[n], "flops_per_candidate": work[n],
         "seconds_scaled_up": whole[n]}
        for n in models
    ]  # fmt: skip
    harness.save(
        "baselines",
        f"One plan by LeWM and by DINO-WM at their published sizes: {samples} candidates, "
        f"{iterations} iteration(s), horizon {HORIZON}; processor time of one thread",
        [*records, {"case": "ratio", **ratios}],
        columns=("", "LeWM", "DINO-WM", "ratio"),
        rows=[
            ("parameters", *(f"{size[n] / 1e6:.1f} M" for n in models), ""),
            ("tokens a frame", *(str(tokens[n]) for n in models), f"{ratios['tokens']:.0f}"),
            ("GFLOP a candidate", *(f"{work[n] / 1e9:.3g}" for n in models),
             f"{ratios['operations']:.0f}"),
            ("encoding start and goal", *(str(timings[f"{n}, encoding"]) for n in models), ""),
            ("this plan, encoding included", *(str(timings[f"{n}, plan"]) for n in models),
             f"**{measured:.0f}**"),
            (f"{FULL[0]} candidates, {FULL[1]} iterations, scaled up from one iteration",
             *(harness.duration(whole[n]) for n in models), f"**{ratios['plan_scaled_up']:.0f}**"),
        ],
        note="Random weights; candidates and iterations scaled down equally in the plan that was "
        f"run, where encoding is most of LeWM's time; in the last row LeWM's {FULL[0]} candidates "
        f"were timed together and DINO-WM's {samples}. {PAPER}.",
    )  # fmt: skip


def main() -> None:
    """Run the benchmark with the given settings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bench(arguments.rounds, arguments.samples, arguments.iterations)


if __name__ == "__main__":
    sys.exit(main())
