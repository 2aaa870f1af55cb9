"""Is the Triton SIGReg right on this GPU, and how near is it to what the GPU could do?

    python benchmarks/gpu_sigreg.py          parity, comparison, memory, share of the floor
    python benchmarks/gpu_sigreg.py tune     times of the kernels' launch parameters

Two floors: the bytes the kernels cannot avoid (each reads the projections once, the backward
writes them once) over the memory bandwidth measured here by a copy, and the float32 instructions
they cannot avoid over the peak rate. The better, that is higher, of the two is the bound.
"""

from __future__ import annotations

import itertools
import sys

import torch
from bench_sigreg import KNOTS, NUM_PROJ, published, step
from harness import Cell, duration, interleave, mebibytes, peak_memory, save, speedup
from torch import Tensor

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid

N, D = 8192, 512
SPACING = 3.0 / 16
# Instructions per projection: 20 for a sine and a cosine, 14 for their multiples; forward 36
# products into 36 sums, backward 36 into 4 and 4 more to join them.
FORWARD_OPS, BACKWARD_OPS = 70, 74
FP32_LANES = 128  # per multiprocessor, compute capability 8.6 and later; 9.0 too


def parity() -> float:
    """Largest relative gradient error against float64 over odd sizes, masks and dtypes."""
    worst = 0.0
    for shape, knots, masked in (
        ((1, 130, 33), 17, False),
        ((3, 257, 64), 17, True),
        ((2, 70_001, 3), 9, False),
        ((1, 4096, 192), 33, True),
    ):
        z = torch.randn(shape, device="cuda", dtype=torch.float64)
        mask = torch.rand(shape[:-1], device="cuda") > 0.3 if masked else None
        a = random_directions(129, shape[-1], seed=0, step=0, device="cuda")
        gradients = []
        for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
            leaf = z.to(dtype).requires_grad_()
            rule = trapezoid(knots)
            loss = sigreg_loss(leaf, a.to(dtype), rule, mask=mask, backend=backend, chunk=64)
            gradients.append(torch.autograd.grad(loss, leaf)[0].double())
        truth, ours = gradients
        worst = max(worst, float((ours - truth).norm() / truth.norm()))
    leaf = torch.randn(N, 64, device="cuda", requires_grad=True)
    layer = SIGReg().cuda().eval()
    first, second = (torch.autograd.grad(layer(leaf), leaf)[0] for _ in range(2))
    assert torch.equal(first, second), "same input, other bits"
    assert worst < 1e-5, f"relative gradient error {worst}"
    graphed(layer, leaf, torch.autograd.grad(layer(leaf), leaf)[0])
    return worst


def graphed(layer: SIGReg, leaf: Tensor, expected: Tensor) -> None:
    """A CUDA graph of forward and backward replays to the same bits."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(layer(leaf), leaf)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        (gradient,) = torch.autograd.grad(layer(leaf), leaf)
    graph.replay()
    assert torch.equal(gradient, expected), "a CUDA graph gives other bits"


def bandwidth() -> float:
    """Bytes per second of a large copy, read and write counted."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    seconds = interleave({"copy": lambda: target.copy_(source)}, device="cuda")["copy"].median
    return 2 * source.nbytes / seconds


def floors() -> dict[str, float]:
    """Seconds below which no kernel of this kind can go: bytes and operations, both ways."""
    properties = torch.cuda.get_device_properties("cuda")
    clock = torch.cuda.clock_rate() * 1e6  # MHz now, under load
    rate = properties.multi_processor_count * FP32_LANES * clock
    size, width = N * NUM_PROJ, bandwidth()
    return {
        "forward_bytes": 4 * size / width,
        "forward_operations": FORWARD_OPS * size / rate,
        "backward_bytes": 8 * size / width,
        "backward_operations": BACKWARD_OPS * size / rate,
    }


