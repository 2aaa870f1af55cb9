"""What the microbenchmarks share: fixed threads, a fixed seed, short rounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import machine

ROUNDS = {"min_rounds": 5, "max_time": 1.0, "warmup": True, "warmup_iterations": 2}


def pytest_benchmark_update_machine_info(machine_info: dict[str, object]) -> None:
    """Say what the numbers depend on, as the results of `nox -s measure` do."""
    machine_info["torch"] = torch.__version__
    machine_info |= {f"sigreg_{name}": value for name, value in machine().items()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Short rounds for all, unless a benchmark says otherwise."""
    for item in items:
        marker = item.get_closest_marker("benchmark")
        group = {} if marker is None else dict(marker.kwargs)
        item.add_marker(pytest.mark.benchmark(**(ROUNDS | group)), append=False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every benchmark draws the same numbers."""
    torch.manual_seed(0)
