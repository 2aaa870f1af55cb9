"""Time, peak memory, and a record that says where every number came from.

A benchmark is a script `bench_<question>.py` with a `main()`; `nox -s bench` runs them all, and
`python benchmarks/bench_<question>.py` runs one. Each calls `interleave` for times, `peak_memory`
for memory, and `save` once, which prints a table and writes `results/<name>.json`.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
CPU_FLAGS = (
    "avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "avx512_vnni", "sve", "bf16",
)  # fmt: skip
# Outputs of benchmarks; they do not change a measurement.
_OUTPUTS = ("benchmarks/results", "docs/_static")
PACKAGES = ("sigreg", "torch", "triton", "numpy", "scipy", "h5py")

Call = Callable[[], object]
Cell = str | int | float | None


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one entry a round; rounds of one `interleave` are paired."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile: a loaded machine moves the maximum, not these."""
        return quartiles(self.seconds)

    def record(self) -> dict[str, object]:
        """What the JSON keeps, in seconds."""
        low, high = self.spread
        return {
            "median": self.median,
            "low": low,
            "high": high,
            "best": min(self.seconds),
            "rounds": len(self.seconds),
        }

    def __str__(self) -> str:
        low, high = self.spread
        return f"{duration(self.median)} ({duration(low)}–{duration(high)})"


def interleave(
    calls: Mapping[str, Call],
    *,
    rounds: int = 15,
    warmup: int = 2,
    min_seconds: float = 0.01,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
    """Time named calls turn by turn, so that a drift of the machine falls on all alike.

    Args:
        calls: name → function without arguments. Free inputs' `.grad` inside if it is timed.
        rounds: turns each call gets; the order is reversed every other turn.
        warmup: calls before the first turn (compilation, caches, allocator).
        min_seconds: a turn repeats its call until it lasts about this long.
        device: a CUDA device is synchronised around each turn.
    Returns: name → Timing, in seconds per call.
    """
    wait = _waiter(device)
    repeats = {}
    for name, call in calls.items():
        for _ in range(warmup):
            call()
        repeats[name] = max(1, round(min_seconds / max(_turn(call, 1, wait), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in order:
                seconds[name].append(_turn(calls[name], repeats[name], wait))
            order.reverse()
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def speedup(timings: Mapping[str, Timing], of: str, over: str) -> Timing:
    """How many times faster `of` is than `over`, round by round (so drift cancels).

    The result is a Timing only in form: its median and spread are ratios.
    """
    pairs = zip(timings[over].seconds, timings[of].seconds, strict=True)
    return Timing(tuple(slow / fast for slow, fast in pairs))


def peak_memory(call: Call, *, device: torch.device | str = "cpu", warmup: int = 1) -> int:
    """Most bytes of tensors alive at once inside `call`, beyond those alive before it.

    CUDA: the caching allocator's own count. CPU: the sum over torch's allocation events, exact
    for tensors and blind to scratch that a library allocates for itself.
    """
    for _ in range(warmup):
        call()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        call()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def save(
    name: str,
    question: str,
    results: Sequence[Mapping[str, object]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Cell]] = (),
    note: str = "",
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write `results/<name>.json` with its provenance, and print the table.

    Args:
        name: file name without suffix; `bench_cpu_x` and `gpu_x` runs take different names.
        question: one sentence, the caption of the table in the docs.
        results: plain records of numbers, one per measured case.
        columns: heads of the table; empty means no table.
        rows: its cells, already rounded as a reader wants them.
        note: what a reader must know (what stood for the official code, what was not run).
        extra: more for the file, under names of its own.
    Returns: the path written. A reader never sees half a file: it is renamed into place.
    """
    record: dict[str, object] = {
        "name": name,
        "question": question,
        "command": _command(),
        "commit": _commit(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "note": note,
        "results": [dict(result) for result in results],
        **(extra or {}),
    }
    if columns:
        record["table"] = {"columns": list(columns), "rows": [list(row) for row in rows]}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)
    print(f"\n{question}")
    if columns:
        print(text_table(columns, rows))
    if note:
        print(note)
    print(f"{record['commit']}, {describe_machine(machine())}\n→ {path.relative_to(ROOT)}")
    return path


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def machine() -> dict[str, object]:
    """What the numbers depend on: processor, its matrix instructions, cores, memory, GPU."""
    info: dict[str, object] = {
        "cpu": platform.processor() or platform.machine(),
        "flags": [],
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": None,
        # With `chrt -f 1 python ...` other programs wait, as on a quiet machine.
        "real_time": sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_FIFO,
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        first, _, _ = cpuinfo.read_text(encoding="utf-8").partition("\n\n")
        pairs = (line.partition(":") for line in first.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        present = set(fields.get("flags", fields.get("Features", "")).split())
        info["cpu"] = fields.get("model name", info["cpu"])
        info["flags"] = [flag for flag in CPU_FLAGS if flag in present]
        info["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
        info["cuda"] = torch.version.cuda
    return info


def describe_machine(info: Mapping[str, object]) -> str:
    """One line for under a table."""
    flags = info.get("flags")
    extra = f", {' '.join(map(str, flags))}" if isinstance(flags, list) and flags else ""
    extra += ", real-time priority" if info.get("real_time") else ""
    cpu = f"{info['cpu']} ({info['cores']} cores, {info['threads']} threads{extra})"
    return f"{info['gpu']}, {cpu}" if info.get("gpu") else cpu


def versions() -> dict[str, str]:
    """Python and every installed package of `PACKAGES`."""
    installed = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    found = {name: installed[name] for name in PACKAGES if name in installed}
    found["python"] = platform.python_version()
    found["torch"] = torch.__version__
    return found


def duration(seconds: float) -> str:
    """Three significant figures in the unit that fits: 1.23 ms."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def mebibytes(count: int) -> str:
    """Bytes for a reader: 12.3 MiB."""
    return f"{count / 2**20:.3g} MiB"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; the value itself when there is only one."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def _turn(call: Call, repeats: int, wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def _waiter(device: torch.device | str) -> Callable[[], None]:
    if torch.device(device).type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def _command() -> str:
    """The command line, without where this machine keeps its interpreter and checkout."""
    script, *arguments = sys.argv
    path = Path(script).resolve()
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)
    return shlex.join(["python", shown.as_posix(), *arguments])


def _commit() -> str:
    """Commit of this checkout; `-dirty` if files other than outputs differ from it.

    A copy without its `.git` (a rented GPU machine) takes it from BENCH_COMMIT.
    """
    given = os.environ.get("BENCH_COMMIT")
    if given:
        return given
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", *(f":!{folder}" for folder in _OUTPUTS))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
