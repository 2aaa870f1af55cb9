"""The page's JavaScript beside Python: Python writes fixtures, node's tests read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from planners import CEM, ICEM, Bounds
from planners.contract import Scored
from worldmodel import goals
from worldmodel.worlds import Maze, TwoRoom
from worldmodel.worlds.maze import layout_of

TESTS = Path(__file__).resolve().parent.parent / "page"
PAGE = Path(str(resources.files("worldmodel.apps.view"))) / "page"
NODE = shutil.which("node")


def write_worlds(folder: Path) -> None:
    """States and frames of 20 agents over 50 steps, runs of the same action into the walls."""
    told: dict[str, Any] = {}
    for side, world in ((64, TwoRoom(64)), (64, Maze(64))):
        rng, name = np.random.default_rng(7), world.name
        actions = rng.uniform(-1.3, 1.3, (10, 20, 2)).astype(np.float32).repeat(5, axis=0)
        states = [world.sample_states(rng, 20)]
        for action in actions:
            states.append(world.step(states[-1], action))
        every = np.stack(states)
        flat = every.reshape(-1, world.state_dim)
        (folder / f"{name}.bin").write_bytes(world.draw(flat).tobytes())
        told[name] = {"side": side, "states": every.tolist(), "actions": actions.tolist()}
        if isinstance(world, Maze):
            numbers = {int(n) for n in flat[:, 2]}
            doors = {n: layout_of(n) for n in numbers}
            told[name]["layouts"] = {
                n: {"right": d.right.tolist(), "down": d.down.tolist()} for n, d in doors.items()
            }
    (folder / "worlds.json").write_text(json.dumps(told))


def write_planners(folder: Path) -> None:
    """Searches for a target with known noise, costs of known futures, and bounds."""
    told: dict[str, Any] = {}
    A, S, K = 2, 24, 6
    action = {"low": [-1.0, -1.0], "high": [1.0, 1.0], "mean": [0.1, -0.2], "std": [0.7, 0.5]}
    bounds = Bounds(*(torch.tensor(action[name]) for name in ("low", "high")),
                    **{n: torch.tensor(action[n]) for n in ("mean", "std")})  # fmt: skip
    low, high = bounds.box(torch.zeros(A))
    H = 5
    inside = torch.randn(H * A)
    told["bounds"] = {
        "action": action, "box": [low.tolist(), high.tolist()], "inside": inside.tolist(),
        "raw": bounds.to_environment(inside.view(H, A)).flatten().tolist(),
    }  # fmt: skip
    icem = ICEM(S, K, init_std=1.0, decay=1.0)
    # An even horizon has a frequency of its own.
    kinds: dict[str, tuple[Any, int]] = {
        "cem": (CEM(S, K), 5),
        "icem": (icem, 5),
        "even": (icem, 6),
    }
    for name, (method, H) in kinds.items():
        target = torch.randn(H, A)
        start = 0.3 * torch.randn(1, H, A)
        state, noise, plans, asked = method.init(start), [], [], []
        for i in range(5):
            drawn = torch.randn(1, S, H, A)
            # Whatever shape a method asks for, it gets these numbers.
            source: Any = SimpleNamespace(
                iteration=i, normal=lambda size, drawn=drawn, **_: drawn.reshape(1, *size).clone()
            )
            candidates = method.ask(state, source).clamp(low, high)
            costs = (candidates - target).square().sum((-1, -2))
            state = method.tell(state, Scored(candidates, costs, torch.empty(0), source))
            noise.append(drawn.flatten().tolist())
            asked.append(candidates.flatten().tolist())
            plans.append(method.plan(state).clamp(low, high).flatten().tolist())
        told[name] = {
            "start": start.flatten().tolist(), "noise": noise, "plans": plans, "candidates": asked,
            "target": target.flatten().tolist(),
            "box": {"low": low.tolist(), "high": high.tolist()},
            "settings": {"samples": S, "elites": K, "std": 1, "dims": A},
        }  # fmt: skip
    H = 5
    futures, goal = torch.randn(1, 7, H, 4), torch.randn(1, 4)

    def costs_of(frames: Any) -> Tensor:
        return goals.near(goal, frames)(futures)[0]

    told["costs"] = {
        "futures": futures.flatten().tolist(), "goal": goal[0].tolist(), "H": H,
        "costs": {kind: costs_of(kind).tolist() for kind in ("last", "mean", "nearest")},
    }  # fmt: skip
    (folder / "planners.json").write_text(json.dumps(told))


@pytest.mark.skipif(NODE is None, reason="the page's own tests need node")
@pytest.mark.parametrize("name", ["worlds", "planner", "charts"])
def test_the_pages_own_tests_pass_on_fixtures_that_python_wrote(name: str, tmp_path: Path) -> None:
    """Worlds step and draw as in Python, and planners plan as in Python from the same noise."""
    write_worlds(tmp_path)
    write_planners(tmp_path)
    env = os.environ | {"PAGE": str(PAGE), "FIXTURES": str(tmp_path)}
    done = subprocess.run(
        [str(NODE), "--test", str(TESTS / f"{name}.test.mjs")],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
