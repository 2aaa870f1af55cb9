"""The model of a step on many GPUs: its parts follow from what was counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
scale = pytest.importorskip("scale")


def test_a_ring_moves_each_byte_twice_and_one_gpu_sends_none() -> None:
    """Two GPUs move the message once each way; many move it twice, at the slower rate."""
    assert scale.reduce(1e9, 1) == 0
    assert scale.reduce(1e9, 2) == pytest.approx(1e9 / scale.NVLINK + 2 * scale.HOP)
    beyond = 2 * 63 / 64 * 1e9 / scale.NETWORK
    assert scale.reduce(1e9, 64) == pytest.approx(beyond + 12 * scale.HOP)


def test_messages_do_not_grow_with_the_batch() -> None:
    """Twice the windows are twice the products, and nothing else."""
    step = scale.Step(flops=10**10, kernels=100, weights=10**6, messages=[1000, 8])
    one, two = scale.seconds(step, 64, 8), scale.seconds(step, 128, 8)
    assert two.pop("products") == pytest.approx(2 * one.pop("products"))
    assert one == two
    assert one["launches"] == 100 * scale.LAUNCH


def test_the_table_follows_from_the_counts_of_its_file() -> None:
    """Each row of the result is what the model makes of the step that was counted."""
    record = json.loads((BENCHMARKS / "results" / "scale.json").read_text(encoding="utf-8"))
    step = scale.Step(**record["counted"])
    assert len(record["results"]) == 7  # 512 GPUs have no window each of 128
    for row in record["results"]:
        parts = scale.seconds(step, row["windows"], row["gpus"])
        assert {name: row[name] for name in parts} == pytest.approx(parts)
        assert row["step"] >= max(parts.values())


@pytest.mark.slow
def test_a_step_is_counted_as_the_file_says() -> None:
    """Products, weights and the bytes of each message."""
    record = json.loads((BENCHMARKS / "results" / "scale.json").read_text(encoding="utf-8"))
    try:
        step = scale.count()
    finally:
        torch.distributed.destroy_process_group()
    assert step.flops == record["counted"]["flops"]
    assert step.weights == record["counted"]["weights"]
    assert step.messages == record["counted"]["messages"]
    # Other versions of torch take other operations, but a fused AdamW stays one.
    assert step.kernels < 2 * record["counted"]["kernels"]
