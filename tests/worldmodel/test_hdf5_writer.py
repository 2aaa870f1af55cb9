"""Truths of the HDF5 writer: whole episodes, whatever kills it, fills the disk or spoils one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.data import Episodes, HDF5Writer, open_hdf5
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.data.jpeg import JPEGFrames, encoded

h5py = pytest.importorskip("h5py", reason="sigreg[data] is not installed")

sys.path.append(str(Path(__file__).parent))
from hdf5_files import assert_same, publish, write  # noqa: E402

World = Callable[[list[int]], Episodes]
Walks = Callable[[list[int]], list[Any]]
LENGTHS = [21, 4, 30, 2]


KILLED = """
import os, random, sys, time
import numpy as np
from worldmodel.data import HDF5Writer

# Children write; each is killed at another moment, some in the middle of an episode.
for trial in range(8):
    path = f"{sys.argv[1]}/{trial}.h5"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        e = 0
        packing = [{}, {}, {"jpeg": 90}, {"compression": "gzip"}][trial % 4]
        with HDF5Writer(path, **packing) as file:
            while True:
                L = 2 + e % 17
                frames = np.full((L, 3, 32, 32), e % 256, np.uint8)
                file.write(frames, np.full((L - 1, 2), e), np.full((L, 1), e))
                e += 1
                os.write(writer, b"x")
    os.close(writer)
    os.read(reader, 1)
    time.sleep(random.Random(trial).random() * 0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    done = 1
    while said := os.read(reader, 65536):
        done += len(said)
    os.close(reader)
    print(done)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a forked writer")
def test_a_killed_writer_leaves_whole_episodes(tmp_path: Path) -> None:
    """After kill -9 the file holds every finished episode, whole, and at most one more."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    for trial, done in enumerate(map(int, run.stdout.split())):
        path = tmp_path / f"{trial}.h5"
        episodes = open_hdf5(path)
        assert len(episodes) in (done, done + 1)
        number = torch.arange(len(episodes))
        assert torch.equal(episodes.lengths, 2 + number % 17)
        shown = torch.repeat_interleave(number, episodes.lengths)
        frames = episodes.frames[torch.arange(len(shown))]
        assert (frames == (shown % 256)[:, None, None, None]).all()
        assert episodes.states is not None
        assert torch.equal(episodes.states[:, 0], shown.float())
        assert episodes.num_missing == len(episodes)
        # The published loader opens files this way.
        with h5py.File(path, "r", swmr=True) as file:
            assert len(file["ep_len"]) >= len(episodes)
            assert ("pixels_jpeg" in file) == (trial % 4 == 2)
    assert trial == 7


FULL = """
import resource, sys
import numpy as np
from worldmodel.data import HDF5Writer

# Python ignores the signal that comes with this limit: writing beyond it fails as on a full disk.
for name, packing, room in (("plain", {}, 700_000), ("gzip", {"compression": "gzip"}, 700_000),
                            ("jpeg", {"jpeg": 100}, 700_000), ("nothing", {}, 50_000)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    done = 0
    try:
        with HDF5Writer(f"{sys.argv[1]}/{name}.h5", **packing) as file:
            while True:
                frames = np.random.default_rng(done).integers(0, 256, (12, 3, 32, 32), np.uint8)
                file.write(frames, np.full((11, 2), done))
                done += 1
    except OSError as error:
        print(f"{name} {done} {error}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only a disk can be full")
def test_a_full_disk_leaves_whole_episodes(tmp_path: Path) -> None:
    """The error names the file, the process ends well, and every finished episode can be read."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert run.stderr == ""
    for line, name in zip(
        run.stdout.splitlines(), ("plain", "gzip", "jpeg", "nothing"), strict=True
    ):
        told, done, message = line.split(maxsplit=2)
        assert told == name
        assert re.search(rf"cannot write .*{name}\.h5(\.partial)?: File too large", message)
        if name == "nothing":
            continue
        path, last = tmp_path / f"{name}.h5", int(done) - 1
        episodes = open_hdf5(path)
        assert len(episodes) == int(done) > 3
        wanted = np.random.default_rng(last).integers(0, 256, (12, 3, 32, 32), np.uint8)
        rows = episodes.rows(torch.tensor([last]))
        if isinstance(episodes.frames, JPEGFrames):
            exact = encoded(wanted.transpose(0, 2, 3, 1), 100)
            assert episodes.frames.pictures(rows.numpy()) == exact
        else:
            assert np.array_equal(episodes.frames[rows], wanted)
        assert isinstance(episodes.frames, JPEGFrames) == (name == "jpeg")
        del episodes  # which may hold the file open
        with HDF5Writer(path, append=True) as file:  # the file was closed in order
            file.write(wanted, np.zeros((11, 2)))
        assert len(open_hdf5(path)) == int(done) + 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gzip.h5", "jpeg.h5", "plain.h5"]


def test_others_read_while_one_writes(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """An open writer's file ends at the last episode written so far."""
    walks = counter_walks(LENGTHS)
    with HDF5Writer(tmp_path / "a.h5") as writer:
        for done, walk in enumerate(walks, start=1):
            writer.write(walk.frames, walk.actions, walk.states)
            assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS[:done]))
            assert len(writer) == done


