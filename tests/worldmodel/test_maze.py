"""The maze: one way between any two rooms, walls that stop the disc, layouts that are numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodel.worlds import Maze, open_world
from worldmodel.worlds.behaviours import make_behaviour
from worldmodel.worlds.coverage import coverage
from worldmodel.worlds.maze import layout_of

Floats = NDArray[np.float32]
CELL = 224 / 3


def is_free(state: Floats) -> bool:
    """Whether a disc there touches no wall, from the layout alone."""
    x, y, number = state.tolist()
    layout = layout_of(int(number))
    free = 11 - 1e-3 <= min(x, y) and max(x, y) <= 213 + 1e-3
    for along, beside, doors in ((x, y, layout.right), (y, x, layout.down.T)):
        wall = min(max(round(along / CELL), 1), 2)
        if abs(along - wall * CELL) < 12 - 1e-3:
            lane = int(beside // CELL)
            in_door = abs(beside - (lane + 0.5) * CELL) <= 9 + 1e-3
            free = free and bool(doors[lane, wall - 1]) and in_door
    return free


@pytest.mark.parametrize("number", [0, 1, 2, 3, 2**20 - 1])
def test_a_layout_is_a_tree_of_nine_rooms(number: int) -> None:
    """Eight doors, every room reached, and each step of the way is one door nearer."""
    layout = layout_of(number)
    assert int(layout.right.sum() + layout.down.sum()) == 8
    assert np.array_equal(layout.rooms, layout.rooms.T)
    for a in range(9):
        for b in range(9):
            following = layout.towards[a, b]
            assert layout.rooms[a, b] == (0 if a == b else layout.rooms[following, b] + 1)


def test_layouts_differ_and_stay() -> None:
    """A number is a layout, the same in every process; most of a hundred differ."""
    doors = {layout_of(n).right.tobytes() + layout_of(n).down.tobytes() for n in range(100)}
    assert len(doors) > 60
    assert layout_of(7).right.tolist() == [[True, True], [False, False], [True, False]]


def test_no_action_leads_through_a_wall() -> None:
    """After 300 random steps every disc of 200 is clear of the walls, and some changed rooms."""
    world, rng = Maze(32), np.random.default_rng(0)
    states = world.sample_states(rng, 200)
    rooms = world.room(states)
    assert all(is_free(state) for state in states)
    for _ in range(300):
        before = world.room(states)
        states = world.step(states, rng.uniform(-1, 1, (200, 2)).astype(np.float32))
        changed = np.flatnonzero(world.room(states) != before)
        for n in changed:
            # From one room to the next there is a door.
            assert layout_of(int(states[n, 2])).rooms[before[n], world.room(states)[n]] == 1
    assert all(is_free(state) for state in states)
    assert (world.room(states) != rooms).any()


def test_the_expert_finds_every_goal() -> None:
    """300 of 300 goals in any room within 120 steps, and far ones take more than a plan of 25."""
    world, rng = Maze(32), np.random.default_rng(1)
    states = world.sample_states(rng, 300)
    goals = world.new_targets(rng, states, 1.0)
    doors, act = world.doors_between(states, goals), world.expert(goals)
    steps = np.zeros(300, int)
    for t in range(120):
        states = world.step(states, act(states))
        steps[(steps == 0) & world.success(states, goals)] = t + 1
    assert (steps > 0).all()
    assert steps[doors >= 4].min() > 25
    assert (doors >= 4).mean() > 0.2


def test_a_picture_shows_its_own_maze() -> None:
    """Two layouts differ in their walls alone; the disc is where the state says."""
    world = Maze(64)
    here = np.array([[37, 37, 0], [37, 37, 5], [40, 37, 0]], np.float32)
    frames = world.draw(here).astype(int)
    assert (frames[0] != frames[1]).any()
    assert np.array_equal(frames[0, :, 6:16, 6:16], frames[1, :, 6:16, 6:16])
    red = (frames[0, 0] > 200) & (frames[0, 1] < 100)
    rows, columns = np.nonzero(red)
    assert np.allclose([(columns.mean() + 0.5) * 3.5, (rows.mean() + 0.5) * 3.5], 37, atol=1)


def test_success_needs_the_same_maze() -> None:
    """Two discs at one place in two mazes are infinitely far apart."""
    world = Maze(32)
    a, b = np.array([37, 37, 3], np.float32), np.array([50, 37, 3], np.float32)
    assert world.success(a, b)
    b[2] = 4
    assert not world.success(a, b)
    assert world.distance(a, b) == np.inf


def test_the_walker_sees_every_room() -> None:
    """100 noisy walkers of 200 steps visit all nine rooms of one maze."""
    world, rng = open_world("maze-7", image_size=32), np.random.default_rng(2)
    states = world.sample_states(rng, 100)
    assert set(states[:, 2]) == {7}
    walker = make_behaviour("expert", world, 100, rng)
    seen = set()
    for _ in range(200):
        states = world.start(states).step(walker(states))
        seen |= set(world.room(states).tolist())  # type: ignore[attr-defined]
    assert seen == set(range(9))


@pytest.mark.parametrize("name", ["maze-", "maze-x", "maze--1", "maze-99999999", "mazes"])
def test_other_names_are_refused(name: str) -> None:
    """Only numbers of layouts follow the dash."""
    with pytest.raises(ValueError, match="env must be one of"):
        open_world(name)


def test_states_of_no_maze_are_refused() -> None:
    """A layout must be a whole number that float32 keeps."""
    world = Maze(32)
    for layout in (0.5, -1, 2**20):
        with pytest.raises(ValueError, match="layouts"):
            world.start(np.array([[37, 37, layout]], np.float32))
    with pytest.raises(
        ValueError, match=r"layout must be an integer in \[0, 1048575\], got 1048576"
    ):
        Maze(32, layout=2**20)


def test_a_maze_of_one_layout_is_counted_like_any_other() -> None:
    """What walks cover is told for maze-7 too: cells of the square, whatever the number."""
    world, rng = open_world("maze-7", image_size=32), np.random.default_rng(3)
    states = world.sample_states(rng, 40)
    found = coverage(world, [states[:20], states[20:]], window=5)
    assert [grid.name for grid in found.grids] == ["position x, y"]
    assert 20 < found.grids[0].cells <= 40
