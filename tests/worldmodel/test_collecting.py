"""`worldmodel data collect` and `render` in any world: they resume, redraw and say their origin."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel.apps.cli import _parser
from worldmodel.apps.data.collecting import episodes
from worldmodel.data import open_hdf5
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.worlds import TwoRoom, open_world

pytest.importorskip("h5py", reason="episodes are stored as HDF5: pip install 'sigreg[data]'")


def data(*words: object) -> int:
    """`worldmodel data …`, without the handler that turns errors into one line."""
    arguments = _parser().parse_args(["data", *map(str, words)])
    return int(arguments.run(arguments))


def collect(out: Path, num: int, *words: object) -> None:
    """Random walks in Two-Room of 6 actions, drawn at 16 pixels."""
    policy = () if "--policy" in words else ("--policy", "random")
    numbers = ("--episodes", num, "--length", 6, "--size", 16, "--seed", 3)
    assert data("collect", *numbers, *policy, *words, "--out", out) == 0


def same(one: Path, two: Path) -> bool:
    """Whether two files hold the same rows."""
    a, b = open_hdf5(one), open_hdf5(two)
    rows = torch.arange(len(a.actions))
    return (
        a.lengths.tolist() == b.lengths.tolist()
        and torch.equal(a.frames[rows], b.frames[rows])
        and torch.equal(a.actions.nan_to_num(), b.actions.nan_to_num())
        and a.states is not None
        and b.states is not None
        and torch.equal(a.states, b.states)
    )


@pytest.mark.parametrize("policy", ["random", "expert"])
def test_a_resumed_file_is_the_file_of_one_go(tmp_path: Path, policy: str) -> None:
    """Stopped and resumed, across a block of 32 episodes, the rows are those of a single run."""
    whole, parts = tmp_path / "whole.h5", tmp_path / "parts.h5"
    collect(whole, 40, "--policy", policy)
    world = TwoRoom(16)
    stopped = KeyboardInterrupt()

    class Stop(TwoRoom):
        drawn = 0

        def draw(self, states: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            Stop.drawn += 1
            if Stop.drawn > 7:
                raise stopped
            return world.draw(states)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.apps.data.command.open_world", lambda *_, **__: Stop(16))
        with pytest.raises(KeyboardInterrupt):
            collect(parts, 40, "--policy", policy)
    assert len(open_hdf5(parts)) == 7
    collect(parts, 40, "--policy", policy, "--resume")
    assert same(whole, parts)


def test_a_file_can_grow(tmp_path: Path) -> None:
    """Where episodes do not share their random numbers, 3 and then 8 are the same as 8."""
    whole, parts = tmp_path / "whole.h5", tmp_path / "parts.h5"
    collect(whole, 8)
    collect(parts, 3)
    collect(parts, 8, "--resume")
    assert same(whole, parts)
    with pytest.raises(ValueError, match=r"--episodes must be at least the 8 in .*parts\.h5"):
        collect(parts, 5, "--resume")


def test_other_episodes_are_never_appended(tmp_path: Path) -> None:
    """Another seed, size, policy or number of the expert's walks is refused by its name."""
    out = tmp_path / "walks.h5"
    collect(out, 3, "--policy", "expert")
    for words, name in (
        (("--policy", "expert", "--seed", 4), "seed"),
        (("--policy", "expert", "--size", 32), "image_size"),
        (("--policy", "random"), "policy"),
    ):
        with pytest.raises(ValueError, match=rf"cannot be gone on with: {name} must be"):
            collect(out, 3, *words, "--resume")
    with pytest.raises(ValueError, match="episodes must be 3 as in the file, got 4"):
        collect(out, 4, "--policy", "expert", "--resume")


def test_a_file_says_where_it_comes_from_and_copies_say_so_too(tmp_path: Path) -> None:
    """World, policy, length, seed, size and versions; a resized copy claims none of it."""
    out, copy, small = (tmp_path / f"{name}.h5" for name in ("walks", "copy", "small"))
    collect(out, 2)
    origin = read_origin(out)
    wanted = {"world": "two-room", "policy": "random", "length": 6, "seed": 3, "image_size": 16}
    assert {name: origin[name] for name in wanted} == wanted
    assert "numpy" in str(origin["versions"])
    data("convert", out, copy)
    data("convert", out, small, "--size", 8)
    assert read_origin(copy) == origin
    assert read_origin(small) == {}


def test_states_are_drawn_again_at_another_size(tmp_path: Path) -> None:
    """`render` gives the frames that collecting at that size would have given."""
    small, large, again = (tmp_path / f"{name}.h5" for name in ("small", "large", "again"))
    collect(small, 3)
    collect(large, 3, "--size", 40)
    assert data("render", small, again, "--size", 40) == 0
    assert same(large, again)
    assert read_origin(again) == read_origin(large)
    data("convert", small, tmp_path / "nameless.h5", "--size", 8)
    with pytest.raises(ValueError, match="must say which world it comes from"):
        data("render", tmp_path / "nameless.h5", tmp_path / "b.h5", "--size", 40)


def test_coverage_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells visited, what moves in 25 steps, and how many pairs are solved before they begin."""
    collect(tmp_path / "walks.h5", 4, "--length", 30)
    said = capsys.readouterr().out
    assert re.search(r"position x, y +\d+ of 256 cells visited; [\d.]+ apart after 25 steps", said)
    assert re.search(r"solved already +[\d.]+ % of pairs 25 steps apart", said)


def test_an_unknown_policy_and_needless_workers_are_refused(tmp_path: Path) -> None:
    """Each world lists its own policies; Two-Room has no use for processes."""
    with pytest.raises(ValueError, match="--policy must be one of expert, random for two-room"):
        collect(tmp_path / "a.h5", 1, "--policy", "pusher")
    with pytest.raises(ValueError, match="without workers"):
        collect(tmp_path / "a.h5", 1, "--workers", 2)
    assert not (tmp_path / "a.h5").exists()


def test_push_t_is_collected_by_its_pusher(tmp_path: Path) -> None:
    """The first policy of a world is its default, and recorded actions replay to the states."""
    pytest.importorskip("gym_pusht", reason="push-t needs gym_pusht")
    out = tmp_path / "pushes.h5"
    numbers = ("--episodes", 2, "--length", 30, "--size", 32)
    assert data("collect", "--env", "push-t", *numbers, "--out", out) == 0
    assert read_origin(out)["policy"] == "pusher"
    stored = open_hdf5(out)
    assert stored.states is not None
    states = stored.states.unflatten(0, (2, 31)).numpy()
    actions = stored.actions.unflatten(0, (2, 31)).numpy()
    world = open_world("push-t", image_size=32)
    session = world.start(states[:, 0])
    for t in range(30):
        assert np.array_equal(session.step(actions[:, t]), states[:, t + 1])
    assert np.array_equal(world.draw(states[:1, 12]), stored.frames[torch.tensor([12])].numpy())
    later = list(episodes(world, "pusher", 2, length=30, seed=0, first=1))
    assert np.array_equal(later[0][0], states[1])
