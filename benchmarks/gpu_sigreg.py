"""Is the Triton SIGReg right on this GPU, how fast is it, and how far off is the model?

    python benchmarks/gpu_sigreg.py          accuracy, the whole step, the kernels; saved in between
    python benchmarks/gpu_sigreg.py tune     times of the fused kernels by their launch parameters

Times are of replayed CUDA graphs, which hold many steps: a step of 150 µs is shorter than Python
needs to launch it.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from bench_sigreg import KNOTS, NUM_PROJ, published
from harness import (
    RESULTS,
    Call,
    Cell,
    Timing,
    duration,
    interleave,
    mebibytes,
    peak_memory,
    save,
    speedup,
)
from torch import Tensor

from sigreg import Quadrature, SIGReg, random_directions, sigreg_loss, trapezoid_rule
from sigreg._kernels.contract import Problem
from sigreg.directions import Sketch

SHAPES = ((1, 8192, 512), (8, 512, 512), (4, 128, 192))
STEPS = 20  # in one graph, so that what surrounds a replay is small beside it


def graphed(call: Call, steps: int = STEPS) -> Call:
    """A replay of `steps` calls captured in one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(steps):
            call()
    return graph.replay


def replayed(calls: Mapping[str, Call], rounds: int = 21) -> dict[str, Timing]:
    """Seconds of one call among those of its graph."""
    graphs = {name: graphed(call) for name, call in calls.items()}
    times = interleave(graphs, device="cuda", rounds=rounds, warmup=3)
    return {name: Timing(tuple(s / STEPS for s in t.seconds)) for name, t in times.items()}


