"""Environments of Gymnasium as worlds: a stub without MuJoCo, and real ones where installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodel.apps.cli import main
from worldmodel.data import open_hdf5
from worldmodel.worlds import open_world
from worldmodel.worlds.behaviours import make_behaviour
from worldmodel.worlds.contract import imports_code

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'sigreg[envs]'")

# A cart on a rail with a wheel that turns freely and a goal that no state holds.
STUB = '''
from types import SimpleNamespace as Record
import gymnasium, numpy as np
from gymnasium.spaces import Box, Discrete

class Cart(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = Box(-1, 1, (1,))
    action_space = Box(-2, 3, (1,), np.float32)
    goal = 0.5

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.model = Record(jnt_type=[2, 3], jnt_qposadr=[0, 1], jnt_limited=[1, 0])
        self.data = Record(qpos=np.zeros(2), qvel=np.zeros(2))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = np.random.rand()
        self.set_state(self.np_random.uniform(-1, 1, 2), np.zeros(2))
        return np.zeros(1), {}

    def set_state(self, qpos, qvel):
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel

    def step(self, action):
        chance = np.random.rand() + self.np_random.random()
        push = np.array([action[0], 1 + self.goal]) + 0.1 * chance
        self.data.qvel[:] = 0.9 * self.data.qvel + 0.1 * push
        self.data.qpos[:] += 0.1 * self.data.qvel
        return np.zeros(1), 0.0, False, False, {}

    def render(self):
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[:, int(40 + 10 * np.tanh(self.data.qpos[0]))] = [255, int(200 * self.goal), 0]
        return picture

class Fixed(Cart):
    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

class Stateless(Fixed):
    set_state = None

class Forgetful(Cart):
    """Its speed is in no state."""
    speed = 0
    def step(self, action):
        self.speed += 1
        self.data.qpos[:] += self.speed
        return np.zeros(1), 0.0, False, False, {}

class Choosy(Cart):
    action_space = Discrete(3)

class Boundless(Cart):
    action_space = Box(-np.inf, np.inf, (1,), np.float32)

class Fussy(Fixed):
    def set_state(self, qpos, qvel, buttons):
        super().set_state(qpos, qvel)

for kind in (Cart, Stateless, Forgetful, Choosy, Boundless, Fussy):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
'''
CART = "gymnasium:stub_envs:Cart-v0"


@pytest.fixture(autouse=True, scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that registers the stubs, where processes find it."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub_envs.py").write_text(STUB, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def walk(world: Any, steps: int, seed: int = 0, num: int = 3) -> tuple[list[Any], list[Any]]:
    """Random steps: states and actions of each moment."""
    rng = np.random.default_rng(seed)
    states, actions = [world.sample_states(rng, num)], []
    session = world.start(states[0])
    for _ in range(steps):
        size = (num, world.action_dim)
        actions.append(rng.uniform(world.action_low, world.action_high, size).astype(np.float32))
        states.append(session.step(actions[-1]))
    return states, actions


def keeps_the_contract(world: Any) -> None:
    """A state decides what follows and what is seen, in any company and after any reset."""
    states, actions = walk(world, 6)
    assert states[0].shape == (3, world.state_dim)
    again = world.start(states[2])
    world.sample_states(np.random.default_rng(5), 2)
    np.random.seed(1)  # noqa: NPY002
    for t in range(2, 6):
        assert np.array_equal(again.step(actions[t]), states[t + 1])
    alone = world.start(states[0][1:2])
    assert np.array_equal(alone.step(actions[0][1:2]), states[1][1:2])
    frames = world.draw(states[6])
    assert frames.shape == (3, 3, world.image_size, world.image_size)
    assert frames.dtype == np.uint8
    world.sample_states(np.random.default_rng(6), 2)
    assert np.array_equal(world.draw(states[6][::-1]), frames[::-1])
    assert not np.array_equal(frames[0], frames[1])
    assert (world.distance(states[6], states[6]) == 0).all()
    assert world.success(states[6], states[6]).all()
    assert not world.success(states[0][:1], states[6][:1] + 9).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_the_stub_is_all_there_is(workers: int) -> None:
    """Chance in a step, goals of a reset and other agents change neither states nor frames."""
    world = open_world(CART, image_size=20, workers=workers)
    keeps_the_contract(world)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    walk(world, 1)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert world.name == CART
    assert world.versions()["rendering"] == "the environment's own"


def test_actions_are_those_of_the_environment() -> None:
    """The box has the environment's bounds; what lies outside is clipped, idle is inside."""
    world = open_world(CART, image_size=20, workers=0)
    assert (world.action_low, world.action_high) == ([-2], [3])
    states = world.sample_states(np.random.default_rng(0), 2)
    far, edge, less = (world.start(states).step(np.full((2, 1), push)) for push in (9, 3, 2.9))
    assert np.array_equal(far, edge)
    assert not np.array_equal(edge, less)
    assert not world.idle(states).any()


