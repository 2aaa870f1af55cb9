"""Compile the GPU kernels without a GPU, and read their machine code.

    python benchmarks/ahead.py 90 80 ...     every variant as one JSON list; fewer with --fast,
                                             those of two default calls with --plain;
                                             with --usage no machine code is read, which takes
                                             as long as compiling: no instructions, no loop

The launches are the library's own: its host code runs on tensors of the CPU while `JITFunction.run`
compiles instead of launching. It runs in a process of its own, without TRITON_INTERPRET. Triton's
package contains ptxas, cuobjdump and nvdisasm, so no GPU and no driver is needed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from sigreg import trapezoid_rule
from sigreg._kernels.contract import Problem
from sigreg._kernels.ecf_triton import launch
from sigreg.directions import Directions

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Shared memory that a program may have, by compute capability: NVIDIA's tuning guides.
SHARED = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}
# The unit of an instruction, by the beginning of its name; others are integer and control.
UNITS = {
    "fma": ("FFMA", "FADD", "FMUL", "HFMA2", "DFMA", "DADD", "DMUL"),
    "alu": ("FSEL", "FSETP", "LOP3", "SHF", "ISETP", "SEL", "PRMT", "FMNMX", "IADD", "VIADD"),
    "convert": ("F2F", "I2F", "F2I", "FRND"),
    "special": ("MUFU",),
    "load": ("LDG", "LD.", "LDGSTS", "UBLKCP", "UTMA"),
    "store": ("STG",),
    "shared": ("LDS", "STS", "LDSM", "STSM", "ATOMS"),
    "shuffle": ("SHFL",),
    "tensor": ("HMMA", "HGMMA", "UTCHMMA", "UTCMMA", "DMMA"),
    "spill": ("LDL", "STL"),
}


class Variant(NamedTuple):
    """One compiled kernel.

    Attributes:
        kernel: its name.
        arch: compute capability, 90 for an H100 or H200.
        dtype: of the samples that the user gave.
        knots: K of the call that first needed it.
        what: the rest of that call, in words.
        registers: of a thread.
        spill_bytes: what a thread's registers do not hold, stored and loaded.
        shared_bytes: of a program.
        instructions: in its machine code; 0 where that was not read.
        threads: of a program.
        loop: instructions by unit in the longest loop, once through; empty without a loop.
    """

    kernel: str
    arch: int
    dtype: str
    knots: int
    what: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    instructions: int
    threads: int
    loop: dict[str, int]


class _Absent:
    """A driver for a card that is not installed."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # Triton keeps what it compiled by device

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextlib.contextmanager
def instead_of_launching(arch: int) -> Iterator[list[tuple[str, Any]]]:
    """Launches compile for `arch`, and are listed: (kernel's name, what was compiled)."""
    compiled: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        del warmup
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        compiled.append((self.__name__, kernel))
        return kernel

    absent = launch.Card(132, SHARED[arch], bfloat16=True)
    card, on_device = launch.card, launch.on_device
    triton.runtime.driver.set_active(_Absent(arch))
    JITFunction.run = compile_only
    launch.card = lambda _: absent
    launch.on_device = lambda _: contextlib.nullcontext()
    try:
        yield compiled
    finally:
        JITFunction.run = run
        launch.card, launch.on_device = card, on_device


class Call(NamedTuple):
    """The parts of a user's call that decide which kernels are compiled."""

    dtype: torch.dtype = torch.float32
    knots: int = 17
    large: bool = False
    dim: int = 64
    directions: str = "drawn"
    shares: bool = False
    chunk: int = 0
    scale_by_n: bool = True
    aligned: bool = True

    def describe(self) -> str:
        """The differences from the plain call."""
        plain = Call()
        parts = ["N 8192, M 1024"] if self.large else []
        parts += [f"D {self.dim}"] if self.dim != plain.dim else []
        parts += ["given directions"] if self.directions == "given" else []
        parts += ["mask"] if self.shares else []
        parts += ["chunks"] if self.chunk else []
        parts += ["without N"] if not self.scale_by_n else []
        parts += ["offset samples"] if not self.aligned else []
        return ", ".join(parts)

    def make(self) -> None:
        """Make the call."""
        n, num = (4096, 1024) if self.large else (70, 48)
        flat = torch.zeros(2 * n * self.dim + 1, dtype=self.dtype)
        z = flat[int(not self.aligned) :][: 2 * n * self.dim].view(2, n, self.dim)
        full = torch.float64 if self.dtype == torch.float64 else torch.float32
        given = self.directions == "given"
        a = torch.zeros(num, self.dim, dtype=full if given else torch.bfloat16)
        problem = Problem(
            z=z,
            directions=Directions(a, None if given else torch.ones(num, dtype=full)),
            shares=torch.ones(2, n, dtype=full) if self.shares else None,
            rule=trapezoid_rule(self.knots, 3 / 16 * (self.knots - 1)).to(
                torch.zeros((), dtype=full)
            ),
            scale_by_n=self.scale_by_n,
            chunk=self.chunk,
            group="",
            want_z=True,
            want_rows=False,
        )
        launch.loss(problem)


