"""How fast is the fused SIGReg beside the published formula, and how much memory does it take?

`python benchmarks/bench_sigreg.py processor` counts the processor time of one thread, which other
programs hardly move; `... wall` times two threads by the clock and wants a quiet machine, or
`chrt -f 1` in front of it; without a word both run. What grows with which size, what orthogonal
directions are worth and what SIGReg costs in a training step are three scripts of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import torch
from harness import Call, Timing, interleave, mebibytes, peak_memory, save, speedup
from torch import Tensor

from sigreg import Quadrature, SIGReg, random_directions, sigreg_loss, trapezoid_rule
from sigreg.reference import ecf_sums, epps_pulley

SHAPES = ((4, 128, 192), (8, 512, 512))
NUM_PROJ, KNOTS = 1024, 17
BACKENDS = ("cpu", "cpp")


def published(z: Tensor, rule: Quadrature, directions: Tensor | None = None) -> Tensor:
    """The released formula: normals normalised by column, every knot's sine and cosine kept."""
    if directions is None:
        a = torch.randn(z.shape[-1], NUM_PROJ, device=z.device)
        directions = (a / a.norm(dim=0)).T
    n = z.shape[-2]
    cos, sin = ecf_sums(z @ directions.T, rule.t)
    return epps_pulley(cos / n, sin / n, n, rule).mean()


def step(z: Tensor, loss: Tensor) -> None:
    """Backward of one loss, into a fresh gradient."""
    z.grad = None
    loss.backward()


def processor_time(calls: Mapping[str, Call], rounds: int) -> dict[str, Timing]:
    """`interleave` on one thread, in seconds that the thread has run: waiting does not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    try:
        for i in range(rounds + 1):
            for name, call in calls.items():
                start = time.thread_time()
                call()
                if i:  # the first round warms caches and allocator
                    seconds[name].append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def gradient_errors(shape: tuple[int, ...]) -> dict[str, float]:
    """Relative errors of the float32 gradients, published and fused, against float64."""
    z = torch.randn(shape, dtype=torch.float64)
    directions = random_directions(NUM_PROJ, shape[-1], seed=0, step=0)

    def gradient(dtype: torch.dtype, backend: str) -> Tensor:
        total = torch.zeros_like(z)
        for a in torch.split(directions, 64):  # or the published formula takes gigabytes
            leaf = z.to(dtype).requires_grad_()
            loss = sigreg_loss(leaf, a.to(dtype), trapezoid_rule(), backend=backend)
            total += torch.autograd.grad(loss, leaf)[0]
        return total

    truth = gradient(torch.float64, "reference")
    return {
        name: float((gradient(torch.float32, name) - truth).norm() / truth.norm())
        for name in ("reference", *BACKENDS)
    }


def compile_seconds() -> float:
    """How long the kernel of backend="cpp" takes to compile, in a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "from sigreg._kernels.ecf_cpp import library; library()"],
            env=os.environ | {"XDG_CACHE_HOME": cache},
            check=True,
        )
        return time.perf_counter() - start


def compare(wall: bool) -> None:
    """All formulas, forward and backward, directions drawn inside."""
    results, rows = [], []
    rule = trapezoid_rule().to(torch.zeros(()))
    for shape in SHAPES:
        z = torch.randn(shape, requires_grad=True)
        layers = {name: SIGReg(KNOTS, NUM_PROJ, backend=name) for name in BACKENDS}
        calls: dict[str, Call] = {"published": lambda z=z: step(z, published(z, rule))}
        calls |= {
            name: lambda z=z, layer=layer: step(z, layer(z)) for name, layer in layers.items()
        }
        small = shape == SHAPES[0]
        rounds = 15 if small else 5
        times = interleave(calls, rounds=rounds) if wall else processor_time(calls, rounds)
        memory = {name: peak_memory(call) for name, call in calls.items()}
        errors = gradient_errors(shape)
        for name in BACKENDS:
            faster = speedup(times, of=name, over="published")
            results.append(
                {
                    "shape": shape,
                    "num_proj": NUM_PROJ,
                    "knots": KNOTS,
                    "backend": name,
                    "published_seconds": times["published"].record(),
                    "fused_seconds": times[name].record(),
                    "published_bytes": memory["published"],
                    "fused_bytes": memory[name],
                    "speedup": faster.record(),
                    "published_gradient_error": errors["reference"],
                    "fused_gradient_error": errors[name],
                }
            )
            rows.append(
                [
                    str(shape),
                    f'"{name}"',
                    str(times["published"]),
                    str(times[name]),
                    f"{faster.median:.1f}×",
                    mebibytes(memory["published"]),
                    mebibytes(memory[name]),
                    f"{memory['published'] / memory[name]:.0f}×",
                    f"{errors[name] / errors['reference']:.2f}",
                ]
            )
    save(
        "sigreg_wall" if wall else "sigreg",
        "The fused SIGReg beside the published eager formula: forward and backward, directions "
        f"included, M = {NUM_PROJ}, K = {KNOTS}, float32, "
        + ("by the clock." if wall else "processor time of one thread."),
        results,
        columns=(
            "[..., N, D]",
            "backend",
            "published",
            "fused",
            "faster",
            "its memory",
            "ours",
            "less",
            "gradient error, ours over its",
        ),
        rows=rows,
        note="Median and quartiles of interleaved rounds. Memory is the peak of tensors alive "
        'beyond the inputs. Errors are against float64. The kernel of "cpp" was compiled in '
        f"{compile_seconds():.1f} s, once, import of torch included.",
    )


def main() -> None:
    """The comparison at both shapes."""
    torch.manual_seed(0)
    for clock in sys.argv[1:] or ["processor", "wall"]:
        compare(wall=clock == "wall")


if __name__ == "__main__":
    main()
