"""How fast is the fused SIGReg beside the published formula, and how much memory does it take?

`python benchmarks/bench_sigreg.py` compares the two at the two shapes of the goals;
`... curves` measures cost against N, M, K and D; `... samplers` measures orthogonal directions.
Each takes about a minute on two quiet cores and writes its own record.
"""

from __future__ import annotations

import functools
import sys

import torch
from harness import duration, interleave, mebibytes, peak_memory, save, speedup
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


def gradient_error(shape: tuple[int, ...]) -> tuple[float, float]:
    """Relative errors of the float32 gradients, published and fused, against float64."""
    z = torch.randn(shape, dtype=torch.float64)[:2, :128]
    a = random_directions(256, shape[-1], seed=0, step=0)

    def gradient(dtype: torch.dtype, backend: str) -> Tensor:
        leaf = z.to(dtype).requires_grad_()
        loss = sigreg_loss(leaf, a.to(dtype), trapezoid(), backend=backend)
        return torch.autograd.grad(loss, leaf)[0].double()

    truth = gradient(torch.float64, "reference")
    plain, fused = (
        float((gradient(torch.float32, name) - truth).norm() / truth.norm())
        for name in ("reference", "cpu")
    )
    return plain, fused


def compare() -> None:
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
        times = interleave(calls, rounds=9 if small else 3, warmup=1)
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
        "sigreg",
        "The fused SIGReg beside the published eager formula: forward and backward, directions "
        f"included, M = {NUM_PROJ}, K = {KNOTS}, float32.",
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
        "beyond the inputs. Errors are against float64, on the first 2 × 128 samples and 256 "
        "directions.",
    )


def curves() -> None:
    """Time and memory of the fused loss against each size, the others held."""
    base = {"N": 128, "D": 192, "M": 1024, "K": 17}
    sweeps = {
        "N": (32, 128, 512, 2048),
        "D": (48, 192, 768),
        "M": (256, 1024, 4096),
        "K": (9, 17, 33, 65),
    }
    results, rows = [], []
    for name, values in sweeps.items():
        for value in values:
            size = base | {name: value}
            z = torch.randn(4, size["N"], size["D"], requires_grad=True)
            layer = SIGReg(size["K"], size["M"])

            def fused(z: Tensor = z, layer: SIGReg = layer) -> None:
                step(z, layer(z))

            timing = interleave({"fused": fused}, rounds=7)["fused"]
            memory = peak_memory(fused)
            results.append({"sweep": name, **size, "seconds": timing.record(), "bytes": memory})
            rows.append([f"{name} = {value}", str(timing), mebibytes(memory)])
    save(
        "sigreg_curves",
        "Cost of the fused SIGReg against each size: forward and backward of [4, N, D], otherwise "
        "N = 128, D = 192, M = 1024, K = 17.",
        results,
        columns=("size", "time", "peak memory"),
        rows=rows,
    )


def samplers() -> None:
    """What orthogonal directions save in error and cost in time."""
    num, results, rows = 200, [], []
    for dim in (64, 192):
        spectrum = {"isotropic": torch.ones(dim), "rank 16": (torch.arange(dim) < 16).float()}
        z0 = torch.randn(256, dim)
        names = ("gaussian", "orthogonal")
        draw = functools.partial(random_directions, 2 * dim, dim, seed=0, step=0)
        calls = {name: functools.partial(draw, sampler=name) for name in names}
        times = interleave(calls, rounds=9)
        for kind, scale in spectrum.items():
            spread = {}
            for name in names:
                values, pulls = [], []
                for s in range(num):
                    leaf = (z0 * scale).requires_grad_()
                    a = random_directions(dim * 2, dim, seed=1, step=s, sampler=name)
                    loss = sigreg_loss(leaf, a, trapezoid())
                    values.append(loss.detach())
                    pulls.append(torch.autograd.grad(loss, leaf)[0])
                stack = torch.stack(pulls)
                mean = stack.mean(0)
                noise = (stack - mean).square().sum((1, 2)).mean().sqrt() / mean.norm()
                spread[name] = (float(torch.stack(values).std()), float(noise))
            ratio = spread["orthogonal"][1] / spread["gaussian"][1]
            record = {"dim": dim, "num_proj": 2 * dim, "data": kind}
            for name in names:
                record |= {
                    f"{name}_loss_std": spread[name][0],
                    f"{name}_gradient_noise": spread[name][1],
                    f"{name}_seconds": times[name].record(),
                }
            results.append(record)
            rows.append(
                [
                    f"D = {dim}, {kind}",
                    f"{spread['gaussian'][1]:.3f}",
                    f"{spread['orthogonal'][1]:.3f}",
                    f"{100 * (1 - ratio):.0f} %",
                    duration(times["gaussian"].median),
                    duration(times["orthogonal"].median),
                ]
            )
    save(
        "sigreg_samplers",
        "Noise that the random directions leave in the gradient (relative, over 200 draws) and "
        "the time to draw them, with M = 2D.",
        results,
        columns=("data", "gaussian", "orthogonal", "less noise", "draw, gaussian", "orthogonal"),
        rows=rows,
    )


def main() -> None:
    """The comparison, or what the command line names."""
    torch.manual_seed(0)
    wanted = sys.argv[1:] or ["compare"]
    for name in wanted:
        {"compare": compare, "curves": curves, "samplers": samplers}[name]()


if __name__ == "__main__":
    main()
