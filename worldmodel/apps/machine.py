"""This machine: its devices, versions, commit and processor."""

import functools
import math
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

import torch

from worldmodel.apps.settings import InfoSettings


def device_of(name: str) -> str:
    """The device that a setting names, for "auto" a GPU if any; ValueError if torch has none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Copying back fails on "meta", whose tensors hold no data.
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        why = f"got {name!r} ({str(error).splitlines()[0]})"
        raise ValueError(f"--device must be a device torch can use, {why}") from None
    return name


def precision_of(name: str, device: str) -> str:
    """The precision that a setting means on a device; "auto" is bfloat16 on a GPU that has it.

    Raises: ValueError if it is "tf32", and the device is no GPU.
    """
    if name == "tf32" and not device.startswith("cuda"):
        raise ValueError(f"precision tf32 needs a GPU by CUDA, got device {device}")
    low = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return name if name != "auto" else "bfloat16" if low else "float32"


def free_memory(device: torch.device) -> float:
    """Free bytes of a device, of the machine if it is no GPU by CUDA; infinity if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        # Linux: pages in its file cache can be used too.
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return math.inf
    found = re.search(r"MemAvailable: *(\d+) kB", text)
    return int(found[1]) * 1024 if found else math.inf


def versions() -> dict[str, str]:
    """Versions of this library, torch and Python."""
    try:
        own = version("sigreg")
    except PackageNotFoundError:
        own = "not installed"
    return {"sigreg": own, "torch": torch.__version__, "python": platform.python_version()}


def machine(device: str) -> str:
    """Processor kind, the widest instructions torch uses on it, threads and device."""
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{kind}, {torch.get_num_threads()} threads, {device}"


def provenance(device: str) -> dict[str, object]:
    """Versions, commit and machine, as report.json records them."""
    return {"versions": versions(), "git_commit": commit(), "machine": machine(device)}


def info(settings: InfoSettings) -> int:
    """`worldmodel info`: print what a bug report needs."""
    device = device_of(settings.device)
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda})"
    lines = {
        **versions(),
        "commit": commit() or "not a source tree",
        "system": platform.platform(),
        "machine": machine(device),
        "extras": ", ".join(extras()) or "none",
    }
    sys.stdout.write("".join(f"{name:<8} {value}\n" for name, value in lines.items()))
    return 0


def extras() -> list[str]:
    """The extras of this distribution whose packages are all installed, sorted."""
    try:
        needed = requires("sigreg") or []
    except PackageNotFoundError:
        return []
    plain = functools.partial(re.sub, "[-_.]+", "-")
    found, here = dict[str, bool](), {plain(one.name).lower() for one in distributions()}
    for line in needed:
        if extra := re.search(r"extra == ['\"]([\w-]+)", line):
            package = plain(re.split(r"[^\w.-]", line)[0]).lower()
            found[extra[1]] = found.get(extra[1], True) and package in here
    return sorted(name for name, there in found.items() if there)


def commit() -> str | None:
    """Commit of the source tree that holds this package; None for an installed package.

    It ends in `-dirty` if the three packages have uncommitted changes. The commit of another
    repository, in whose virtual environment the package may be, does not count.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        told = ["git", "-C", str(root), *words]
        return subprocess.run(told, capture_output=True, text=True, check=True, timeout=5).stdout  # noqa: S603 - fixed words

    try:
        top, head = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root:
            return None
        changed = git("status", "--porcelain", "--", "sigreg", "planners", "worldmodel")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head
