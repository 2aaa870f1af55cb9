"""Every world behind the contract keeps the same promises; one whose package is missing is skipped.

The suite asks each world for the same truths. What is true of one world alone is in its own file.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodel.worlds import WORLDS, open_world
from worldmodel.worlds.behaviours import make_behaviour, policies
from worldmodel.worlds.coverage import GRIDS, coverage

NEEDS = {"push-t": "gym_pusht", "reacher": "dm_control", "cube": "ogbench"}
AGENTS, STEPS = 3, 6

Floats = NDArray[np.float32]


@cache
def opened(name: str) -> Any:
    """The world, opened once: a simulator process is slow to start."""
    return open_world(name, image_size=48)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each world whose package is installed."""
    package = NEEDS.get(request.param)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{request.param} needs {package}: pip install 'sigreg[{request.param}]'")
    return opened(request.param)


def walk(world: Any, seed: int = 0) -> tuple[Floats, Floats]:
    """Some random steps: states [T + 1, N, S], actions [T, N, A]."""
    rng = np.random.default_rng(seed)
    states = [world.sample_states(rng, AGENTS)]
    session = world.start(states[0])
    actions = rng.uniform(world.action_low, world.action_high, (STEPS, AGENTS, world.action_dim))
    actions = actions.astype(np.float32)
    states += [session.step(action) for action in actions]
    session.close()
    session.close()
    return np.stack(states), actions


def test_states_actions_and_frames_have_the_shapes_of_the_contract(world: Any) -> None:
    """A world says S, A and its image size, and everything it returns agrees with them."""
    states, actions = walk(world)
    assert states.shape == (STEPS + 1, AGENTS, world.state_dim)
    assert states.dtype == np.float32
    assert world.action_low.shape == world.action_high.shape == (world.action_dim,)
    assert (world.action_low < world.action_high).all()
    frames = world.draw(states[-1])
    assert frames.shape == (AGENTS, 3, 48, 48)
    assert frames.dtype == np.uint8
    idle = world.idle(states[-1])
    assert idle.shape == actions[0].shape
    assert (idle >= world.action_low).all()
    assert (idle <= world.action_high).all()


def test_a_state_is_all_there_is(world: Any) -> None:
    """From a recorded state the recorded actions lead to the recorded states, bit for bit."""
    states, actions = walk(world)
    session = world.start(states[2])
    for t in range(2, STEPS):
        assert np.array_equal(session.step(actions[t]), states[t + 1])


def test_agents_do_not_feel_each_other(world: Any) -> None:
    """Alone, in company and in another order, an agent goes the same way, bit for bit."""
    states, actions = walk(world)
    order = np.array([2, 0, 1])
    together, alone = world.start(states[0][order]), world.start(states[0][:1])
    for t in range(3):
        assert np.array_equal(together.step(actions[t][order]), states[t + 1][order])
        assert np.array_equal(alone.step(actions[t][:1]), states[t + 1][:1])


def test_frames_show_the_state_and_nothing_else(world: Any) -> None:
    """A session renders what `draw` draws of its states, and of those named only, at any time."""
    states, actions = walk(world)
    session = world.start(states[0])
    session.step(actions[0])
    wanted = world.draw(states[1])
    assert np.array_equal(session.render(), wanted)
    assert np.array_equal(session.render(np.array([2, 0])), wanted[[2, 0]])
    assert not np.array_equal(wanted[0], wanted[1])


def test_a_goal_is_reached_by_being_there(world: Any) -> None:
    """Every state is its own goal at distance 0, and the criterion names its source."""
    states, _ = walk(world)
    assert world.success(states, states).all()
    assert (world.distance(states, states) == 0).all()
    assert world.success(states, states).shape == states.shape[:-1]
    far = world.sample_states(np.random.default_rng(1), 64)
    assert not world.success(far[:32], far[32:]).all()
    assert "stable-worldmodel" in world.criterion


def test_wrong_shapes_and_values_are_named(world: Any) -> None:
    """A state or an action of another width, and one that is not finite, are refused."""
    states, actions = walk(world)
    with pytest.raises(ValueError, match="states must be"):
        world.start(states[0][:, :1])
    spoilt = states[0].copy()
    spoilt[0, 0] = np.nan
    with pytest.raises(ValueError, match="states must be finite"):
        world.start(spoilt)
    session = world.start(states[0])
    with pytest.raises(ValueError, match="actions must"):
        session.step(actions[0][:1])
    with pytest.raises(ValueError, match="actions must be finite"):
        session.step(np.full_like(actions[0], np.nan))
    with pytest.raises(ValueError, match="image_size must be at least"):
        type(world)(1)


