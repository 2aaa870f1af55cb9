"""Time of the planners alone, and the minimum that each reaches with equal cost evaluations.

python benchmarks/bench_planners.py            both tables
python benchmarks/bench_planners.py overhead   or one of them
python benchmarks/bench_planners.py regret
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import ROOT, duration, interleave, save
from torch import Tensor

from planners import (
    CEM,
    GRASP,
    ICEM,
    MPPI,
    AugmentedLagrangian,
    BestSoFar,
    Bounds,
    CategoricalCEM,
    GradientDescent,
    Integrated,
    PredictiveSampling,
    Refine,
    SimplexGradient,
    optimize,
)

sys.path.insert(0, str(ROOT / "tests" / "planners"))
import known as problems
from known import Problem

ITERATIONS, H, A = 30, 5, 10

BUDGET = 3000
# Forward and backward through a cost take about three forwards.
GRADIENT = 3


def free(candidates: Tensor) -> Tensor:
    """A free cost: one view, no arithmetic."""
    return candidates[:, :, 0, 0]


def official(start: Tensor, generator: torch.Generator) -> Tensor:
    """The loop of LeWM's released solver at its settings, with the free cost; a plain twin.

    300 samples, 30 elites, unit std, the mean as first candidate, and one read of the elites'
    cost on the host after the last iteration.
    """
    mean, std = start, torch.ones_like(start)
    B = start.shape[0]
    rows = torch.arange(B).unsqueeze(1).expand(-1, 30)
    values = start
    for _ in range(ITERATIONS):
        candidates = torch.randn(B, 300, H, A, generator=generator)
        candidates = candidates * std.unsqueeze(1) + mean.unsqueeze(1)
        candidates[:, 0] = mean
        values, index = torch.topk(free(candidates), 30, dim=1, largest=False)
        elites = candidates[rows, index]
        mean, std = elites.mean(1), elites.std(1)
    values.mean(1).tolist()
    return mean


def overhead() -> None:
    """Time per iteration with a free cost: nothing but the planner."""
    rows: list[list[str]] = []
    results: list[dict[str, object]] = []
    methods: dict[str, tuple[Any, Any]] = {
        "CEM": (CEM(), None),
        "CEM, bounds": (CEM(), Bounds(-9.0, 9.0)),
        "BestSoFar(CEM)": (BestSoFar(CEM()), None),
        "ICEM, decay 1": (ICEM(decay=1.0, num_elites=30), None),
        "MPPI": (MPPI(), None),
        "MPPI, 64 best, adapted std": (MPPI(top_k=64, adapt_std=True, min_std=0.05), None),
        "PredictiveSampling": (PredictiveSampling(), None),
    }
    for B in (1, 50):
        start = torch.zeros(B, H, A)
        generator = torch.Generator().manual_seed(0)
        calls: dict[str, Callable[[], object]] = {
            "released CEM loop (plain twin)": partial(official, start, generator)
        }
        for name, (method, bounds) in methods.items():
            calls[name] = partial(
                optimize, method, free, start, iterations=ITERATIONS, bounds=bounds
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            timings = interleave(calls, rounds=9 if B == 1 else 5)
        for name, timing in timings.items():
            low, high = (value / ITERATIONS for value in timing.spread)
            middle = timing.median / ITERATIONS
            results.append({"method": name, "problems": B, "seconds_per_iteration": middle,
                            **{k: v for k, v in timing.record().items() if k == "rounds"},
                            "low": low, "high": high})  # fmt: skip
            rows.append([name, str(B), duration(middle), f"{duration(low)}–{duration(high)}"])
    save(
        "planners",
        "What does a planner add to an iteration? (free cost, 300 candidates, 30 elites, "
        "horizon 5, 10 action dims)",
        results,
        columns=["method", "problems", "time per iteration", "quartiles"],
        rows=rows,
        note="Includes drawing the noise. The twin draws from one generator for all problems, "
        "ours from one stream per problem.",
    )


def reach_grasp(problem: Problem) -> GRASP:
    """GRASP knows the dynamics s + a of `reach`."""
    (goal,) = problem.parameters
    return GRASP(lambda s, a: s + a, torch.zeros_like(goal), goal)


# Method, and evaluations per iteration.
METHODS: dict[str, tuple[Any, int]] = {
    "CEM": (CEM(100, 10), 100),
    "CEM, min_std 0.05": (CEM(100, 10, min_std=0.05), 100),
    "BestSoFar(CEM)": (BestSoFar(CEM(100, 10)), 100),
    "ICEM": (ICEM(100, 10, decay=1.0, init_std=1.0), 100),
    "MPPI, λ 0.1": (MPPI(100, 0.1, 0.5), 100),
    "MPPI, 20 best, adapted std": (MPPI(100, 0.5, top_k=20, adapt_std=True, min_std=0.05), 100),
    "smooth MPPI, λ 0.1": (MPPI(100, 0.1, 0.5, correlation=Integrated()), 100),
    "PredictiveSampling": (PredictiveSampling(100), 100),
    "GradientDescent": (GradientDescent(), GRADIENT),
    "GradientDescent, 10 starts": (GradientDescent(num_restarts=10), 10 * GRADIENT),
}
PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "bowl": problems.quadratic,
    "LQR": problems.linear_quadratic,
    "valley": problems.valley,
    "two basins": problems.two_basins,
    "box": problems.active_bounds,
    "reach": problems.reach,
}


def share(method: Any, problem: Problem, iterations: int) -> float:
    """Median regret over the problems, as a share of the start's regret."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        plan = optimize(
            method, problem.cost, problem.start, iterations=iterations, bounds=problem.bounds
        )
    return float((problem.regret(plan.actions) / problem.regret(problem.start)).median())


