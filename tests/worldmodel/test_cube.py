"""OGBench's cube: its physics, the published criterion, and the scripted picker."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("ogbench", reason="cube needs ogbench: pip install 'sigreg[cube]'")

from worldmodel.worlds.cube import CUBE, Cube, CubeCollector


@pytest.fixture(scope="module")
def world() -> Cube:
    """Two simulator processes for all."""
    return Cube(32, workers=2)


def test_success_is_the_published_criterion(world: Cube) -> None:
    """The cube within 4 cm, in space; where the arm is does not count."""
    goal = np.zeros((1, 47), np.float32)
    for where, change, reached in (
        (14, 0.0399, True),
        (14, 0.0401, False),
        (16, 0.0401, False),
        (41, 0.3, True),
        (0, 1.0, True),
    ):
        state = goal.copy()
        state[0, where] += change
        assert bool(world.success(state, goal)[0]) is reached


def test_published_states_of_41_dims_are_taken(world: Cube) -> None:
    """qpos and qvel are all that a start looks at."""
    states = world.sample_states(np.random.default_rng(0), 2)
    action = np.full((2, 5), 0.2, np.float32)
    whole, short = world.start(states).step(action), world.start(states[:, :41]).step(action)
    assert np.array_equal(whole, short)


def test_the_picker_carries_the_cube_and_its_noisy_twin_moves_it(world: Cube) -> None:
    """Every cube reaches a target 10 cm away, is left there, and `collect` moves cubes too."""
    rng = np.random.default_rng(1)
    starts = world.sample_states(rng, 4)
    goals = starts.copy()
    goals[:, 14] = np.where(starts[:, 14] > 0.42, starts[:, 14] - 0.1, starts[:, 14] + 0.1)
    session, expert, now = world.start(starts), world.expert(goals), starts
    for _ in range(110):
        now = session.step(expert(now))
    assert world.success(now, goals).all()
    assert (now[:, 46] < 0.1).all()  # let go of
    collector, session, now = CubeCollector(4, rng), world.start(starts), starts
    for _ in range(80):
        now = session.step(collector.act(now))
    moved = np.linalg.norm(now[:, CUBE] - starts[:, CUBE], axis=-1)
    assert (moved > world.tolerance).any()


def test_small_frames_show_the_same_scene_from_fewer_triangles() -> None:
    """Grey levels move by a few tenths, far less than between two scenes; physics to the bit."""
    code = """
import subprocess
import sys

import numpy as np
from worldmodel.worlds import _mujoco
from worldmodel.worlds.cube import _Simulator

coarsen = _mujoco._coarsen
_mujoco._coarsen = lambda *_: None
whole = _Simulator(64)
states = [whole.begin(np.int64(seed)) for seed in range(4)]
frames = np.stack([whole.draw(state) for state in states]).astype(int)
_mujoco._coarsen = coarsen
plain = _Simulator(64)
assert 0 < plain._env.model.mesh_facenum.sum() < whole._env.model.mesh_facenum.sum() / 5
drawn = np.stack([plain.draw(state) for state in states])
assert abs(frames - drawn).mean() < 0.6 < abs(frames[1:] - frames[:-1]).mean() / 3
for step in range(20):
    action = np.random.default_rng(step).uniform(-1, 1, 5).astype(np.float32)
    one, two = ([one.step(s, action) for s in states] for one in (whole, plain))
    assert np.array_equal(one, two)
    states = one
print("alike")
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "alike" in told.stdout, told.stderr