def test_a_wheel_is_counted_around_the_circle() -> None:
    """A turn more is the same pose; a place is not; the tolerance stands in the criterion."""
    world = open_world(CART, image_size=20, workers=0)
    start = np.zeros((1, 4), np.float32)
    turned = np.array([[0, 2 * np.pi + 0.1, 5, 5]], np.float32)
    moved = np.array([[0.3, 0, 0, 0]], np.float32)
    assert world.distance(start, turned) == pytest.approx(0.1, abs=1e-5)
    assert world.success(start, turned).all()
    assert not world.success(start, moved).any()
    assert "0.2 (m, rad)" in world.criterion


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stub_envs:Stateless-v0", "cannot be set to a state: its class lacks set_state"),
        ("stub_envs:Forgetful-v0", "cannot be set to a state: after set_state.* leads elsewhere"),
        ("stub_envs:Fussy-v0", "cannot be set to a state: set_state.* fails, .*buttons"),
        ("stub_envs:Choosy-v0", r"must take actions from a bounded Box \[A\], got Discrete\(3\)"),
        ("stub_envs:Boundless-v0", r"must take actions from a bounded Box \[A\], got Box\(-inf"),
        ("Pendulum-v1", "cannot be set to a state: its class lacks set_state"),
        ("Karts-v0", "cannot be made: .*doesn't exist"),
        ("", "cannot be made: "),
    ],
)
def test_an_environment_that_is_no_world_says_why(name: str, message: str) -> None:
    """One line names the environment and what it lacks."""
    with pytest.raises(ValueError, match=message) as caught:
        open_world(f"gymnasium:{name}", image_size=20, workers=0)
    assert f"gymnasium:{name} " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_is_searched_in_the_current_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of one's own lies beside the command; one that is nowhere is named."""
    content = STUB.partition("for kind in (")[0] + 'gymnasium.register("Near-v0", entry_point=Cart)'
    (tmp_path / "near_envs.py").write_text(content, encoding="utf-8")
    name = "gymnasium:near_envs:Near-v0"
    with pytest.raises(ValueError, match="there is no module 'near_envs' on Python's path or in"):
        open_world(name, workers=0)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert open_world(name, image_size=20, workers=0).state_dim == 4
    assert sys.path == before


def test_held_actions_go_further_than_fresh_ones() -> None:
    """Both policies repeat themselves with their seed; the held one covers more ground."""
    world, spread = open_world(CART, image_size=20, workers=0), {}
    for policy in ("held", "random"):
        acts = make_behaviour(policy, world, 64, np.random.default_rng(0))
        alike = make_behaviour(policy, world, 64, np.random.default_rng(0))
        states = np.zeros((64, 4), np.float32)
        moves = np.stack([acts(states) for _ in range(50)])
        assert np.array_equal(moves, [alike(states) for _ in range(50)])
        assert ((moves >= world.action_low) & (moves <= world.action_high)).all()
        spread[policy] = moves.sum(0).std()
    assert spread["held"] > 2 * spread["random"]


def test_the_commands_take_it_from_collecting_to_a_score(tmp_path: Path) -> None:
    """States collected and resumed, drawn, trained on and planned with; no class is written."""
    world = ("--env", CART, "--workers", "0")
    small = ("--length", "30", "--states-only", "--size", "16", "--seed", "3")
    whole, pieces, other = tmp_path / "whole.h5", tmp_path / "pieces.h5", tmp_path / "other.h5"
    assert main(["data", "collect", *world, "--episodes", "6", *small, "--out", str(whole)]) == 0
    for num in ("2", "6"):
        args = ["data", "collect", *world, "--episodes", num, *small, "--out", str(pieces)]
        assert main([*args, "--resume"]) == 0
    one, two = open_hdf5(whole), open_hdf5(pieces)
    assert one.states is not None
    assert two.states is not None
    assert np.array_equal(one.states.numpy(), two.states.numpy())
    args = ["data", "collect", *world, "--episodes", "4", "--length", "30", "--states-only"]
    assert main([*args, "--seed", "4", "--out", str(other)]) == 0
    run, pairs, result = tmp_path / "run", tmp_path / "pairs.json", tmp_path / "result"
    args = ["train", "--data", str(whole), "--render", "32", "--world", CART, "--steps", "2"]
    assert main([*args, "--batch-size", "4", "--out", str(run)]) == 0
    args = ["manifest", *world[:2], "--data", str(other), "--pairs", "3", "--offset", "10"]
    assert main([*args, "--budget", "10", "--out", str(pairs)]) == 0
    assert "tolerance is ours" in json.loads(pairs.read_text(encoding="utf-8"))["criterion"]
    args = ["evaluate", str(run), "--manifest", str(pairs), *world, "--films", "0"]
    few = ["--planner", "predictive-sampling", "--samples", "4", "--iterations", "1"]
    assert main([*args, *few, "--out", str(result)]) == 0
    content = json.loads((result / "result.json").read_text(encoding="utf-8"))
    assert content["env"] == CART
    assert content["random_success_rate"] is not None


