"""Truths of Two-Room: what stops the disc, what a picture shows, what the expert can do."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.worlds import TwoRoom, TwoRoomEnv, TwoRoomExpert, World, collect, open_world

world = TwoRoom(64)
DOOR, HALF = world.door
LOW, HIGH = 4 + world.radius, world.size - 4 - world.radius
LEFT, RIGHT = world.size / 2 - 5 - world.radius, world.size / 2 + 5 + world.radius

inside = st.tuples(st.floats(LOW, HIGH, width=32), st.floats(LOW, HIGH, width=32))
moves = st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))


def at(*points: tuple[float, float]) -> Any:
    """Points as states [N, 2]."""
    return np.asarray(points, np.float32)


def legal(states: Any) -> Any:
    """Whether a disc there is clear of the border and of the wall."""
    x, y = states[..., 0], states[..., 1]
    border = (x >= LOW) & (x <= HIGH) & (y >= LOW) & (y <= HIGH)
    gap = HALF - world.radius + 1e-4
    return border & ((x <= LEFT) | (x >= RIGHT) | (np.abs(y - DOOR) <= gap))


@given(seed=st.integers(0, 999), steps=st.integers(1, 40))
def test_no_walk_enters_a_wall(seed: int, steps: int) -> None:
    """Whatever the actions, a disc that starts clear of every wall stays clear."""
    rng = np.random.default_rng(seed)
    states = world.sample_states(rng, 16)
    assert legal(states).all()
    for _ in range(steps):
        states = world.step(states, rng.uniform(-3, 3, states.shape).astype(np.float32))
        assert legal(states).all()


@given(y=st.floats(LOW, HIGH, width=32), rightwards=st.booleans())
def test_only_the_door_lets_through(y: float, rightwards: bool) -> None:
    """Walking straight at the wall crosses it at the door's height and nowhere else."""
    state = at((40.0, y)) if rightwards else at((184.0, y))
    action = at((1.0, 0.0)) if rightwards else at((-1.0, 0.0))
    before = world.room(state)[0]
    for _ in range(40):
        state = world.step(state, action)
    crossed = world.room(state)[0] != before
    assert crossed == (abs(y - DOOR) <= HALF - world.radius)
    if not crossed:
        assert state[0, 0] == pytest.approx(LEFT if rightwards else RIGHT)


@given(start=inside, move=moves)
def test_a_free_step_is_the_action_times_the_speed(
    start: tuple[float, float], move: tuple[float, float]
) -> None:
    """Away from walls a step adds speed × action, each component cut to [−1, 1]."""
    state, action = at(start), at(move)
    wanted = state + world.speed * np.clip(action, -1, 1)
    path = np.concatenate([state, at((wanted[0, 0], state[0, 1])), wanted])
    clear = (path[:, 0].max() < LEFT) | (path[:, 0].min() > RIGHT)
    if clear and ((path > LOW) & (path < HIGH)).all():
        np.testing.assert_allclose(world.step(state, action), wanted, rtol=1e-6)


def test_many_agents_at_once_equal_one_by_one() -> None:
    """Stepping and drawing N agents together gives what each gives alone."""
    rng = np.random.default_rng(0)
    states = world.sample_states(rng, 20)
    actions = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
    together, frames = world.step(states, actions), world.render(states)
    for i in range(20):
        assert np.array_equal(
            together[i : i + 1], world.step(states[i : i + 1], actions[i : i + 1])
        )
        assert np.array_equal(frames[i : i + 1], world.render(states[i : i + 1]))


def test_the_mirrored_world_is_the_same_world() -> None:
    """Mirrored left to right or top to bottom, steps and pictures are mirrored too."""
    rng = np.random.default_rng(1)
    states = world.sample_states(rng, 50)
    actions = rng.uniform(-1, 1, (50, 2)).astype(np.float32)
    for axis in (0, 1):
        flipped, back = states.copy(), actions.copy()
        flipped[:, axis] = world.size - flipped[:, axis]
        back[:, axis] *= -1
        wanted = world.step(states, actions)
        wanted[:, axis] = world.size - wanted[:, axis]
        np.testing.assert_allclose(world.step(flipped, back), wanted, atol=1e-4)
        mirrored = np.flip(world.render(states), 3 - axis).astype(int)
        assert np.abs(world.render(flipped).astype(int) - mirrored).max() <= 1