def cell(value: float | None) -> str:
    """Two digits; 0 for a value that is 0 in float32."""
    if value is None:
        return "–"
    return "0" if abs(value) < 1e-7 else f"{value:.1g}"


def regret() -> None:
    """Regret after 3000 cost evaluations, by method and problem."""
    B = 64
    # The tensors are small: a second thread would only wait.
    torch.set_num_threads(1)
    results: list[dict[str, object]] = []
    rows: list[list[str]] = []

    def row(name: str, values: dict[str, float]) -> None:
        results.extend(
            {"method": name, "problem": problem, "regret": value}
            for problem, value in values.items()
        )
        rows.append([name, *(cell(values.get(problem)) for problem in columns)])

    columns = [*PROBLEMS, "choices"]
    for name, (method, evaluations) in METHODS.items():
        row(name, {
            problem: share(method, made, BUDGET // evaluations)
            for problem, made in ((k, make(B)) for k, make in PROBLEMS.items())
        })  # fmt: skip
    # Half of the budget finds the valley, the other half its minimum.
    polish = Refine(CEM(100, 10), GradientDescent(), after=15)
    row("Refine(CEM, GradientDescent)", {
        k: share(polish, make(B), 15 + BUDGET // 2 // GRADIENT) for k, make in PROBLEMS.items()
    })  # fmt: skip
    made = problems.reach(B)
    # One rollout of H steps with its gradient, and ten lifted steps of H model calls with theirs.
    row("GRASP", {"reach": share(reach_grasp(made), made, BUDGET // (8 * GRADIENT * 11))})
    row("CategoricalCEM", {"choices": share(CategoricalCEM(100, 10), problems.chain(B), 30)})
    # The 64 roundings and the 64 relaxed plans with their gradients take turns.
    row("SimplexGradient", {
        "choices": share(SimplexGradient(), problems.chain(B), 2 * BUDGET // (64 * (1 + GRADIENT)))
    })  # fmt: skip
    limited = problems.constrained(B)
    wrapped = AugmentedLagrangian(CEM(100, 10), limited.limit, every=10)
    plan = optimize(wrapped, limited.cost, limited.start, iterations=30)
    results.append({
        "method": "AugmentedLagrangian(CEM)",
        "problem": "constrained",
        "distance": float((plan.actions - limited.minimiser).abs().amax((1, 2)).median()),
        "broken": float(limited.limit(plan.actions[:, None]).amax()),
    })  # fmt: skip
    save(
        "planners_regret",
        f"How much of the start's regret is left after {BUDGET} cost evaluations? "
        "(median of 64 problems with a known minimum; 1 = no progress, 0 = solved)",
        results,
        columns=["method", *columns],
        rows=rows,
        note=f"A candidate with its gradient counts as {GRADIENT} evaluations, a step of GRASP's "
        "lifted loss as one candidate with its gradient. Settings are the same for all problems, "
        "not tuned to any. `python benchmarks/bench_planners.py regret`.",
    )


def main() -> None:
    """One table, or both."""
    wanted = sys.argv[1:] or ["overhead", "regret"]
    tables = {"overhead": overhead, "regret": regret}
    for name in wanted:
        tables[name]()


if __name__ == "__main__":
    main()
