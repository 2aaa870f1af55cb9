"""Reacher: dm_control's physics, the published criterion, and the scripted reach."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("dm_control", reason="reacher needs dm_control: pip install 'sigreg[reacher]'")

from worldmodel.worlds.reacher import Reacher


@pytest.fixture(scope="module")
def world() -> Reacher:
    """One simulator process for all."""
    return Reacher(32, workers=1)


def test_success_is_the_published_criterion(world: Reacher) -> None:
    """Each joint within 0.05 rad, velocities aside; a full turn of the shoulder is no distance."""
    goal = np.array([[1.0, -1.0, 0.0, 0.0]], np.float32)
    for change, reached in (
        ((0.049, -0.049, 3, 3), True),
        ((0.051, 0, 0, 0), False),
        ((0, 0.051, 0, 0), False),
        ((2 * np.pi, 0, 0, 0), True),
        ((0, 2 * np.pi, 0, 0), False),
    ):
        assert bool(world.success(goal + np.float32(change), goal)[0]) is reached


def test_the_physics_is_the_suites(world: Reacher) -> None:
    """Ten steps lead where dm_control's own task leads."""
    from dm_control.suite import reacher

    task = reacher.hard(random=0)
    task.reset()
    start = np.concatenate([task.physics.data.qpos, task.physics.data.qvel]).astype(np.float32)
    session = world.start(start[None])
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (10, 2)):
        task.step(action)
        state = session.step(action[None].astype(np.float32))[0]
    expected = np.concatenate([task.physics.data.qpos, task.physics.data.qvel])
    np.testing.assert_allclose(state, expected, atol=1e-4)


def test_the_target_is_not_drawn(world: Reacher) -> None:
    """Beside the shoulder, where the suite's red target would lie, is the floor's blue."""
    arm_to_the_right = np.zeros((1, 4), np.float32)
    red, _, blue = world.draw(arm_to_the_right)[0, :, 15:17, 13:15].astype(int)
    assert (blue > 1.5 * red).all()


def test_the_scripted_reach_arrives(world: Reacher) -> None:
    """Poses up to 1.5 rad away at both joints are reached within 50 steps."""
    rng = np.random.default_rng(0)
    starts = world.sample_states(rng, 16)
    goals = starts.copy()
    goals[:, :2] += rng.uniform(-1.5, 1.5, (16, 2))
    goals[:, 1] = np.clip(goals[:, 1], -2.6, 2.6)
    session, expert, now = world.start(starts), world.expert(goals), starts
    reached = np.zeros(16, bool)
    for _ in range(50):
        now = session.step(expert(now))
        reached |= world.success(now, goals)
    assert reached.all()