def compare() -> None:
    """The whole loss against eager and compiled formulas, and the kernels against the floors."""
    from sigreg._kernels import ecf_triton

    worst = parity()
    z = torch.randn(1, N, D, device="cuda", requires_grad=True)
    rule = trapezoid().to(z.detach())
    layer = SIGReg(KNOTS, NUM_PROJ).cuda()
    compiled = torch.compile(published)
    results: list[dict[str, object]] = []
    rows: list[list[Cell]] = []
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        torch.compiler.reset()
        calls = {
            "published": lambda: step(z, published(z, rule)),
            "compiled": lambda: step(z, compiled(z, rule)),
            "fused": lambda: step(z, layer(z)),
        }
        times = interleave(calls, device="cuda", rounds=21, warmup=5)
        memory = {name: peak_memory(call, device="cuda") for name, call in calls.items()}
        record: dict[str, object] = {"matmul_precision": precision, "gradient_error": worst}
        for name, timing in times.items():
            record |= {f"{name}_seconds": timing.record(), f"{name}_bytes": memory[name]}
            factor = speedup(times, of="fused", over=name).median
            less = memory[name] / memory["fused"]
            rows.append(
                [
                    f"{name}, matmul precision {precision}",
                    str(timing),
                    f"{factor:.1f}×",
                    mebibytes(memory[name]),
                    f"{less:.1f}×",
                ]
            )
        results.append(record)
    x = torch.randn(1, N, NUM_PROJ, device="cuda")
    pull, out = torch.randn(1, NUM_PROJ, 2 * KNOTS, device="cuda"), torch.empty_like(x)
    kernels = interleave(
        {
            "forward": lambda: ecf_triton.sums(x, None, KNOTS, SPACING),
            "backward": lambda: ecf_triton.sums_gradient(x, None, pull, SPACING, out),
        },
        device="cuda",
        rounds=21,
    )
    bound = floors()
    for name, timing in kernels.items():
        floor = max(bound[f"{name}_bytes"], bound[f"{name}_operations"])
        share = floor / timing.median
        results.append({"kernel": name, "seconds": timing.record(), "share": share, **bound})
        rows.append(
            [f"{name} kernel, floor {duration(floor)}", str(timing), f"{share:.0%} of it", "", ""]
        )
    save(
        "gpu_sigreg",
        f"SIGReg on a GPU: N = {N}, D = {D}, M = {NUM_PROJ}, K = {KNOTS}, float32, forward and "
        "backward, directions included.",
        results,
        columns=("what", "time", "fused is faster by", "peak memory", "fused takes less by"),
        rows=rows,
        note="Peak memory beyond the inputs. A kernel's floor is the higher of the time for the "
        "bytes it must move and for the operations it must do.",
    )


def tune() -> None:
    """Times of both kernels over their launch parameters; the defaults are in launch.py."""
    from sigreg._kernels.ecf_triton import launch

    x = torch.randn(1, N, NUM_PROJ, device="cuda")
    pull, out = torch.randn(1, NUM_PROJ, 2 * KNOTS, device="cuda"), torch.empty_like(x)
    for rows, programs, block in itertools.product((1, 2, 4), (2, 4, 8, 16), (64, 128, 256)):
        launch._ROWS, launch._PROGRAMS_PER_SM, launch._BLOCK_M = rows, programs, block
        times = interleave(
            {
                "forward": lambda: launch.sums(x, None, KNOTS, SPACING),
                "backward": lambda: launch.sums_gradient(x, None, pull, SPACING, out),
            },
            device="cuda",
            rounds=7,
        )
        shown = ", ".join(f"{name} {duration(t.median)}" for name, t in times.items())
        print(f"rows {rows}, programs per SM {programs}, block {block}: {shown}")


def main() -> int:
    """Everything, where there is a GPU."""
    if not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    torch.manual_seed(0)
    tune() if sys.argv[1:] == ["tune"] else compare()
    return 0


if __name__ == "__main__":
    sys.exit(main())
