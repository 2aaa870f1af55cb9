"""Truths of seeds and other integers, in every function that takes one."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sigreg
from planners import CEM, MPC, optimize
from worldmodel import load, presets, save
from worldmodel.data import BatchOrder, split
from worldmodel.heads import fit_distance, fit_head
from worldmodel.learning import learn
from worldmodel.policies import Policy
from worldmodel.records import as_seed
from worldmodel.study import fit_decoder, mean_estimate
from worldmodel.subgoals import Graph
from worldmodel.worlds import TwoRoom, collect

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Z, A = X[:28].view(4, 7, 4), X[:24, :2].reshape(4, 6, 2)

MODEL = presets.small(2).eval()
W = torch.randn(4, 7, MODEL.encode(torch.zeros(1, 1, 3, 64, 64)).shape[-1])


def _cost(actions: torch.Tensor) -> torch.Tensor:
    return actions.square().sum((-1, -2))


def _apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().sum(-1)


DOORS: dict[str, Callable[[Any], torch.Tensor]] = {
    "SIGReg": lambda s: sigreg.SIGReg(17, 8, seed=s)(X),
    "SlicedTest": lambda s: sigreg.SlicedTest(sigreg.watson, 8, seed=s)(X),
    "WeakSIGReg": lambda s: sigreg.WeakSIGReg(8, seed=s)(X),
    "random_directions": lambda s: sigreg.random_directions(3, 4, seed=s, step=1),
    "embedding_report": lambda s: torch.tensor(
        sigreg.embedding_report(X, num_proj=8, seed=s).statistic
    ),
    "optimize": lambda s: optimize(CEM(8, 2), _cost, X[None, :3, :2], iterations=1, seed=s).actions,
    "MPC": lambda s: MPC(CEM(8, 2), horizon=2, action_dim=2, iterations=1, seed=s).act(_cost),
    "split": lambda s: torch.cat(split(20, 0.3, s)),
    "BatchOrder": lambda s: BatchOrder(20, 6, seed=s).batch(4),
    "fit_head": lambda s: fit_head(X, X[:, :2], (4,), seed=s)(X),
    "fit_distance": lambda s: fit_distance(MODEL, W, A, hidden=(4,), steps=2, seed=s)(W, W),
    "learn": lambda s: learn(Policy, Z, A, steps=2, batch=4, chunk=2, seed=s)(X, X),
    "mean_estimate": lambda s: torch.tensor(mean_estimate(X[:, 0], seed=s)[:3]),
    "fit_decoder": lambda s: fit_decoder(
        X, torch.arange(30).byte().view(-1, 1, 1, 1).expand(-1, 3, 16, 16), steps=2, seed=s
    )(X),
    "Graph": lambda s: Graph.of(Z, _apart, num=2, seed=s).landmarks,
    "collect": lambda s: torch.from_numpy(collect(TwoRoom(16), 2, 5, s).states),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_a_seed_is_an_integer_of_every_kind(door: str) -> None:
    """NumPy's and torch's integers mean what Python's do; others are taken or refused by name."""
    run = DOORS[door]
    wanted = run(7)
    assert wanted.isfinite().all()
    for seed in (np.int64(7), np.int32(7), np.uint8(7)):
        assert torch.equal(run(seed), wanted), type(seed)
    assert run(time.time_ns()).shape == wanted.shape
    for seed, same in ((np.array(7), 7), (torch.tensor(7), 7), (7 + 2**64, 7), (np.int64(-3), -3)):
        try:
            found = run(seed)
        except (TypeError, ValueError) as error:  # noqa: PERF203 - refused by name, or taken
            assert "seed must be" in str(error)  # noqa: PT017
        else:
            assert torch.equal(found, run(same))
    for wrong in (1.5, "7", None):
        with pytest.raises(TypeError, match=r"seed|integer"):
            run(wrong)


def test_seeds_of_64_bits_keep_their_value() -> None:
    """What a generator took before means the same: results of earlier seeds stay."""
    for seed in (0, 1, 2**63 - 1, -1, -(2**63)):
        assert as_seed(seed) == seed
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.cat(split(10, 0.5, 7)[::-1]), torch.cat(
        [order[:5].sort().values, order[5:].sort().values]))  # fmt: skip


def test_a_model_of_numpys_integers_is_saved_and_read(tmp_path: Path) -> None:
    """Sizes from arrays end in a config.json like any others."""
    model = presets.small(np.int64(4))
    save(model, tmp_path)
    assert operator.index(load(tmp_path).action_encoder.config["action_dim"]) == 4