@pytest.mark.parametrize("writes", range(5))
def test_an_episode_counts_when_all_of_it_is_there(
    tmp_path: Path,
    counter_walks: Walks,
    counter_world: World,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    """Stopped after any of its five writes but the last, the second episode is not there."""
    first, second = counter_walks(LENGTHS[:2])
    put = HDF5Writer._put
    left = [5 + writes]

    def stopped(self: HDF5Writer, name: str, low: int, high: int, values: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        put(self, name, low, high, values)

    monkeypatch.setattr(HDF5Writer, "_put", stopped)
    with HDF5Writer(tmp_path / "a.h5") as file:
        file.write(first.frames, first.actions, first.states)
        with pytest.raises(KeyboardInterrupt):
            file.write(second.frames, second.actions, second.states)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS[:1]))


def test_asking_for_room_leaves_no_room_behind(tmp_path: Path, counter_walks: Walks) -> None:
    """A file takes what its rows, one chunk of each small column and headers take, no more."""
    write(tmp_path / "a.h5", counter_walks(LENGTHS))
    assert (tmp_path / "a.h5").stat().st_size < sum(LENGTHS) * 16 * 16 * 3 + 1024 * 32 + 20_000


def test_a_file_cut_short_beside_its_writer_is_named(tmp_path: Path, counter_walks: Walks) -> None:
    """A copy that lacks its end is refused even with the mark that lets HDF5 open it."""
    with HDF5Writer(tmp_path / "a.h5") as file:
        for walk in counter_walks([40, 40]):
            file.write(walk.frames, walk.actions, walk.states)
        content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(content[:-20_000])
    with pytest.raises((ValueError, OSError), match=r"b\.h5.*cut short|b\.h5.*truncated"):
        open_hdf5(tmp_path / "b.h5")


