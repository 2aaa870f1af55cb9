"""How fast is the fused SIGReg beside the published formula, and how much memory does it take?

`python benchmarks/bench_sigreg.py processor` counts the processor time of one thread, which other
programs hardly move; `... wall` times two threads by the clock and wants a quiet machine; without
a word both run. What grows with which size, what orthogonal directions are worth and what SIGReg
costs in a training step are three scripts of their own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import torch
from harness import Call, Timing, interleave, mebibytes, peak_memory, save, speedup
from torch import Tensor

from sigreg import Quadrature, SIGReg, random_directions, sigreg_loss, trapezoid
from sigreg.reference import ecf_sums, epps_pulley

SHAPES = ((4, 128, 192), (8, 512, 512))
NUM_PROJ, KNOTS = 1024, 17


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


def gradient_error(shape: tuple[int, ...]) -> tuple[float, float]:
    """Relative errors of the float32 gradients, published and fused, against float64."""
    z = torch.randn(shape, dtype=torch.float64)
    directions = random_directions(NUM_PROJ, shape[-1], seed=0, step=0)

    def gradient(dtype: torch.dtype, backend: str) -> Tensor:
        total = torch.zeros_like(z)
        for a in torch.split(directions, 64):  # or the published formula takes gigabytes
            leaf = z.to(dtype).requires_grad_()
            loss = sigreg_loss(leaf, a.to(dtype), trapezoid(), backend=backend)
            total += torch.autograd.grad(loss, leaf)[0]
        return total

    truth = gradient(torch.float64, "reference")
    plain, fused = (
        float((gradient(torch.float32, name) - truth).norm() / truth.norm())
        for name in ("reference", "cpu")
    )
    return plain, fused


def compare(wall: bool) -> None:
    """Both formulas, forward and backward, directions drawn inside."""
    results, rows = [], []
    rule = trapezoid().to(torch.zeros(()))
    for shape in SHAPES:
        z = torch.randn(shape, requires_grad=True)
        layer = SIGReg(KNOTS, NUM_PROJ)

        def eager(z: Tensor = z) -> None:
            step(z, published(z, rule))

        def fused(z: Tensor = z, layer: SIGReg = layer) -> None:
            step(z, layer(z))

        small = shape == SHAPES[0]
        calls = {"published": eager, "fused": fused}
        rounds = 15 if small else 5
        times = interleave(calls, rounds=rounds) if wall else processor_time(calls, rounds)
        memory = {name: peak_memory(call) for name, call in calls.items()}
        faster = speedup(times, of="fused", over="published")
        plain_error, fused_error = gradient_error(shape)
        results.append(
            {
                "shape": shape,
                "num_proj": NUM_PROJ,
                "knots": KNOTS,
                **{f"{name}_seconds": timing.record() for name, timing in times.items()},
                **{f"{name}_bytes": count for name, count in memory.items()},
                "speedup": faster.record(),
                "published_gradient_error": plain_error,
                "fused_gradient_error": fused_error,
            }
        )
        rows.append(
            [
                str(shape),
                str(times["published"]),
                str(times["fused"]),
                f"{faster.median:.1f}×",
                mebibytes(memory["published"]),
                mebibytes(memory["fused"]),
                f"{memory['published'] / memory['fused']:.0f}×",
                f"{fused_error / plain_error:.2f}",
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
        "beyond the inputs. Errors are against float64.",
    )


def main() -> None:
    """The comparison at both shapes."""
    torch.manual_seed(0)
    for clock in sys.argv[1:] or ["processor", "wall"]:
        compare(wall=clock == "wall")


if __name__ == "__main__":
    main()
