"""The benchmark of far goals: its table keeps what this machine has not measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from planners import MPC

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """bench_far.py as a module."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("bench_far")
    for name in ("bench_far", "td_mpc2", "harness"):
        sys.modules.pop(name, None)


def test_a_row_is_replaced_by_as_many_seeds_of_the_same_machine(bench: ModuleType) -> None:
    """Others stay, so machines are not mixed and a long run is not lost to a short one."""

    def record(machine: str, seeds: int, end: float, offset: int = 25) -> dict[str, Any]:
        cell = {"world": "maze-7", "arm": "cem", "offset": offset, "p": 1.0, "rollouts": 1, "ms": 1}
        return {**cell, "machine": machine, "seeds": seeds, "end": end}

    before = [record("x86_64 A, 1", 3, 0.1), record("x86_64 B, 1", 1, 0.2)]
    now = [record("x86_64 A, 1", 1, 0.3), record("x86_64 B, 1", 1, 0.4),
           record("x86_64 B, 1", 1, 0.5, 50)]  # fmt: skip
    kept = bench.merged(before, now)
    assert [one["end"] for one in kept] == [0.1, 0.4, 0.5]
    cells = bench.row(kept[1:], [25, 50, 100])
    assert cells[2:5] == ["40% (1 of 3 seeds)", "50% (1 of 3 seeds)", "–"]
    assert cells[-1] == "B"


def test_td_mpc2_takes_a_policys_plan_where_the_cost_prefers_it(bench: ModuleType) -> None:
    """The plan lies far outside of what σ = 2 draws: only a proposal can find it."""
    goal = torch.full((2, 3, 2), 40.0)
    plans = torch.stack([torch.zeros_like(goal), goal], 1)
    mpc = MPC(bench.td_mpc2.SEARCH, horizon=3, action_dim=2, iterations=2, batch=2)
    method = bench.td_mpc2.WithPolicy(plans)
    actions = mpc.act(lambda a: (a - goal[:, None]).square().sum((-1, -2)), method=method)
    assert torch.allclose(actions, goal[:, :1], atol=0.5)