def test_rows_of_an_unfinished_episode_do_not_count(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Rows without an index entry, or with room for one that holds 0, are not an episode."""

    def more(file: Any) -> None:
        for name, room in (("ep_len", [0]), ("ep_offset", [57, 99])):
            values = np.concatenate([file[name][()], room])
            del file[name]
            file[name] = values

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=more)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS))


def test_a_closed_file_can_be_appended_to(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Two writers one after the other leave what one would have."""
    walks = counter_walks(LENGTHS)
    write(tmp_path / "a.h5", walks[:2])
    write(tmp_path / "a.h5", walks[2:], append=True)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS))
    with h5py.File(tmp_path / "a.h5", "r") as file:  # no mark of a writer is left
        assert set(file) == {"pixels", "action", "state", "ep_len", "ep_offset"}


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("put", range(5))
def test_an_interrupted_episode_leaves_no_hole(
    tmp_path: Path, counter_walks: Walks, monkeypatch: pytest.MonkeyPatch, put: int, resized: bool
) -> None:
    """After Ctrl-C between any two writes, appending gives the rows of an uninterrupted run."""
    walks, at, real = counter_walks(LENGTHS), put + 5, HDF5Writer._put
    write(tmp_path / "whole.h5", walks)

    def interrupted(self: HDF5Writer, name: str, first: int, last: int, values: Any) -> None:
        calls.append(name)
        if len(calls) <= at:
            return real(self, name, first, last, values)
        if resized:
            self._file[name].resize(last, 0)
        raise KeyboardInterrupt

    calls: list[str] = []
    monkeypatch.setattr(HDF5Writer, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5", walks)
    monkeypatch.undo()
    write(tmp_path / "a.h5", walks[1:], append=True)
    with h5py.File(tmp_path / "a.h5") as mine, h5py.File(tmp_path / "whole.h5") as whole:
        for name in whole:
            assert np.array_equal(mine[name][()], whole[name][()], equal_nan=name == "action")


def test_a_writer_never_replaces_a_file(tmp_path: Path, counter_walks: Walks) -> None:
    """An existing file, a missing folder or file and an unknown compression are refused at once."""
    write(tmp_path / "a.h5", counter_walks([5]))
    with pytest.raises(FileExistsError, match=r"must not exist yet, got .*a\.h5"):
        HDF5Writer(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write into"):
        HDF5Writer(tmp_path / "nowhere" / "a.h5")
    with pytest.raises(FileNotFoundError, match=r"no file .*b\.h5 to append to"):
        HDF5Writer(tmp_path / "b.h5", append=True)
    with pytest.raises(ValueError, match=r"compression must be .* got 'zip'"):
        HDF5Writer(tmp_path / "b.h5", compression="zip")
    with HDF5Writer(tmp_path / "b.h5"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write into")
def test_an_unwritable_path_is_named(counter_walks: Walks) -> None:
    """A folder that takes no files ends in an error with the path."""
    with pytest.raises(OSError, match=r"cannot write .*/proc/"):
        write(Path("/proc/a.h5"), counter_walks([5]))


def test_a_spoiled_episode_is_refused_and_the_file_stays_whole(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Mixed sizes and shapes are named; the episodes before and after them are kept."""
    first, second = counter_walks(LENGTHS[:2])
    small = np.zeros((5, 3, 8, 8), np.uint8)
    bad: list[tuple[Any, Any, Any, str]] = [
        (small, np.zeros((4, 2)), np.zeros((5, 3)), r"pixels \[L, 16, 16, 3\], as the first has"),
        (first.frames, first.actions[:, :1], first.states, r"action \[L, 2\].* got \[21, 1\]"),
        (first.frames, first.actions[:-1], first.states, r"actions must be \[21, A\] or \[20, A\]"),
        (first.frames, first.actions, first.states[:-1], r"states must be \[21, S\] beside 21"),
        (first.frames, first.actions, None, "must have the columns .*'state'"),
        (first.frames / 255, first.actions, first.states, "frames must be uint8 .* got float64"),
        (first.frames[:1], first.actions[:0], first.states[:1], r"uint8 \[L >= 2, C, H, W\]"),
    ]
    with HDF5Writer(tmp_path / "a.h5") as writer:
        writer.write(first.frames, first.actions, first.states)
        for frames, actions, states, message in bad:
            with pytest.raises(ValueError, match=message):
                writer.write(frames, actions, states)
        writer.write(second.frames, second.actions, second.states)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS[:2]))


def test_the_origin_of_a_foreign_file_is_its_words_and_whole_numbers(tmp_path: Path) -> None:
    """Attributes of other kinds are nobody's origin, and what is no HDF5 file is named."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update({"world": "attic", "seed": 7, "scale": 0.5, "shape": [2, 3]})
    assert read_origin(tmp_path / "a.h5") == {"world": "attic", "seed": 7}
    (tmp_path / "b.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"b\.h5"):
        read_origin(tmp_path / "b.h5")
    with pytest.raises(FileNotFoundError, match=r"c\.h5"):
        read_origin(tmp_path / "c.h5")
