"""How long do the GPU kernels take, by a model of their machine code? Not measured.

    python benchmarks/kernels.py                 the tables of the docs
    python benchmarks/kernels.py --json FILE     every variant and the model, for a program
    python benchmarks/kernels.py --fast          the variants of default calls alone

It needs triton and no GPU. `ahead.py` compiles the kernels in a process of its own and counts the
instructions of their loops by unit. The model makes a time of these counts, NVIDIA's published
rates of an H200, the number of resident programs (by registers) and the bytes moved.
`gpu_sigreg.py` measures the time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import Cell, save

ARCHS = (80, 90, 100)
SIZES = ((1, 8192, 512), (8, 512, 512), (4, 128, 192))  # G, N, D of the tables in the docs
NUM_PROJ, KNOTS = 1024, 17

# NVIDIA H200 SXM data sheet: 989 TFLOP/s bfloat16 dense, 4.8 TB/s; 132 multiprocessors of 4
# schedulers, each an instruction of a warp a cycle. At this clock 4,096 operations a cycle and
# multiprocessor are the 989 TFLOP/s; the published float32 rate implies 8 % more of it.
PROCESSORS, SCHEDULERS, CLOCK = 132, 4, 1.83e9
TENSOR = 4096.0  # operations a cycle and multiprocessor
MEMORY = 4.8e12
REGISTERS, WARPS = 65536, 64  # of a multiprocessor
# CUDA C++ Programming Guide, arithmetic throughput at 9.0: instructions of a warp a cycle.
RATES = {"fma": 4.0, "alu": 2.0, "convert": 2.0, "special": 0.5, "shuffle": 1.0}
MOVES = ("load", "store", "shared")  # together one a cycle
# Not published, assumed from what others measured on this generation.
MEMORY_SHARE = 0.9  # of the published bandwidth that a plain copy reaches
L2 = 5.5e12
LATENCY = 700  # cycles until a load from memory arrives
PER_INSTRUCTION = 4  # cycles of a warp that is alone on its scheduler
GAP = 1.0e-6  # between two kernels of a replayed graph
PASSES = 23  # of the eager formula over arrays of all projections × knots, forward and backward


class Kernel(NamedTuple):
    """The counts of one compiled kernel at 9.0, for float32 samples and 17 knots."""

    registers: int
    threads: int
    instructions: int
    loop: Mapping[str, int]

    def resident(self) -> int:
        """Warps of a scheduler that fit at a time: registers come in eights."""
        of_program = -(-self.registers // 8) * 8 * self.threads
        programs = min(REGISTERS // of_program, 32 * WARPS // self.threads)
        return programs * self.threads // 32 // SCHEDULERS

    def cycles(self) -> float:
        """Of a multiprocessor for one warp's way through the loop: the busiest unit decides."""
        moves = sum(self.loop.get(unit, 0) for unit in MOVES)
        units = [self.loop.get(unit, 0) / rate for unit, rate in RATES.items()]
        return max(self.loop["all"] / SCHEDULERS, moves, *units)


Kernels = Mapping[str, Kernel]


