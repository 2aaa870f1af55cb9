"""Everything once with another default device, on which nothing can be computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import sigreg
import worldmodel
from planners import CEM, ICEM, MPC, MPPI, Bounds, GradientDescent, StableWorldModelSolver, optimize
from worldmodel import goal_cost, presets
from worldmodel.data import (
    ActionScale,
    BatchOrder,
    Episodes,
    HDF5Writer,
    Windows,
    episode_digests,
    loader,
    split,
)
from worldmodel.data.opening import open_episodes
from worldmodel.heads import fit_distance, fit_head
from worldmodel.learning import learn
from worldmodel.policies import Policy, retrieve
from worldmodel.study import fit_decoder, mean_estimate, paired_test, score_guesses
from worldmodel.subgoals import Graph
from worldmodel.values import GCIQL, GCIVL, HIQL

pytest.importorskip("h5py", reason="sigreg[worldmodel] is not installed")
ON_CPU = torch.device("cpu")
X = torch.randn(30, 4)
Z, A = X[:28].view(4, 7, 4), X[:24, :2].reshape(4, 6, 2)
FRAMES, LENGTHS = torch.zeros(40, 3, 8, 8, dtype=torch.uint8), torch.tensor([20, 20])
EPISODES = Episodes(FRAMES, torch.randn(40, 2), LENGTHS, torch.randn(40, 2))
WINDOWS = Windows(EPISODES, num_frames=2, frameskip=2, scale=ActionScale.fit(EPISODES))
MODEL = presets.small(action_dim=4).eval()
W, C = torch.randn(4, 7, MODEL.encode(torch.zeros(1, 1, 3, 64, 64)).shape[-1]), torch.randn(4, 6, 4)
SEEN = torch.zeros(2, 1, 3, 64, 64, dtype=torch.uint8)
PLANS = torch.zeros(2, 5, 3, 4)
REGULARIZERS = [sigreg.SIGReg(17, 16), sigreg.WeakSIGReg(8), sigreg.SlicedTest(sigreg.watson, 8)]


def _cost(actions: torch.Tensor) -> torch.Tensor:
    return actions.square().sum((-1, -2))


def _apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().sum(-1)


def _control(method: Any) -> None:
    """A controller as an environment's arrays drive it."""
    control = MPC(method, horizon=3, action_dim=2, iterations=2, bounds=Bounds(-1, 1), history=2,
                  batch=2)  # fmt: skip
    control.see(np.zeros((2, 3)))
    acted = control.act(_cost)
    control.see(np.zeros((2, 3)), acted.numpy())
    control.act(_cost, start=np.zeros((2, 3, 2)))
    control.reset(np.array([True, False]))
    control.restore(control.save())


def _platform() -> None:
    space = SimpleNamespace(shape=(2, 2), low=-np.ones((2, 2)), high=np.ones((2, 2)))
    model = SimpleNamespace(get_cost=lambda info, actions: _cost(actions))
    solver = StableWorldModelSolver(CEM(8, 2), model, iterations=1, bounds=Bounds(-1, 1))
    solver.configure(
        action_space=space, n_envs=2, config=SimpleNamespace(horizon=3, action_block=1)
    )
    solver({"pixels": np.zeros((2, 1))})


def _disk(folder: Path) -> None:
    with HDF5Writer(folder / "a.h5") as writer:
        for _ in range(2):
            writer.write(FRAMES[:20].numpy(), np.ones((20, 2), np.float32), np.zeros((20, 2)))
    found = open_episodes(folder / "a.h5")
    assert found.in_memory().frames.device == ON_CPU
    worldmodel.save(MODEL, folder / "model", action_scale=ActionScale.fit(found))
    assert worldmodel.load(folder / "model").encode(SEEN).isfinite().all()
    assert worldmodel.read_config(folder / "model").action_scale.mean.tolist() == [1, 1]


def _batches() -> None:
    order = BatchOrder(len(WINDOWS), 4, seed=0, stop=2)
    assert len(list(loader(WINDOWS, order))) == 2
    assert WINDOWS[3].actions.device == ON_CPU


WORK: dict[str, Callable[[Path], Any]] = {
    "episodes": lambda _: (Episodes(FRAMES, EPISODES.actions, LENGTHS), EPISODES.rows(),
                           EPISODES.stated.all().item(), episode_digests(EPISODES)),
    "scale": lambda _: ActionScale.fit(EPISODES).normalise(EPISODES.actions).sum().item(),
    "windows": lambda _: Windows(EPISODES, num_frames=2, frameskip=2)[0].actions.sum().item(),
    "batches": lambda _: _batches(),
    "split": lambda _: split(10, 0.2, 0)[0].tolist(),
    "disk": _disk,
    "regularizers": lambda _: [float(part(X)) for part in REGULARIZERS],
    "embedding_report": lambda _: sigreg.embedding_report(X, num_proj=8),
    "cem": lambda _: _control(CEM(8, 2)),
    "icem": lambda _: _control(ICEM(8, 2)),
    "mppi": lambda _: _control(MPPI(8)),
    "gradient": lambda _: _control(GradientDescent()),
    "optimize": lambda _: float(optimize(CEM(8, 2), _cost, X[None, :3, :2], iterations=1).cost),
    "platform": lambda _: _platform(),
    "goal cost": lambda _: goal_cost(MODEL, SEEN, SEEN[:, 0])(PLANS).tolist(),
    "head": lambda _: fit_head(X, X[:, :2], (4,))(X).tolist(),
    "distance": lambda _: fit_distance(MODEL, W, C, hidden=(4,), steps=2, reach=2)(W, W).tolist(),
    **{kind.__name__: lambda _, kind=kind: learn(kind, Z, A, steps=2, batch=4, chunk=2)(X, X)
       for kind in (Policy, GCIVL, GCIQL, HIQL)},
    "retrieve": lambda _: retrieve(Z, A, Z[:, 0], Z[:, 1], 2, 3).tolist(),
    "graph": lambda _: Graph.of(Z, _apart, num=2).landmarks.tolist(),
    "estimates": lambda _: (mean_estimate(X[:, 0]), paired_test(X[:, 0], X[:, 1])),
    "scores": lambda _: score_guesses(X, X, LENGTHS.new_tensor(range(30)), X.std(0)),
    "decoder": lambda _: fit_decoder(
        X, FRAMES.new_zeros(30, 3, 16, 16), steps=2)(X).tolist(),
}  # fmt: skip


@pytest.mark.parametrize("what", WORK)
def test_helper_tensors_are_made_where_the_data_is(what: str, tmp_path: Path) -> None:
    """With a default device that computes nothing, all works on data of the CPU."""
    with torch.device("meta"):
        WORK[what](tmp_path)
