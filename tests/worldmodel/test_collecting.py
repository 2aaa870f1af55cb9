"""`worldmodel data collect` and `render` in any world: they resume, redraw and say their origin."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel.apps import settings
from worldmodel.apps.cli import COMMANDS
from worldmodel.apps.data import command
from worldmodel.apps.data.collecting import drawn
from worldmodel.apps.folder import locked
from worldmodel.apps.parsing import parse
from worldmodel.data import open_hdf5
from worldmodel.data.hdf5 import hdf5_columns
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.worlds import TwoRoom, open_world

pytest.importorskip("h5py", reason="episodes are stored as HDF5: pip install 'sigreg[data]'")


STATES = ["action", "ep_len", "ep_offset", "state"]


def data(*words: object) -> int:
    """`worldmodel data …`, without the handler that turns errors into one line."""
    name, *rest = map(str, words)
    known = COMMANDS[f"data {name}"]
    told = parse(getattr(settings, known.settings), f"data {name}", rest)
    return int(getattr(command, known.function)(told))


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
        with pytest.raises(ValueError, match=rf"cannot be continued: {name} must be"):
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
    told = read_origin(copy)
    assert json.loads(str(told.pop("convert")))["size"] is None
    assert told == origin
    assert json.loads(str(origin["collect"])) == {
        "env": "two-room", "policy": "random", "length": 6, "size": 16, "states_only": False,
        "seed": 3, "bump": 0.0, "compression": None, "jpeg": None,
    }  # fmt: skip
    assert read_origin(small).keys() == {"convert"}


def test_states_are_drawn_again_at_another_size(tmp_path: Path) -> None:
    """`render` gives the frames that collecting at that size would have given."""
    small, large, again = (tmp_path / f"{name}.h5" for name in ("small", "large", "again"))
    collect(small, 3)
    collect(large, 3, "--size", 40)
    assert data("render", small, again, "--size", 40) == 0
    assert same(large, again)
    told, wanted = read_origin(again), read_origin(large)
    assert json.loads(str(told.pop("render"))) == {
        "size": 40,
        "env": None,
        "compression": None,
        "jpeg": None,
    }
    assert told.pop("collect") != wanted.pop("collect")
    assert told == wanted
    data("convert", small, tmp_path / "nameless.h5", "--size", 8)
    with pytest.raises(ValueError, match="must say which built-in world it comes from"):
        data("render", tmp_path / "nameless.h5", tmp_path / "b.h5", "--size", 40)


def test_states_alone_are_the_states_of_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--states-only` leaves pictures out and nothing else; they can be drawn, copied and told."""
    whole, states, drawn, copy = (tmp_path / f"{n}.h5" for n in ("whole", "states", "drawn", "c"))
    collect(whole, 5)
    collect(states, 3, "--states-only")
    collect(states, 5, "--states-only", "--resume")
    assert [column.name for column in hdf5_columns(states)] == STATES
    assert data("render", states, drawn, "--size", 16) == 0
    assert same(whole, drawn)
    assert data("convert", states, copy) == 0
    assert same(states, copy)
    assert read_origin(copy).items() > read_origin(states).items()
    sheet = tmp_path / "sheet.png"
    assert data("inspect", states, "--sheet", sheet) == 0
    assert "none, only states" in capsys.readouterr().out
    assert not sheet.exists()
    with pytest.raises(ValueError, match=r"--size resizes pictures, .*states\.h5 has none"):
        data("convert", states, tmp_path / "b.h5", "--size", 8)
    with pytest.raises(ValueError, match="every episode must have the columns"):
        collect(states, 6, "--resume")


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
    later = list(drawn(world, "pusher", 2, length=30, seed=0, first=1, pictures=False))
    assert np.array_equal(later[0][2], states[1])


