"""The benchmark harness measures what it says, and a result knows where it comes from."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


harness = load("harness")
tables = load("tables")


def test_a_call_that_sleeps_longer_takes_longer() -> None:
    """Turns are timed call by call, and the ratio is taken round by round."""
    timings = harness.interleave(
        {"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.004)}, rounds=5
    )
    assert timings["short"].median >= 0.001
    assert timings["long"].median >= 0.004
    assert harness.speedup(timings, of="short", over="long").median > 1.5


def test_turns_alternate() -> None:
    """Every other round runs in reverse, so neither call always follows the other."""
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    harness.interleave(calls, rounds=4, warmup=0, min_seconds=1e-12)
    assert "".join(order)[2:] == "abbaabba"


def test_peak_memory_counts_what_lives_at_once() -> None:
    """Two megabytes alive together count two, one after the other one."""

    def together() -> object:
        a = torch.ones(2**18)
        return a, torch.ones(2**18)

    def in_turn() -> None:
        for _ in range(2):
            torch.ones(2**18)

    assert harness.peak_memory(together) == 2 * 2**20
    assert harness.peak_memory(in_turn) == 2**20


def test_a_result_is_written_whole_with_its_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`save` leaves one readable file, which becomes a table with commit, command and machine."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setenv("BENCH_COMMIT", "0123abc")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bench_x.py"), "--rounds", "3"])
    path = harness.save(
        "x", "Which?", [{"n": 1}], columns=["case", "ms"], rows=[["|a|", 2.5], ["b", None]]
    )
    assert [file.name for file in path.parent.iterdir()] == ["x.json"]
    record = json.loads(path.read_text())
    assert record["command"] == "python bench_x.py --rounds 3"
    assert record["commit"] == "0123abc"
    assert record["versions"]["torch"] == torch.__version__
    assert record["machine"]["cores"] >= 1
    shown = tables.table("x", path.parent)
    assert "| case | ms |\n| --- | ---: |\n| \\|a\\| | 2.5 |\n| b |  |" in shown
    assert "`python bench_x.py --rounds 3` at 0123abc" in shown
    assert "Which?" in capsys.readouterr().out


def test_a_number_that_json_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN never reaches a result, and the old file stays."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        harness.save("x", "Which?", [{"n": float("nan")}])
    assert list(tmp_path.iterdir()) == []


def test_tables_are_renewed_between_their_comments_alone(tmp_path: Path) -> None:
    """What stands outside the two comments is kept; a result that is not there is said to be so."""
    text = "before\n<!-- table: gone -->\nold\n<!-- end table -->\nafter"
    filled = tables.fill(text, tmp_path)
    assert filled.startswith("before\n<!-- table: gone -->\n*Not run yet: `python benchmarks/")
    assert filled.endswith("<!-- end table -->\nafter")
    assert tables.fill(filled, tmp_path) == filled


def test_every_table_that_is_asked_for_names_a_script_that_is_there() -> None:
    """A reader who finds a table missing can make it: the command exists."""
    root = Path(tables.__file__).resolve().parent.parent
    pages = [root / "README.md", *root.glob("docs/*.md")]
    names = {name for page in pages for name in tables.REQUEST.findall(page.read_text())}
    assert {"demo", "control_methods", "gpu_push_t"} <= names
    assert tables.script("control_methods") == "benchmarks/bench_control.py"
    assert tables.script("gpu_push_t") == "benchmarks/gpu_worlds.py push-t"
    assert tables.script("sigreg_curves") == "benchmarks/bench_sigreg_curves.py"
    missing = [name for name in names if not (root / tables.script(name).split()[0]).exists()]
    assert missing == []
