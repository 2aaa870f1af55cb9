"""The C++ kernel (`ecf.cpp`): compiled at its first call, cached, called through ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from sigreg._kernels.contract import Answer, Problem, effective_size, finish

_SOURCE = Path(__file__).with_name("ecf.cpp")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
_PROJECTIONS = 1 << 18  # held at a time, or 256 directions if that is more
_TENSORS = (
    "z drawn rows scale shares divisor size weight target slope sums terms grad_z grad_rows "
    "projections packed own"
)
_NUMBERS = "groups n dim num knots chunk own_size threads"


class _Job(ctypes.Structure):
    """The struct `Job` of ecf.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _TENSORS.split()),
        *((name, ctypes.c_int64) for name in _NUMBERS.split()),
        ("spacing", ctypes.c_double),
    )


@functools.cache
def library(dtype: torch.dtype = torch.float32) -> ctypes.CDLL:
    """The kernel for float32 or float64; compiled unless the cache has it for this processor."""
    scalar = "double" if dtype == torch.float64 else "float"
    arm = platform.machine().lower() in ("arm64", "aarch64")
    flags = [*_FLAGS, "-mcpu=native" if arm else "-march=native", f"-DSCALAR={scalar}"]
    key = hashlib.sha256(repr((flags, _processor())).encode() + _SOURCE.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sigreg"
    path = cache / f"ecf-{scalar}-{key.hexdigest()[:16]}.so"
    if not path.exists():
        found = next(filter(shutil.which, ("c++", "g++", "clang++")), "")
        compiler = shlex.split(os.environ.get("CXX", found))
        if not compiler or not shutil.which(compiler[0]):
            raise RuntimeError(
                "backend='cpp' needs a C++ compiler: set CXX, or install c++, g++ or clang++"
            )
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            partial = Path(folder) / path.name
            command = [*compiler, *flags, str(_SOURCE), "-o", str(partial)]
            run = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  fixed words
            if run.returncode:
                raise RuntimeError(f"backend='cpp': {' '.join(command)} failed:\n{run.stderr}")
            partial.replace(path)
    return ctypes.CDLL(str(path))


def _processor() -> list[str]:
    """What `-march=native` depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    first = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0] if cpuinfo.exists() else ""
    lines = [line for line in first.splitlines() if line.startswith(("model", "flags", "Features"))]
    return [platform.machine(), platform.processor(), *lines]


def loss(problem: Problem) -> Answer:
    """Answer a problem: in one pass, or in two where other ranks share the samples."""
    z, directions, _, rule, *_ = problem
    if z.device.type != "cpu":
        raise ValueError(f"backend='cpp' needs a tensor on the CPU, got one on {z.device}")
    like, (num, dim) = rule.weight, directions.rows.shape
    grad_z = like.new_empty(z.shape if problem.want_z else 0)
    grad_rows = like.new_zeros((num, dim) if problem.want_rows else 0)
    wanted = {"grad_z": grad_z} if problem.want_z else {}
    wanted |= {"grad_rows": grad_rows} if problem.want_rows else {}
    if problem.group:
        sums = like.new_empty(len(z), num, 2 * like.numel())
        _run(problem, sums=sums)
        found, slope = finish(*problem.over_ranks(sums), problem)
        if problem.want_z or problem.want_rows:
            _run(problem, slope=slope.contiguous(), **wanted)
        return found, grad_z, grad_rows
    divisor, size = effective_size(*problem.own_sizes(), problem.scale_by_n)
    terms = like.new_empty(len(z), num)
    _run(problem, divisor=divisor, size=size, terms=terms, **wanted)
    return terms.mean(), grad_z, grad_rows


def _run(problem: Problem, **tensors: Tensor) -> None:
    """One pass over all directions; the results go into the tensors given."""
    z, (rows, scale), shares, rule, *_ = problem
    like, (groups, n, dim) = rule.weight, z.shape
    num, knots = len(rows), like.numel()
    kernel, threads = library(like.dtype), torch.get_num_threads()
    lanes = kernel.sigreg_lanes()
    panel = 2 * lanes
    # A task is a panel of directions in one group. Every thread should have one.
    chunk = max(256, _PROJECTIONS // max(1, groups * n), -(-threads // groups) * panel)
    chunk = min(num, problem.chunk or chunk)
    wide, centres = -(-chunk // panel) * panel, max(1, -(-(knots - 1) // 8))
    own = ((8 + 2 * centres) * 32 + 36 * centres) * lanes + dim * panel
    drawn = rows.dtype == torch.bfloat16
    given = {
        "z": z.to(like),
        "drawn" if drawn else "rows": rows if drawn else rows.to(like),
        "scale": None if scale is None else scale.to(like),
        "shares": shares,
        "weight": like,
        "target": rule.target,
        "projections": like.new_empty(groups * n * wide),
        "packed": like.new_empty(-(-dim // panel) * panel * wide),
        "own": like.new_empty(threads * own),
        **tensors,
    }
    held = {name: t.contiguous() for name, t in given.items() if t is not None}
    numbers = (groups, n, dim, num, knots, chunk, own, threads)
    job = _Job(
        **{name: t.data_ptr() for name, t in held.items()},
        **dict(zip(_NUMBERS.split(), numbers, strict=True)),
        spacing=problem.spacing,
    )
    kernel.sigreg_loss(ctypes.byref(job))