@pytest.mark.parametrize(("kept", "jpeg"), [(0, None), (7, None), (7, 60)])
def test_the_file_of_a_killed_writer_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int, jpeg: int | None
) -> None:
    """After kill -9 `--resume` keeps the whole episodes, says so, and ends with the same rows.

    Pictures of JPEG too: those that are copied are not encoded a second time.
    """
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    packing = [] if jpeg is None else ["--jpeg", str(jpeg)]
    collect(whole, 40, *packing)
    code = (
        "import os, signal\n"
        "from worldmodel.apps.cli import main\n"
        "from worldmodel.data import HDF5Writer\n"
        "put = HDF5Writer._put\n"
        "def dies(self, *given):\n"
        f"    if len(self) == {kept}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    put(self, *given)\n"
        "HDF5Writer._put = dies\n"
        "main(['data', 'collect', '--episodes', '40', '--length', '6', '--size', '16', '--seed', "
        f"'3', '--policy', 'random', '--out', {str(killed)!r}, *{packing}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert killed.exists()
    collect(killed, 40, "--resume")
    said = "is from a killed writer: its 7 complete episodes are copied" in capsys.readouterr().out
    assert said == (kept == 7)
    assert same(whole, killed)
    assert {p.name for p in tmp_path.iterdir()} == {"whole.h5", "killed.h5"}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["random", "expert"])
def test_ranks_share_the_episodes_to_the_same_bits(tmp_path: Path, policy: str) -> None:
    """Three processes that Slurm numbers write, byte for byte, the file of one."""
    alone, shared = tmp_path / "alone.h5", tmp_path / "shared.h5"
    collect(alone, 70, "--policy", policy)
    words = ["data", "collect", "--episodes", "70", "--length", "6", "--size", "16", "--seed", "3",
             "--policy", policy, "--out", str(shared)]  # fmt: skip
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    own = {"SLURM_NTASKS": "3", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "worldmodel", *words],
            env=os.environ | own | {"SLURM_PROCID": str(rank)},
        )
        for rank in range(3)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0, 0]
    assert shared.read_bytes() == alone.read_bytes()


def test_outputs_are_never_an_input_a_link_or_somebody_elses(tmp_path: Path) -> None:
    """Each command refuses before its work, and leaves what lies there as it was."""
    walks, link, other = (tmp_path / name for name in ("walks.h5", "link.h5", "other.h5"))
    collect(walks, 2)
    before = walks.read_bytes()
    link.symlink_to(walks)
    other.write_text("mine", encoding="utf-8")
    for words, error in (
        (("collect", "--episodes", 3, "--length", 6, "--out", link, "--resume"), FileExistsError),
        (("convert", walks, walks), ValueError),
        (("convert", walks, link), ValueError),
        (("convert", walks, other), FileExistsError),
        (("render", walks, walks, "--size", 16), ValueError),
        (("render", walks, tmp_path / "no" / "a.h5", "--size", 16), FileNotFoundError),
        (("inspect", walks, "--sheet", walks), ValueError),
        (("inspect", walks, "--sheet", other), FileExistsError),
    ):
        with pytest.raises(error, match=r"must (not exist yet|not be a file that|be in a folder)"):
            data(*words)
    assert walks.read_bytes() == before
    assert other.read_text(encoding="utf-8") == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"walks.h5", "link.h5", "other.h5"}


def test_a_convert_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not whole does not get the name; the next try has it."""
    walks, out = tmp_path / "walks.h5", tmp_path / "copy.h5"
    collect(walks, 3)
    with monkeypatch.context() as patch:
        stop = KeyboardInterrupt()
        read = iter([command.collecting.one_episode, None])

        def one(*given: object) -> object:
            if (known := next(read)) is None:
                raise stop
            return known(*given)

        patch.setattr(command.collecting, "one_episode", one)
        with pytest.raises(KeyboardInterrupt):
            data("convert", walks, out)
    assert {p.name for p in tmp_path.iterdir()} == {"walks.h5"}
    assert data("convert", walks, out) == 0
    assert same(walks, out)


def test_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    """A second one is told who is at it."""
    out = tmp_path / "walks.h5"
    with (
        locked(tmp_path / "walks.h5.lock", str(out)),
        pytest.raises(BlockingIOError, match=r"walks\.h5 is being written by process \d+ on"),
    ):
        collect(out, 2)


OWN = """
from worldmodel.worlds import TwoRoom

class Lake(TwoRoom):
    name = "lake"
"""


def test_a_world_of_ones_own_is_collected_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--env module:Class` from the present folder; a file's word alone imports nothing."""
    (tmp_path / "my_lake.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    collect(tmp_path / "lake.h5", 2, "--env", "my_lake:Lake")
    assert read_origin(tmp_path / "lake.h5")["world"] == "my_lake:Lake"
    small = ("render", tmp_path / "lake.h5", tmp_path / "small.h5", "--size", 24)
    with pytest.raises(ValueError, match="which built-in world it comes from: --env my_lake:Lake"):
        data(*small)
    assert data(*small, "--env", "my_lake:Lake") == 0
