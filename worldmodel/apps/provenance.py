"""Where a number comes from: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["commit", "machine", "versions"]


def versions() -> dict[str, str]:
    """Of this library, torch and Python."""
    try:
        own = version("sigreg")
    except PackageNotFoundError:
        own = "not installed"
    return {"sigreg": own, "torch": torch.__version__, "python": platform.python_version()}


def machine(device: str) -> str:
    """Processor kind, threads and device."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {device}"


def commit() -> str | None:
    """Commit of the source tree this package lies in, or None for an installed one.

    A package installed inside somebody else's repository, in its virtual environment say, is not
    of that repository's commit.
    """
    root = Path(__file__).resolve().parents[2]
    words = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    top, head = found.stdout.splitlines()
    return head if Path(top).resolve() == root else None
