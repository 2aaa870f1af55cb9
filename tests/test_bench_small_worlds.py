"""The benchmark of the published worlds at small scale: its path runs once, and is written down."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """bench_small_worlds.py as a module that writes its results elsewhere."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    path = BENCHMARKS / "bench_small_worlds.py"
    spec = importlib.util.spec_from_file_location("bench_small_worlds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_small_worlds", module)
    spec.loader.exec_module(module)
    results = tmp_path / "results"
    monkeypatch.setattr(module.harness, "RESULTS", results)
    # The package to try is the installed one, not the source tree.
    monkeypatch.setattr(module.harness, "ROOT", tmp_path)
    yield module
    sys.modules.pop("harness", None)


def test_every_case_has_a_row_and_a_folder_of_its_own(bench: ModuleType) -> None:
    """Two cases in one folder would take each other's result."""
    assert len({case.name for case in bench.CASES}) == len(bench.CASES)
    for case in bench.CASES:
        assert (bench.MANIFESTS / f"{case.data.file}-25.json").exists()
        assert bench.row(case, None)[2] == "not run"


def test_collect_train_evaluate_and_not_again(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the world that needs no package; what is there is kept, what is not run says so."""
    data = bench.Data("two-room", "numpy", "expert", episodes=12, length=30)
    search = ("--planner", "cem", "--samples", "4", "--iterations", "1", "--elites", "2")
    cases = (bench.Case(data, 1, search), bench.Case(data, 2, search))
    monkeypatch.setattr(bench, "CASES", cases)
    runs = tmp_path / "runs"
    called: list[str] = []
    command = bench.worldmodel

    def counted(*words: object) -> None:
        called.append(str(words[0]))
        command(*words)

    monkeypatch.setattr(bench, "worldmodel", counted)
    arguments = ["bench", "--runs", str(runs), "--only", "two-room 1 steps"]
    monkeypatch.setattr(sys, "argv", arguments)
    for _ in range(2):
        assert bench.main() == 0
    assert called == ["data", "train", "evaluate"]
    kept = json.loads((tmp_path / "results" / "small_worlds.json").read_text())
    (record,) = kept["results"]
    assert record["training"]["steps"] == 1
    assert record["pairs"] == 200
    assert "outcomes" not in record
    assert str(tmp_path) not in json.dumps(record)
    rows = kept["table"]["rows"]
    assert rows[0][2] == f"{record['success_rate']:.1%}"
    assert rows[1][2] == "not run"