def compiled(archs: Sequence[int], fast: bool) -> list[dict[str, Any]]:
    """Every variant, from a process without the interpreter."""
    script = Path(__file__).with_name("ahead.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    words = [*map(str, archs), *(["--plain"] if fast else [])]
    done = subprocess.run(
        [sys.executable, str(script), *words],
        check=True, stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def plain(variants: Sequence[Mapping[str, Any]]) -> Kernels:
    """The kernels of a plain call at 9.0; products by their tile, the second the pull back's."""
    found: dict[str, Kernel] = {}
    for v in variants:
        first = (v["arch"], v["dtype"], v["knots"]) == (90, "float32", 17)
        if not first or v["what"] not in ("", "N 8192, M 1024, D 512", "D 512"):
            continue
        name = v["kernel"].removesuffix("_kernel")
        if name == "product":
            name = f"{name} {128 if v['threads'] == 256 else 64}"
        name = f"{name} back" if name in found else name
        found[name] = Kernel(v["registers"], v["threads"], v["instructions"], v["loop"])
    return found


def times(kernels: Kernels, g: int, n: int, d: int) -> dict[str, float]:
    """Seconds of every kernel of one forward and backward, in order, gaps not counted."""
    rows, m = g * n, NUM_PROJ
    memory = MEMORY * MEMORY_SHARE

    def walk(kernel: Kernel, size: int) -> float:
        """Of the fused kernels: two samples a pass, the next ones already on their way."""
        passes = rows * m / 2 / 32 / PROCESSORS
        waiting = max(1.0, LATENCY / (kernel.resident() * kernel.loop["all"]))
        return max(passes * kernel.cycles() * waiting / CLOCK, size / memory)

    def product(inner: int, columns: int, back: str = "") -> float:
        """Of a product: steps of 64, in which a warp's tensor work waits for its splitting."""
        block = 128 if 2 * math.ceil(rows / 128) * math.ceil(columns / 128) >= PROCESSORS else 64
        kernel = kernels[f"product {block}{back}"]
        tiles = math.ceil(rows / block) * math.ceil(columns / block)
        splitting = kernel.threads // 32 * kernel.cycles()
        tensor = 3 * 2 * block * block * 64 / TENSOR
        bytes_cycle = L2 / CLOCK / PROCESSORS
        reading = block * 64 * (4 + 2) / bytes_cycle
        ends = 2 * LATENCY + block * block * 4 / bytes_cycle
        tile = math.ceil(inner / 64) * max(splitting + tensor, reading) + ends
        return math.ceil(tiles / PROCESSORS) * tile / CLOCK

    def alone(kernel: Kernel, loads: float) -> float:
        """Of a kernel too small to hide anything: its chain of instructions and of loads."""
        return (kernel.instructions * PER_INSTRUCTION + loads * LATENCY) / CLOCK

    programs = 3 * PROCESSORS // (g * m // 32)
    splits = max(1, min(programs, n // 64))
    return {
        "directions": alone(kernels["rows"], 3),
        "projections": product(d, m),
        "sums": walk(kernels["sums"], 4 * rows * m),
        "finish": alone(kernels["finish"], 3 + splits / 4),
        "sum of the loss": 3 * LATENCY / CLOCK,
        "gradient of the projections": walk(kernels["pull"], 8 * rows * m),
        "pull back": product(m, d, " back"),
        "times what comes from above": 8 * rows * d / memory,
    }


def model(kernels: Kernels, g: int, n: int, d: int) -> dict[str, Any]:
    """One size: ours, the eager formula, and a lower bound for such kernels."""
    rows, m, k = g * n, NUM_PROJ, KNOTS
    ours = times(kernels, g, n, d)
    flops = 2 * rows * m * d
    float32 = 2 * 128 * PROCESSORS * CLOCK
    eager = PASSES * 4 * rows * m * k / (MEMORY * MEMORY_SHARE) + 2 * flops / float32 + 25 * GAP
    tensor = 2 * 3 * flops / (TENSOR * PROCESSORS * CLOCK)
    least = sum(kernels[name].loop["fma"] / 2 for name in ("sums", "pull"))
    operations = rows * m * least / (128 * PROCESSORS * CLOCK)
    moved = (8 * rows * d + 2 * m * d) / MEMORY
    total = sum(ours.values()) + GAP * len(ours)
    return {
        "gpu": "H200",
        "groups": g,
        "n": n,
        "d": d,
        "m": m,
        "k": k,
        "us": 1e6 * total,
        "eager_us": 1e6 * eager,
        "floor_us": 1e6 * max(tensor, operations, moved),
        "bytes_floor_us": 1e6 * moved,
        "operations_floor_us": 1e6 * max(tensor, operations),
        "kernels_us": {name: 1e6 * seconds for name, seconds in ours.items()},
        "projecting_inside_saves_at_most_us": 1e6 * (ours["sums"] + GAP),
    }


def microseconds(value: float) -> str:
    """Two digits, because a model gives no more."""
    return f"{float(f'{value:.2g}'):,.0f} µs" if value >= 10 else f"{value:.2g} µs"


def save_model(rows: Sequence[Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]) -> None:
    """The table of times."""
    table: list[list[Cell]] = [
        [
            f"({r['groups']}, {r['n']}, {r['d']})",
            *(microseconds(r[key]) for key in ("us", "eager_us")),
            f"{r['eager_us'] / r['us']:.0f}×",
            *(microseconds(r[key]) for key in ("operations_floor_us", "bytes_floor_us")),
        ]
        for r in rows
    ]
    largest = rows[0]
    parts = ", ".join(f"{n} {microseconds(t)}" for n, t in largest["kernels_us"].items())
    save(
        "kernels",
        "Modelled, not measured: SIGReg on an H200, M = 1024, K = 17, float32, forward and "
        "backward, directions included, as a replayed graph.",
        rows,
        columns=(
            "[..., N, D]",
            "fused",
            "published",
            "faster",
            "operations' floor",
            "bytes' floor",
        ),
        rows=table,
        note=f"From instructions of the compiled kernels, published rates, and assumptions that "
        f"`benchmarks/kernels.py` names; expect a third of error. Of the first row: {parts}, and "
        f"{1e6 * GAP:.0f} µs after each. Projecting inside the kernel would save at most "
        f"{microseconds(largest['projecting_inside_saves_at_most_us'])} of it.",
        extra={"variants": [contract(v) for v in variants], "model": list(rows)},
    )


def save_counts(variants: Sequence[Mapping[str, Any]]) -> None:
    """The table of what was counted."""
    # What one pass of a thread, or of a warp, through the loop serves.
    passes = {"sums_kernel": (2, "projection"), "pull_kernel": (2, "projection"),
              "product_kernel": (1, "warp's step of 64 columns")}  # fmt: skip
    units = ("all", "fma", "alu", "load", "shared", "tensor")
    rows: list[list[Cell]] = []
    shown = []
    for v in variants:
        if v["arch"] != 90 or v["dtype"] == "float64" or "given" in v["what"]:
            continue
        if v["kernel"] not in passes or "without N" in v["what"]:
            continue
        count, per = passes[v["kernel"]]
        what = ", ".join(filter(None, (v["dtype"], f"K = {v['knots']}", v["what"])))
        counts = (f"{v['loop'].get(unit, 0) / count:g}" for unit in units)
        shown.append({**contract(v), "loop": v["loop"]})
        rows.append([v["kernel"], what, v["registers"], *counts, per])
    save(
        "kernels_counts",
        "What was counted: the GPU's kernels compiled for an H200 (sm_90).",
        shown,
        columns=("kernel", "first needed by", "registers", "instructions", "float32", "logic",
                 "loads", "shared memory", "tensor cores", "for each"),
        rows=rows,
        note="Instructions of the longest loop; what is in no column is addresses and control. A "
        "kernel that has two rows with more than 17 knots serves the first and the later pairs of "
        "centres.",
    )  # fmt: skip


def contract(variant: Mapping[str, Any]) -> dict[str, Any]:
    """A variant as JSON."""
    return {key: variant[key] for key in (
        "kernel", "arch", "dtype", "knots", "what",
        "registers", "spill_bytes", "shared_bytes", "instructions",
    )}  # fmt: skip


def main() -> int:
    """Compile, count, model; write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write variants and model there, save nothing")
    parser.add_argument("--fast", action="store_true", help="the variants of default calls alone")
    parser.add_argument("--archs", type=int, nargs="+", default=ARCHS, help="90 among them")
    arguments = parser.parse_args()
    variants = compiled(arguments.archs, arguments.fast)
    rows = [model(plain(variants), *size) for size in SIZES]
    if arguments.json:
        record = {"variants": variants, "model": rows}
        partial = arguments.json.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        partial.replace(arguments.json)
        return 0
    save_model(rows, variants)
    save_counts(variants)
    return 0


if __name__ == "__main__":
    sys.exit(main())
