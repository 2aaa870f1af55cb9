"""A rollout of candidates, a training step's loss, and the reading of windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sigreg import SIGReg
from worldmodel import Batch, WorldModel, goal_cost, jepa_loss, presets
from worldmodel.data import BatchOrder, HDF5Writer, Windows, loader, open_hdf5


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """The demo's model."""
    torch.manual_seed(0)
    return presets.small(10).eval()


@pytest.mark.benchmark(group="64 candidates, 5 blocks, demo's model")
@pytest.mark.parametrize("side", ["goal_cost", "plain rollout"])
def test_rollout(benchmark: Any, model: WorldModel, side: str) -> None:
    """The cost of one iteration's candidates, beside `WorldModel.rollout` on them."""
    frames = torch.randint(0, 256, (1, 1, 3, 64, 64), dtype=torch.uint8)
    actions = torch.randn(1, 64, 5, 10)
    with torch.inference_mode():
        z, goal = model.encode(frames), model.encode(frames)[:, 0]
        if side == "goal_cost":
            cost = goal_cost(model, frames, frames[:, 0])
            benchmark(lambda: cost(actions))
        else:
            many = z.expand(64, -1, -1)
            benchmark(lambda: (model.rollout(many, actions[0])[:, -1] - goal).square().sum(-1))


@pytest.mark.benchmark(group="one training step of the demo's model, 64 windows")
@pytest.mark.parametrize("term", ["prediction + SIGReg", "prediction alone"])
def test_training_step(benchmark: Any, term: str) -> None:
    """Loss and gradient, no optimizer."""
    model = presets.small(10).train()
    batch = Batch(
        torch.randint(0, 256, (64, 4, 3, 64, 64), dtype=torch.uint8), torch.randn(64, 4, 10)
    )
    regularizer, weight = SIGReg(num_proj=256), 0.05 if "SIGReg" in term else 0.0

    def step() -> None:
        model.zero_grad(set_to_none=True)
        jepa_loss(model, batch, regularizer, weight=weight).total.backward()

    benchmark(step)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty episodes of 81 frames of 64 pixels."""
    path = tmp_path_factory.mktemp("windows") / "walks.h5"
    rng = np.random.default_rng(0)
    with HDF5Writer(path) as writer:
        for _ in range(40):
            frames = rng.integers(0, 256, (81, 3, 64, 64), dtype=np.uint8)
            writer.write(frames, rng.standard_normal((80, 2)).astype(np.float32), None)
    return path


@pytest.mark.benchmark(group="32 batches of 64 windows read")
@pytest.mark.parametrize("where", ["memory", "file", "file, 2 workers"])
def test_windows(benchmark: Any, file: Path, where: str) -> None:
    """From memory, from the file, and by processes ahead."""
    episodes = open_hdf5(file)
    windows = Windows(episodes.in_memory() if where == "memory" else episodes)
    order = BatchOrder(len(windows), 64, seed=0, stop=32)
    workers = 2 if "workers" in where else 0
    benchmark.pedantic(
        lambda: [batch.frames.shape for batch in loader(windows, order, workers=workers)],
        rounds=5,
        warmup_rounds=1,
    )