LARGE = Call(large=True, dim=512)
FAST = (LARGE, Call(), Call(torch.bfloat16), Call(shares=True, dim=33), Call(knots=33))
CALLS = (
    *FAST,
    Call(torch.float16, shares=True, knots=33),
    Call(directions="given", knots=33),
    Call(directions="given", shares=True, knots=33, scale_by_n=False),
    Call(scale_by_n=False, chunk=16),
    Call(large=True, dim=512, chunk=512),
    Call(torch.bfloat16, large=True, dim=512),
    Call(torch.float16, large=True, dim=512),
    Call(torch.float64, knots=33),
    Call(torch.float64, shares=True, knots=33),
    # Samples that cannot be read 16 bytes at a time are copied, and need no variants.
    *(Call(dtype, dim=dim, aligned=aligned)
      for dtype in (torch.float32, torch.bfloat16, torch.float16)
      for dim in (1, 33, 64) for aligned in (True, False)),
)  # fmt: skip


def variants(arch: int, calls: tuple[Call, ...] = CALLS, *, usage: bool = False) -> list[Variant]:
    """Every kernel that the calls need, once each."""
    found: dict[tuple[str, str], Variant] = {}
    with instead_of_launching(arch) as compiled:
        for call in calls:
            compiled.clear()
            call.make()
            for name, kernel in compiled:
                key = (name, kernel.hash)
                if key not in found:
                    found[key] = _variant(name, kernel, arch, call, usage=usage)
    return list(found.values())


def directions_variants(arch: int, *, usage: bool = False) -> list[Variant]:
    """The kernel that draws, for the dimensions that take another block."""
    found = {}
    with instead_of_launching(arch) as compiled:
        for dim in (192, 512):
            compiled.clear()
            launch.gaussian_directions(8, dim, 0, torch.zeros((), dtype=torch.int64))
            ((name, kernel),) = compiled
            found[kernel.hash] = _variant(name, kernel, arch, Call(dim=dim), usage=usage)
    return list(found.values())


def _variant(name: str, kernel: Any, arch: int, call: Call, *, usage: bool) -> Variant:
    used = _tool("cuobjdump", "--dump-resource-usage", cubin=kernel.asm["cubin"])
    numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", used))
    code = "" if usage else _tool("nvdisasm", "-c", cubin=kernel.asm["cubin"])
    return Variant(
        kernel=name,
        arch=arch,
        dtype=str(call.dtype).removeprefix("torch."),
        knots=call.knots,
        what=call.describe(),
        registers=int(numbers["REG"]),
        spill_bytes=_spilled(kernel) if int(numbers["STACK"]) else 0,
        shared_bytes=kernel.metadata.shared,
        instructions=len(_OPCODE.findall(code)),
        threads=32 * kernel.metadata.num_warps,
        loop=longest_loop(code),
    )


def _spilled(kernel: Any) -> int:
    """What ptxas calls spills: a stack may also be the table in float64's sine."""
    ptxas = max(BIN.glob("ptxas*"))  # the newest, whatever it is called
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file:
        file.write(kernel.asm["ptx"].encode())
        file.flush()
        (target,) = re.findall(r"^\.target (\w+)", kernel.asm["ptx"], re.MULTILINE)
        done = subprocess.run(
            [ptxas, "-v", f"-arch={target}", "-o", "/dev/null", file.name],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    found = re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)
    return sum(map(int, found))


def _tool(name: str, *options: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [BIN / name, *options, file.name], check=True, capture_output=True, text=True
        )
    return done.stdout


_OPCODE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_LABEL = re.compile(r"^(\.L_x_\d+):", re.MULTILINE)
_BRANCH = re.compile(r"BRA(?:\.\w+)*\s+(?:!?U?P\w+,\s*)?`\((\.L_x_\d+)\)")


def longest_loop(code: str) -> dict[str, int]:
    """Instructions by unit between a label and the branch back to it, where most are."""
    labels = {match[1]: match.start() for match in _LABEL.finditer(code)}
    spans = [code[labels[match[1]] : match.end()] for match in _BRANCH.finditer(code)
             if labels.get(match[1], match.start()) < match.start()]  # fmt: skip
    bodies = [_OPCODE.findall(span) for span in spans]
    body = max(bodies, key=len, default=[])
    if len(body) < 8:  # a program's end branches to itself
        return {}
    counts = collections.Counter(unit_of(name) for name in body)
    return {"all": len(body), **dict(sorted(counts.items()))}


def unit_of(name: str) -> str:
    """The unit that an instruction keeps busy; "integer" for address and control."""
    for unit, begins in UNITS.items():
        if name.startswith(begins):
            return unit
    return "integer"


def main(arguments: list[str]) -> int:
    """Print the variants of the architectures that were named."""
    calls = FAST[:2] if "--plain" in arguments else FAST if "--fast" in arguments else CALLS
    archs = [int(word) for word in arguments if word.isdigit()]
    usage = "--usage" in arguments
    found = [v for arch in archs for v in (*variants(arch, calls, usage=usage),
                                           *directions_variants(arch, usage=usage))]  # fmt: skip
    json.dump([variant._asdict() for variant in found], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