def test_only_a_name_with_a_module_imports_code() -> None:
    """A file may name what the registry has; a module is imported for those who ask."""
    assert not imports_code("gymnasium:Swimmer-v5")
    assert imports_code("gymnasium:stub_envs:Cart-v0")
    assert imports_code("my_world:Pond")


def real(name: str, **more: Any) -> Any:
    """A real environment, or a skip that names what it needs."""
    for package in ("mujoco", "imageio", "ogbench"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs {package}: pip install 'sigreg[envs]'")
    return open_world(f"gymnasium:{name}", image_size=32, workers=1, **more)


@pytest.mark.parametrize(
    "name", ["Swimmer-v5", "Ant-v5", "pointmaze-medium-v0", "antsoccer-arena-v0"]
)
def test_a_state_of_mujoco_is_all_there_is(name: str) -> None:
    """With contacts, quaternions and cameras: what a state says decides steps and frames."""
    world = real(name)
    keeps_the_contract(world)
    assert world.versions()["mujoco"]


@pytest.mark.parametrize("name", ["pointmaze-medium-v0", "antsoccer-arena-v0"])
def test_success_in_a_maze_is_that_of_ogbench(name: str) -> None:
    """Near the tolerance the world and the environment's own compute_success agree."""
    world = real(name)
    bare: Any = importlib.import_module("gymnasium").make(f"ogbench:{name}").unwrapped
    bare.reset(seed=0)
    rng = np.random.default_rng(0)
    states = world.sample_states(rng, 1).repeat(40, 0)
    ball = "soccer" in name
    dims, nq = ([-7, -6] if ball else [0, 1]), bare.model.nq
    goals = states.copy()
    goals[:, np.arange(nq)[dims]] += (
        rng.uniform(-1, 1, (40, 2)).astype(np.float32) * world.tolerance
    )
    own = []
    for state, goal in zip(states, goals, strict=True):
        bare.set_state(state[:nq].astype(float), state[nq:].astype(float))
        bare.set_goal(goal_xy=goal[:nq][dims].astype(float))
        own.append(bare.compute_success())
    assert 5 < sum(own) < 38
    assert world.success(states, goals).tolist() == own


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
def test_success_with_cubes_is_that_of_ogbench() -> None:
    """Every cube must be at its goal: the world agrees with the environment's own rule."""
    world = real("cube-double-v0")
    bare: Any = importlib.import_module("gymnasium").make("ogbench:cube-double-v0").unwrapped
    bare.reset(seed=0)
    rng, nq = np.random.default_rng(0), bare.model.nq
    state = world.sample_states(rng, 1)[0]
    bare.set_state(state[:nq].astype(float), state[nq:].astype(float))
    starts = [int(bare.model.joint(f"object_joint_{i}").qposadr[0]) for i in range(2)]
    goals, own = state[None].repeat(40, 0), []
    for goal in goals:
        for cube, at in enumerate(starts):
            goal[at : at + 3] += rng.uniform(-0.03, 0.03, 3)
            bare.data.mocap_pos[bare._cube_target_mocap_ids[cube]] = goal[at : at + 3]
        own.append(all(bare._compute_successes()))
    assert 5 < sum(own) < 38
    assert world.success(state[None].repeat(40, 0), goals).tolist() == own


def test_an_environment_with_buttons_is_refused() -> None:
    """OGBench's scene is set by qpos, qvel and buttons, which no state here holds."""
    real("pointmaze-medium-v0")
    with pytest.raises(ValueError, match="scene-v0 cannot be set to a state: set_state"):
        open_world("gymnasium:scene-v0", image_size=32, workers=1)
