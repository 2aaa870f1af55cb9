"""Push-T: gym-pusht's physics and pictures, the published criterion, and the scripted pusher."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodel.worlds import open_world
from worldmodel.worlds import push_t_pusher as _tee

pytest.importorskip("gym_pusht", reason="push-t needs gym_pusht: pip install 'sigreg[push-t]'")

from worldmodel.worlds.push_t import PushT
from worldmodel.worlds.push_t_pusher import PushTExplorer, PushTPusher

Floats = NDArray[np.float32]


def pose(*values: float) -> Floats:
    """One state [1, 10], zeros behind the values given."""
    state = np.zeros((1, 10), np.float32)
    state[0, : len(values)] = values
    return state


def test_one_step_is_the_packages_own_step() -> None:
    """Against gym-pusht's environment: the same positions after a step with and without contact."""
    from gym_pusht.envs.pusht import PushTEnv

    world = PushT(32)
    states = np.concatenate([pose(100, 100, 300, 300, 1.0), pose(256, 236, 256, 256, 0.0)])
    actions = np.array([[0.5, -0.2], [0.1, 0.8]], np.float32)
    after = world.start(states).step(actions)
    assert abs(after[1, 3] - 256) > 5  # the block was pushed
    for state, action, wanted in zip(states, actions, after, strict=True):
        env = PushTEnv()
        env._setup()
        env.agent.position = state[:2].tolist()
        env.block.angle = float(state[4])
        env.block.position = state[2:4].tolist()
        observed, *_ = env.step(np.float64(state[:2]) + 100 * np.float64(action))
        np.testing.assert_allclose(wanted[:5], observed, rtol=1e-6)


def test_a_push_goes_on_as_in_a_simulation_that_is_never_set_up_anew() -> None:
    """After ten steps of pushing, block and agent are where gym-pusht's own running world has them.

    The block's velocity is what a state must hold for that: without it a tenth of its way is lost.
    """
    from gym_pusht.envs.pusht import PushTEnv

    state = pose(256, 190, 256, 216, 0.0)
    env = PushTEnv()
    env._setup()
    env.agent.position, env.block.position = [256, 190], [256, 216]
    session = PushT(32).start(state)
    for _ in range(10):
        action = np.array([[0.0, 0.3]], np.float32)
        observed, *_ = env.step(np.asarray(env.agent.position) + 100 * np.float64(action[0]))
        state = session.step(action)
    assert state[0, 3] - 216 > 50
    np.testing.assert_allclose(state[0, :5], observed, rtol=0, atol=0.05)


def test_chipmunks_functions_do_what_pymunks_objects_do() -> None:
    """Each of 400 steps of pushing gives the same bits as gym-pusht's objects set up anew."""
    from gym_pusht.envs.pusht import PushTEnv

    env = PushTEnv()

    def plain(state: Floats, action: Floats) -> Floats:
        values = state.tolist()
        env._setup()
        env.agent.position, env.agent.velocity = values[:2], values[5:7]
        env.block.angle = values[4]
        env.block.position = values[2:4]
        env.block.velocity, env.block.angular_velocity = values[7:9], values[9]
        point = np.asarray(env.agent.position) + 100.0 * action.astype(np.float64)
        x, y = np.clip(point, 0.0, 512.0).tolist()
        for _ in range(10):
            pull = env.k_p * ((x, y) - env.agent.position) - env.k_v * env.agent.velocity
            env.agent.velocity += pull * env.dt
            env.space.step(env.dt)
        block = env.block
        angle = np.float32(block.angle % (2 * np.pi)) % np.float32(2 * np.pi)
        moving = (*env.agent.velocity, *block.velocity, block.angular_velocity)
        return np.array([*env.agent.position, *block.position, angle, *moving], np.float32)

    world, rng = PushT(32), np.random.default_rng(0)
    states = world.sample_states(rng, 8)
    explorer, session, moved = PushTExplorer(8, rng), world.start(states), 0
    for _ in range(50):
        actions = explorer.act(states)
        after = session.step(actions)
        wanted = np.stack([plain(s, a) for s, a in zip(states, actions, strict=True)])
        assert np.array_equal(after, wanted)
        moved += int((np.abs(after[:, 2:4] - states[:, 2:4]) > 0.5).any(1).sum())
        states = after
    assert moved > 50