@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_move_below_one_pixel_shows(size: int) -> None:
    """Half a pixel further, the picture is another one; the agent's mass is where the agent is."""
    drawn = TwoRoom(size)
    pixel = world.size / size
    states = at((50.0, 60.0), (50.0 + pixel / 2, 60.0), (50.0, 60.0 + pixel / 2))
    frames = drawn.render(states).astype(float)
    assert (frames[0] != frames[1]).any()
    assert (frames[0] != frames[2]).any()
    empty = drawn.render(at((150.0, 150.0)))[0].astype(float)
    cover = np.abs(frames - empty).sum(1)
    cover[:, size // 2 :, size // 2 :] = 0  # leaves out the other agent
    y, x = np.mgrid[:size, :size] + 0.5
    mass = cover.sum((1, 2))
    centre = np.stack([(cover * x).sum((1, 2)) / mass, (cover * y).sum((1, 2)) / mass], 1)
    np.testing.assert_allclose(centre * pixel, states, atol=0.1 * pixel)


def test_a_picture_shows_every_position() -> None:
    """States one pixel apart anywhere give different pictures: nothing hides the agent."""
    states = world.sample_states(np.random.default_rng(2), 300)
    frames = world.render(states)
    assert len({frame.tobytes() for frame in frames}) == 300
    assert frames.shape == (300, 3, 64, 64)
    assert frames.dtype == np.uint8


def test_success_is_a_disc_around_the_goal() -> None:
    """A goal is reached closer than 16 units, at 16 it is not."""
    goal = at((100.0, 100.0))
    assert world.success(at((115.9, 100.0)), goal).all()
    assert not world.success(at((116.0, 100.0)), goal).any()
    assert world.distance(at((103.0, 104.0)), goal)[0] == pytest.approx(5.0)


def test_sampled_states_fill_both_rooms_evenly() -> None:
    """Samples are clear of walls, half of them in each room, centred in it."""
    states = world.sample_states(np.random.default_rng(3), 20_000)
    assert legal(states).all()
    assert ((states[:, 0] <= LEFT) | (states[:, 0] >= RIGHT)).all()
    right = world.room(states) == 1
    assert abs(right.mean() - 0.5) < 0.02
    assert abs(states[right, 0].mean() - (RIGHT + HIGH) / 2) < 1.0
    assert abs(states[:, 1].mean() - world.size / 2) < 1.0


def test_the_expert_reaches_its_targets() -> None:
    """Without noise it comes within a step of a target in the other room, through the door."""
    rng = np.random.default_rng(4)
    expert = TwoRoomExpert(world, 200, rng, noise=0.0, repeat=0.0, cross=1.0)
    states = world.sample_states(rng, 200)
    expert.act(states)
    goals, reached = expert.targets.copy(), np.zeros(200, bool)
    assert (world.room(goals) != world.room(states)).all()
    for _ in range(120):
        states = world.step(states, expert.act(states))
        reached |= world.distance(states, goals) < world.speed
    assert reached.all()


def test_walks_are_what_the_world_does() -> None:
    """Each recorded action leads from its state to the next, and the seed decides the walk."""
    walks = collect(world, 30, 25, seed=5)
    for t in range(25):
        there = world.step(walks.states[:, t], walks.actions[:, t])
        assert np.array_equal(there, walks.states[:, t + 1])
    again, other = collect(world, 30, 25, seed=5), collect(world, 30, 25, seed=6)
    assert np.array_equal(walks.states, again.states)
    assert np.array_equal(walks.actions, again.actions)
    assert not np.array_equal(walks.states, other.states)
    assert np.abs(walks.actions).max() <= 1


def test_noisy_walks_cross_the_wall_and_cover_both_rooms() -> None:
    """The collected data hold crossings, and every quarter of either room."""
    walks = collect(world, 60, 100, seed=7)
    rooms = world.room(walks.states)
    assert (rooms[:, 1:] != rooms[:, :-1]).any(1).mean() > 0.5
    cells = np.floor(walks.states.reshape(-1, 2) / (world.size / 4)).astype(int)
    assert len(np.unique(cells, axis=0)) == 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoRoom(8), "image_size must be at least 16, got 8"),
        (
            lambda: world.step(at((1, 1)), np.zeros((2, 2), np.float32)),
            r"actions must be .*\[1, 2\] to match states, got .*\[2, 2\]",
        ),
        (lambda: world.step(at((50, 50)), at((np.nan, 0))), "actions must be finite"),
        (lambda: collect(world, 0, 5, 0), "num must be an integer of at least 1, got 0"),
        (lambda: TwoRoomEnv().reset(options={"gaol": at((1, 1))[0]}), "among 'state' and 'goal'"),
        (lambda: TwoRoomEnv().reset(options={"goal": at((1, 1))}), r"options\['goal'\] must be"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    """Wrong sizes, shapes, values and options end in one error with the rule and what came."""
    with pytest.raises(ValueError, match=message):
        call()


def test_the_environment_is_the_world() -> None:
    """Options fix start and goal, steps follow the world, reward 1 ends the episode at the goal."""
    env = TwoRoomEnv(64)
    step = world.speed
    away = world.success_radius + 2.5 * step  # within reach after the third step
    start, goal = at((30.0, 60.0))[0], at((30.0 + away, 60.0))[0]
    frame, info = env.reset(seed=0, options={"state": start, "goal": goal})
    assert np.array_equal(frame, world.render(start[None])[0].transpose(1, 2, 0))
    assert np.array_equal(info["state"], start)
    assert np.array_equal(info["goal"], goal)
    rewards = []
    for _ in range(3):
        frame, reward, terminated, truncated, info = env.step(at((1.0, 0.0))[0])
        rewards.append((reward, terminated, truncated))
    assert rewards == [(0.0, False, False), (0.0, False, False), (1.0, True, False)]
    assert np.array_equal(info["state"], start + at((3 * step, 0))[0])
    assert np.array_equal(frame, env.render())
    info["state"][:] = 0
    assert env.step(at((0.0, 0.0))[0])[4]["state"].any()  # what a caller is given is a copy


def test_gymnasium_accepts_the_environment() -> None:
    """Behind gymnasium's base class and spaces it passes gymnasium's own checker."""
    gymnasium = pytest.importorskip("gymnasium", reason="sigreg[envs] is not installed")
    from gymnasium.utils.env_checker import check_env

    class Adapter(gymnasium.Env):  # type: ignore[misc, name-defined]
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
        render_mode = "rgb_array"
        observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def __init__(self) -> None:
            self.inner = TwoRoomEnv(64)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.inner.reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            return self.inner.step(action)

        def render(self) -> Any:
            return self.inner.render()

    check_env(Adapter(), skip_render_check=True)


def test_a_session_is_the_functional_core_and_draws_whom_it_is_asked_to() -> None:
    """Stepping a session gives the states of `step`, its frames are those of `render`."""
    rng = np.random.default_rng(0)
    states = world.sample_states(rng, 5)
    session = world.start(states)
    for _ in range(3):
        actions = rng.uniform(-1, 1, states.shape).astype(np.float32)
        states = world.step(states, actions)
        assert np.array_equal(session.step(actions), states)
    assert np.array_equal(session.render(), world.draw(states))
    assert np.array_equal(session.render(np.asarray([3, 1])), world.render(states[[3, 1]]))
    assert np.array_equal(world.step(states, world.idle(states)), states)
    session.close()


def test_the_noiseless_expert_always_arrives() -> None:
    """From anywhere to anywhere, within the 70 steps that the longest way takes."""
    rng = np.random.default_rng(1)
    states, goals = world.sample_states(rng, 500), world.sample_states(rng, 500)
    act = world.expert(goals)
    for _ in range(70):
        states = world.step(states, act(states))
    assert world.success(states, goals).all()


def test_a_world_is_opened_by_its_name() -> None:
    """The built-in one comes at the size asked for; another name is refused with those known."""
    opened: World = open_world("two-room", image_size=32)
    assert opened.draw(at((40, 40))).shape == (1, 3, 32, 32)
    assert opened.name == "two-room"
    with pytest.raises(
        ValueError, match=r"env must be one of two-room, maze, push-t, .*, got 'three-room'"
    ):
        open_world("three-room")


def test_a_world_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which package is missing and which extra brings it."""
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(ImportError, match=r'push-t needs the package .*"sigreg\[push-t\]"'):
        open_world("push-t")


def test_a_session_refuses_states_that_are_none() -> None:
    """One agent is [1, 2], and NaN is nowhere."""
    with pytest.raises(ValueError, match=r"states must be an array \[N, S\]"):
        world.start(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="states must be finite"):
        world.start(np.full((1, 2), np.nan, np.float32))
