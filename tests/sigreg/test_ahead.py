"""The GPU's kernels as a card would run them: compiled here, without one, and read."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Of a thread: three programs of 256 threads are resident at 80, one at 255.
REGISTERS = {
    "sums_kernel": 80,
    "pull_kernel": 80,
    "finish_kernel": 168,
    "product_kernel": 255,
    "rows_kernel": 40,
}
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes that a program may have
TARGET = 170.0  # microseconds on an H200, a twentieth of the published formula


def run(*words: str) -> str:
    """A script in a process of its own: where the interpreter is on, nothing compiles."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, env=environment, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def modelled() -> dict[str, Any]:
    """What `benchmarks/kernels.py` finds and models of the default call on an H200."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.json"
        run(str(BENCHMARKS / "kernels.py"), "--fast", "--archs", "90", "--json", str(file))
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def check(variants: list[dict[str, Any]]) -> None:
    """No spill, and within the registers and the shared memory that launches count on."""
    assert {v["kernel"] for v in variants} == set(REGISTERS)
    for v in variants:
        assert v["spill_bytes"] == 0, v
        assert v["shared_bytes"] <= SHARED[v["arch"]], v
        if v["dtype"] != "float64":  # twice the registers, and for tests alone
            assert v["registers"] <= REGISTERS[v["kernel"]], v


@pytest.mark.slow
def test_the_default_call_on_an_h200() -> None:
    """Its kernels compile without a spill; sums and pulls take 80 instructions a projection."""
    variants = modelled()["variants"]
    check(variants)
    loops = {v["kernel"]: v["loop"] for v in variants}
    for kernel in ("sums_kernel", "pull_kernel"):
        assert loops[kernel]["all"] / 2 < 80
        assert "shared" not in loops[kernel], "a thread owns a direction and asks no other"
        assert loops[kernel]["load"] == 2, "each projection is read once"
    assert loops["product_kernel"]["tensor"] == 3 * 4, "three parts by four steps of 16"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("90",), ("80", "--fast"), ("100", "--fast")], ids=str)
def test_every_call(words: tuple[str, ...]) -> None:
    """Any dtype, mask, number of knots, block of directions or stride compiles as well."""
    check(json.loads(run(str(BENCHMARKS / "ahead.py"), *words, "--usage")))


def test_what_the_docs_show() -> None:
    """The saved variants, every call on every architecture, were compiled without a spill."""
    record = json.loads((BENCHMARKS / "results" / "kernels.json").read_text())
    assert {v["arch"] for v in record["variants"]} == set(SHARED)
    assert all(v["spill_bytes"] == 0 for v in record["variants"])


@pytest.mark.slow
def test_a_compiler_sees_the_kernels() -> None:
    """A traced training step launches the five kernels itself instead of calling an operator."""
    script = Path(__file__).with_name("seen_through.py")
    assert json.loads(run(str(script), str(BENCHMARKS))) == {
        "kernels": ["product", "sums", "finish", "pull", "product"],
        "operators": [],
    }


@pytest.mark.slow
def test_the_modelled_time() -> None:
    """For N 8192, D 512 the model is above the floor, within the target, a nineteenth of eager."""
    (row,) = [r for r in modelled()["model"] if (r["n"], r["d"]) == (8192, 512)]
    assert row["floor_us"] < row["us"] < TARGET
    assert row["eager_us"] > 19 * row["us"]