def test_at_512_pixels_pictures_are_the_packages_own() -> None:
    """A frame is what gym-pusht renders."""
    from gym_pusht.envs.pusht import PushTEnv

    state = pose(150, 200, 320, 300, 0.7)
    env = PushTEnv(observation_width=512, observation_height=512)
    env._setup()
    env.agent.position, env.block.angle = [150, 200], float(np.float32(0.7))
    env.block.position = [320, 300]
    for body in (env.agent, env.block):
        env.space.reindex_shapes_for_body(body)
    assert np.array_equal(PushT(512).draw(state)[0], env._render().transpose(2, 0, 1))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_smaller_pictures_are_the_packages_own_shrunk(size: int) -> None:
    """The mean of each pixel's area in gym-pusht's picture, to a fifth of a grey level.

    Where block or agent move, the picture changes as much as gym-pusht's does.
    """
    states = PushT(512).sample_states(np.random.default_rng(3), 24)
    large = PushT(512).draw(states).astype(np.float64)
    cell = 512 // size
    wanted = large.reshape(24, 3, size, cell, size, cell).mean((3, 5))
    drawn = PushT(size).draw(states).astype(np.float64)
    assert np.abs(drawn - wanted).mean() < 0.2
    change, wanted_change = np.diff(drawn, axis=0), np.diff(wanted, axis=0)
    assert np.abs(change - wanted_change).mean() < 0.05 * np.abs(wanted_change).mean()


def test_a_picture_depends_on_its_state_alone() -> None:
    """Alone, among others and in another order: the same pixels, at walls and overlaps too."""
    world = PushT(48)
    states = np.concatenate(
        [
            world.sample_states(np.random.default_rng(4), 40),
            pose(0, 0, 0, 0, 1.0),
            pose(512, 512, 511, 300, 3.0),
            pose(256, 256, 256, 256, 6.0),
        ]
    )
    together = world.draw(states)
    assert np.array_equal(together[::-1], world.draw(states[::-1]))
    for n in (0, 33, 40, 41, 42):
        assert np.array_equal(world.draw(states[n : n + 1])[0], together[n])
    assert len({picture.tobytes() for picture in together}) == len(together)


@pytest.mark.parametrize(
    ("change", "reached"),
    [
        ((0, 19.9), True),
        ((0, 20.1), False),
        ((3, 19.9), True),
        ((4, np.deg2rad(19.9)), True),
        ((4, np.deg2rad(20.1)), False),
        ((4, 2 * np.pi - 0.1), True),
        ((5, 500.0), True),
    ],
)
def test_success_is_the_published_criterion(change: tuple[int, float], reached: bool) -> None:
    """Four coordinates together within 20, the angle within 20°, around the circle, no velocity."""
    goal = pose(100, 100, 200, 200, 0.05)
    state = goal.copy()
    state[0, change[0]] += change[1]
    assert bool(PushT(32).success(state, goal)[0]) is reached


def test_positions_count_together() -> None:
    """Agent and block each 15 away are 21.2 away together: not reached, distance 1.06."""
    goal = pose(100, 100, 200, 200, 0)
    state = pose(115, 100, 215, 200, 0)
    assert not PushT(32).success(state, goal)[0]
    assert PushT(32).distance(state, goal)[0] == pytest.approx(15 * np.sqrt(2) / 20)


def test_published_states_of_seven_dims_are_taken() -> None:
    """Seven dims start, draw and compare like ten with the block at rest."""
    world = PushT(32)
    whole = pose(100, 120, 300, 300, 1.0, 30, -10)
    short = whole[:, :7]
    action = np.array([[0.3, 0.1]], np.float32)
    assert np.array_equal(world.start(short).step(action), world.start(whole).step(action))
    assert np.array_equal(world.draw(short), world.draw(whole))
    assert world.success(whole, short).all()