def test_what_decides_the_pictures_is_told(world: Any) -> None:
    """Versions name every package behind the world, and what draws it."""
    versions = world.versions()
    assert versions["rendering"]
    assert all(isinstance(value, str) and value for value in versions.values())


def test_every_policy_acts_inside_the_box_and_repeats_itself(world: Any) -> None:
    """Two behaviours from equal seeds act alike, in bounds, and their data cover some cells."""
    rng = np.random.default_rng(3)
    states = world.sample_states(rng, AGENTS)
    for name in policies(world.name):
        runs = []
        for _ in range(2):
            behaviour = make_behaviour(name, world, AGENTS, np.random.default_rng(4))
            session, now = world.start(states), states
            path = [now]
            for _ in range(STEPS):
                action = behaviour(now)
                assert (action >= world.action_low).all(), name
                assert (action <= world.action_high).all(), name
                now = session.step(action)
                path.append(now)
            runs.append(np.stack(path, axis=1))
        assert np.array_equal(*runs), name
    found = coverage(world, list(runs[0]), window=STEPS - 1)
    assert [grid.name for grid in found.grids] == [grid.name for grid in GRIDS[world.name]]
    assert all(1 <= grid.cells <= AGENTS * (STEPS + 1) for grid in found.grids)
    assert 0 <= found.solved <= 1


def test_an_unknown_policy_is_refused_with_the_known_ones(world: Any) -> None:
    """The message lists the policies of that world."""
    with pytest.raises(ValueError, match=rf"policy must be one of .*random for {world.name}"):
        make_behaviour("oracle of Delphi", world, 1, np.random.default_rng(0))


@pytest.mark.parametrize(("name", "package"), NEEDS.items())
def test_a_missing_package_names_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its package a world says which extra brings it, before anything else happens."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == package else real(module)
    )
    with pytest.raises(ImportError, match=rf"{name} needs .*{package}.*sigreg\[{name}\]"):
        open_world(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:World", "env must name a module, there is none called 'no_such_module'"),
        ("my_world:Nothing", "env must be package.module:Class, and my_world has no class 'Nothi"),
        ("my_world:number", "env must be package.module:Class, and my_world has no class 'number'"),
        ("my_world:Half", "my_world:Half must offer what worldmodel.worlds.World asks for, it lac"),
        ("my_world:Broken", r"my_world:Broken cannot be made by Broken\(image_size\): KeyError"),
        ("lake", "env must be one of two-room, .*or a class of your own as package.module:Class"),
    ],
)
def test_a_world_of_ones_own_that_is_none_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error says what is missing."""
    write_own(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=message):
        open_world(name)


def test_a_world_of_ones_own_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any class that offers the contract will do; sys.path is left as it was."""
    write_own(tmp_path, monkeypatch)
    before = list(sys.path)
    world = open_world("my_world:Pond", image_size=24)
    assert (world.name, world.image_size) == ("pond", 24)
    assert world.draw(np.full((1, 2), 100, np.float32)).shape == (1, 3, 24, 24)
    assert sys.path == before
    monkeypatch.syspath_prepend(tmp_path)  # a folder on the path keeps its place there
    before = list(sys.path)
    open_world("my_world:Pond")
    assert sys.path == before
    with pytest.raises(ValueError, match=r"cannot be made by Pond\(image_size, workers\)"):
        open_world("my_world:Pond", workers=2)


def test_a_world_that_lacks_a_package_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import of theirs that fails is theirs to tell."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needy_world.py").write_text("import no_such_package_at_all\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        open_world("needy_world:World")


def write_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of worlds in the present folder."""
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "my_world", raising=False)
    (folder / "my_world.py").write_text(
        "from worldmodel.worlds import TwoRoom\n"
        "number = 3\n"
        "class Pond(TwoRoom):\n    name = 'pond'\n"
        "class Half:\n    def __init__(self, image_size): self.name = 'half'\n"
        "class Broken:\n    def __init__(self, image_size): {}['wall']\n",
        encoding="utf-8",
    )