def gradient(z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Of one loss."""
    leaf = z.detach().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def accuracy() -> None:
    """Gradient errors of the kernels and of eager float32, both against float64."""
    results, rows = [], []
    for shape, knots, masked in (
        ((1, 130, 33), 17, False),
        ((3, 257, 64), 17, True),
        ((2, 70_001, 3), 9, False),
        ((1, 4096, 192), 33, True),
        ((1, 8192, 512), 17, False),
    ):
        z = torch.randn(shape, device="cuda", dtype=torch.float64)
        mask = torch.rand(shape[:-1], device="cuda") > 0.3 if masked else None
        sketch = Sketch(129, seed=0).cuda().eval()
        a, rule = (
            random_directions(129, shape[-1], seed=0, step=0, device="cuda"),
            trapezoid_rule(knots),
        )

        def loss(
            leaf: Tensor, backend: str, mask: Tensor | None = mask, rule: Quadrature = rule,
            a: Tensor = a, sketch: Sketch = sketch,
        ) -> Tensor:  # fmt: skip
            directions = sketch.draw(leaf) if backend == "triton" else a.to(leaf)
            return sigreg_loss(leaf, directions, rule, mask=mask, backend=backend, chunk=64)

        exact = gradient(z, lambda leaf, loss=loss: loss(leaf, "reference"))
        errors = {}
        for name, backend in (("eager", "reference"), ("fused", "triton")):
            found = gradient(z.float(), lambda leaf, loss=loss, b=backend: loss(leaf, b))
            errors[name] = float((found.double() - exact).norm() / exact.norm())
        results.append({"shape": shape, "knots": knots, "masked": masked, **errors})
        shown = (f"{errors['eager']:.2g}", f"{errors['fused']:.2g}")
        factor = f"{errors['fused'] / errors['eager']:.2f}"
        rows.append([str(shape), knots, "yes" if masked else "no", *shown, factor])
    save(
        "gpu_sigreg_accuracy",
        "Relative error of SIGReg's gradient on a GPU against float64, M = 129.",
        results,
        columns=("[..., N, D]", "K", "masked", "eager float32", "fused", "fused over eager"),
        rows=rows,
    )


def modelled() -> dict[tuple[int, ...], float]:
    """Seconds that the model saved, by size; empty if it was not run."""
    path = RESULTS / "kernels.json"
    if not path.exists():
        return {}
    model = json.loads(path.read_text())["model"]
    return {(r["groups"], r["n"], r["d"]): 1e-6 * r["us"] for r in model}


def whole() -> None:
    """Forward and backward, directions included, beside the eager and the compiled formula."""
    results: list[dict[str, Any]] = []
    rows: list[list[Cell]] = []
    expected = modelled()
    for shape, precision in itertools.product(SHAPES, ("highest", "high")):
        torch.set_float32_matmul_precision(precision)
        torch.compiler.reset()
        z = torch.randn(shape, device="cuda")
        rule = trapezoid_rule(KNOTS).to(z)
        layer = SIGReg(KNOTS, NUM_PROJ).cuda()
        compiled = torch.compile(published)
        calls: dict[str, Call] = {
            "published": lambda z=z, rule=rule: gradient(z, lambda x: published(x, rule)),
            "compiled": lambda z=z, rule=rule, f=compiled: gradient(z, lambda x: f(x, rule)),
            "fused": lambda z=z, layer=layer: gradient(z, layer),
        }
        times = replayed(calls)
        memory = {name: peak_memory(call, device="cuda") for name, call in calls.items()}
        record: dict[str, Any] = {"shape": shape, "matmul_precision": precision}
        for name, timing in times.items():
            record |= {f"{name}_seconds": timing.record(), f"{name}_bytes": memory[name]}
            rows.append([
                f"{shape}, {name}, {precision}",
                str(timing),
                f"{speedup(times, of='fused', over=name).median:.1f}×",
                duration(expected[shape]) if name == "fused" and shape in expected else "",
                mebibytes(memory[name]),
            ])  # fmt: skip
        results.append(record)
        save(
            "gpu_sigreg",
            f"SIGReg on a GPU: M = {NUM_PROJ}, K = {KNOTS}, float32, forward and backward, "
            "directions included, replayed as a CUDA graph.",
            results,
            columns=("what", "time", "fused is faster by", "modelled for an H200", "peak memory"),
            rows=rows,
            note="By the precision of float32 products that eager may use; the fused loss always "
            "keeps its own. Peak memory beyond the inputs.",
        )


def kernels() -> None:
    """Each kernel by itself at the first size, beside what the model gave it."""
    from sigreg._kernels.ecf_triton import launch

    groups, n, d = SHAPES[0]
    problem, directions, x, weights = parts(groups, n, d)
    z = problem.z.view(groups * n, d)
    sums = launch._sums(x, directions, problem)
    out = torch.empty_like(z)
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    sizes = (None, None)
    half_a_gib = torch.empty(1 << 27, device="cuda")
    calls: dict[str, Call] = {
        "directions": lambda: launch.gaussian_directions(NUM_PROJ, d, 0, step),
        "projections": lambda: launch._project(z, directions, problem),
        "sums": lambda: launch._sums(x, directions, problem),
        "finish": lambda: launch._finish(sums, directions, sizes, NUM_PROJ, problem),
        "gradient of the projections": lambda: launch._pull(x, directions, weights, problem),
        "pull back": lambda: launch._times(x.flatten(0, 1), directions.rows, out),
        "copy of 1 GiB": half_a_gib.clone,
    }
    times = replayed(calls)
    path = RESULTS / "kernels.json"
    model = json.loads(path.read_text())["model"][0]["kernels_us"] if path.exists() else {}
    save(
        "gpu_sigreg_kernels",
        f"SIGReg's kernels on a GPU, one by one: N = {n}, D = {d}, M = {NUM_PROJ}, K = {KNOTS}.",
        [{"kernel": name, "seconds": t.record()} for name, t in times.items()],
        columns=("kernel", "time", "modelled for an H200"),
        rows=[[name, str(t), duration(1e-6 * model[name]) if name in model else ""]
              for name, t in times.items()],
        note="The copy reads and writes half a GiB each.",
    )  # fmt: skip


def parts(groups: int, n: int, d: int) -> tuple[Problem, Any, Tensor, Tensor]:
    """A problem, its directions as the kernels take them, projections and weights."""
    from sigreg._kernels.ecf_triton import launch

    z = torch.randn(groups, n, d, device="cuda")
    drawn = Sketch(NUM_PROJ).cuda().draw(z)
    problem = Problem(z, drawn, None, trapezoid_rule(KNOTS).to(z), True, 0, "", True, False)
    x = launch._project(z.view(groups * n, d), drawn, problem)
    sums = launch._sums(x, drawn, problem)
    _, weights = launch._finish(sums, drawn, (None, None), NUM_PROJ, problem)
    return problem, drawn, x, weights


def tune() -> None:
    """Times of both fused kernels over their launch parameters; the defaults are in launch.py."""
    from sigreg._kernels.ecf_triton import launch

    problem, directions, x, weights = parts(*SHAPES[0])
    for warps, programs in itertools.product((4, 8, 16), (1, 2, 3, 4, 6, 8)):
        launch._WARPS = launch._ROWS = warps
        launch._PROGRAMS_PER_SM = programs
        times = replayed(
            {
                "sums": lambda: launch._sums(x, directions, problem),
                "pull": lambda: launch._pull(x, directions, weights, problem),
            },
            rounds=7,
        )
        shown = ", ".join(f"{name} {duration(t.median)}" for name, t in times.items())
        print(f"warps {warps}, programs per multiprocessor {programs}: {shown}", flush=True)


def main() -> int:
    """Everything, where there is a GPU; a part that fails leaves those before it saved."""
    if not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    torch.manual_seed(0)
    if sys.argv[1:] == ["tune"]:
        tune()
        return 0
    return sum(fails(part) for part in (accuracy, whole, kernels))


def fails(part: Call) -> bool:
    """Run a part; if it fails, say so and let the next one tell what it can."""
    try:
        part()
    except Exception:
        traceback.print_exc()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