def test_the_agent_stays_in_the_square() -> None:
    """A target beyond the wall is drawn to the wall."""
    world = PushT(32)
    session = world.start(pose(20, 256, 300, 300, 1.0))
    for _ in range(30):
        state = session.step(np.array([[-1.0, 0.0]], np.float32))
    assert 0 <= state[0, 0] < 1


def test_processes_do_what_this_one_does() -> None:
    """Two worker processes step, draw and complain exactly as the simulator in this process."""
    here, there = PushT(32), PushT(32, workers=2)
    rng = np.random.default_rng(0)
    states = here.sample_states(rng, 3)
    actions = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
    assert np.array_equal(here.start(states).step(actions), there.start(states).step(actions))
    assert np.array_equal(here.draw(states[:1]), there.draw(states[:1]))
    there._workers.close()


def test_the_geometry_is_gym_pushts() -> None:
    """Centre, moment of inertia and outline of the T are those of the simulated body."""
    from gym_pusht.envs.pusht import PushTEnv

    env = PushTEnv()
    env._setup()
    assert tuple(env.block.center_of_gravity) == tuple(_tee.CENTRE)
    assert env.block.moment / env.block.mass == _tee.MOMENT
    env.block.angle, env.block.position = 0.4, (200, 250)
    points = _tee.to_world(_tee.CONTACTS[None], np.array([[200.0, 250.0]]), np.array([0.4]))[0]
    env.space.reindex_shapes_for_body(env.block)
    gaps = [min(s.point_query(tuple(p)).distance for s in env.block.shapes) for p in points]
    assert np.abs(gaps).max() < 1e-6


def test_starts_are_clear_of_the_block() -> None:
    """No start has the agent overlapping the block, and starts lie where gym-pusht draws them."""
    world = PushT(32)
    states = world.sample_states(np.random.default_rng(0), 500)
    assert (world.clearance(states) > 0).all()
    assert states[:, :2].min() >= 50
    assert states[:, 2:4].max() < 400


def test_the_pusher_brings_the_block_to_its_goal() -> None:
    """From random starts to random poses: at least 10 of 12 within 200 steps, agent included."""
    world = PushT(32)
    rng = np.random.default_rng(2)
    starts, goals = world.sample_states(rng, 12), world.sample_states(rng, 12)
    expert, session, states = world.expert(goals), world.start(starts), starts
    reached = np.zeros(12, bool)
    for _ in range(200):
        states = session.step(expert(states))
        reached |= world.success(states, goals)
    assert reached.sum() >= 10


def test_the_explorer_moves_the_block_about() -> None:
    """Within 100 steps of its data every block has moved by more than the success radius."""
    world = PushT(32)
    rng = np.random.default_rng(1)
    states = world.sample_states(rng, 6)
    explorer, session = PushTExplorer(6, rng), world.start(states)
    path = [states]
    for _ in range(100):
        path.append(session.step(explorer.act(path[-1])))
    blocks = np.stack(path)[:, :, 2:4]
    assert (np.linalg.norm(blocks - blocks[0], axis=-1).max(0) > 20).all()


def test_no_push_is_needed_at_the_goal() -> None:
    """Where the block lies right, the pusher goes for the agent's goal and leaves the block."""
    world = PushT(32)
    goal = pose(400, 400, 200, 200, 1.0)
    start = pose(60, 60, 200, 200, 1.0)
    pusher, session, state = PushTPusher(goal), world.start(start), start
    for _ in range(60):
        state = session.step(pusher.act(state))
    assert np.array_equal(state[0, 2:5], start[0, 2:5])
    assert world.success(state, goal).all()


def test_open_world_opens_it() -> None:
    """By its name, with its workers; two-room has none to give."""
    assert isinstance(open_world("push-t", image_size=40, workers=0), PushT)
    with pytest.raises(ValueError, match="without workers, got 2"):
        open_world("two-room", workers=2)
    with pytest.raises(ValueError, match="workers must be an integer of at least 0"):
        open_world("push-t", workers=-1)
