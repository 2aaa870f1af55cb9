"""Truths of the HDF5 layout: read as written, whatever stores it, kills it or spoils it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.data import BatchOrder, Episodes, HDF5Writer, Windows, loader, open_hdf5
from worldmodel.data.hdf5 import hdf5_columns
from worldmodel.data.hdf5_frames import ChunkedFrames, MappedFrames
from worldmodel.data.hdf5_writer import read_origin

h5py = pytest.importorskip("h5py", reason="sigreg[data] is not installed")

World = Callable[[list[int]], Episodes]
Walks = Callable[[list[int]], list[Any]]
LENGTHS = [21, 4, 30, 2]


def write(path: Path, walks: list[Any], **options: Any) -> None:
    """Walks through our own writer."""
    with HDF5Writer(path, **options) as writer:
        for walk in walks:
            writer.write(walk.frames, walk.actions, walk.states)


def publish(path: Path, walks: list[Any], *, spoil: Callable[[Any], None] | None = None) -> None:
    """Walks as the platform's writers lay them out: one row per chunk, float64 states, groups."""
    columns: dict[str, list[Any]] = {"pixels": [], "action": [], "proprio/a": [], "proprio/b": []}
    for walk in walks:
        columns["pixels"].append(walk.frames.transpose(0, 2, 3, 1))
        columns["action"].append(np.vstack([walk.actions, np.full((1, 2), np.nan, np.float32)]))
        columns["proprio/a"].append(walk.states[:, :2].astype(np.float64))
        columns["proprio/b"].append(walk.states[:, 2])
    lengths = [len(walk.frames) for walk in walks]
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            rows = np.concatenate(parts)
            file.create_dataset(name, data=rows, chunks=(1, *rows.shape[1:]))
        file["ep_len"] = np.asarray(lengths, np.int32)
        file["ep_offset"] = np.cumsum([0, *lengths[:-1]])
        if spoil is not None:
            spoil(file)


def assert_same(found: Episodes, wanted: Episodes) -> None:
    """Equal in every row, NaN where NaN belongs."""
    rows = torch.arange(int(wanted.lengths.sum()))
    assert torch.equal(found.lengths, wanted.lengths)
    assert torch.equal(found.frames[rows], wanted.frames[rows])
    assert found.states is not None
    assert wanted.states is not None
    assert torch.equal(found.states, wanted.states)
    torch.testing.assert_close(found.actions, wanted.actions, rtol=0, atol=0, equal_nan=True)


def test_what_is_written_is_read(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Episodes go through a file unchanged, the missing action of each as NaN."""
    write(tmp_path / "a.h5", counter_walks(LENGTHS))
    episodes = open_hdf5(tmp_path / "a.h5")
    assert_same(episodes, counter_world(LENGTHS))
    assert episodes.num_missing == len(LENGTHS)


def test_the_published_layout_is_read(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """One row per chunk, float64 columns and groups of columns are read as they are published."""
    publish(tmp_path / "a.h5", counter_walks(LENGTHS))
    episodes = open_hdf5(tmp_path / "a.h5")
    assert_same(episodes, counter_world(LENGTHS))
    only = open_hdf5(tmp_path / "a.h5", state="proprio/b").states
    assert only is not None
    assert only.shape == (sum(LENGTHS), 1)
    turned = open_hdf5(tmp_path / "a.h5", state=["proprio/b", "proprio/a"]).states
    assert turned is not None
    assert episodes.states is not None
    assert torch.equal(turned, episodes.states[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, MappedFrames),
        ({"chunks": (1, 16, 16, 3)}, MappedFrames),
        ({"chunks": (10, 16, 16, 3)}, MappedFrames),
        ({"chunks": (1, 8, 16, 3)}, ChunkedFrames),
        ({"chunks": (1, 16, 16, 3), "compression": "gzip"}, ChunkedFrames),
        ({"chunks": (10, 16, 16, 3), "compression": "lzf", "shuffle": True}, ChunkedFrames),
    ],
)
def test_storage_does_not_matter(
    tmp_path: Path, counter_walks: Walks, counter_world: World, options: Any, kind: type
) -> None:
    """Contiguous, chunked, split or compressed, a file gives the same frames in any order."""

    def store(file: Any) -> None:
        rows = file["pixels"][()]
        del file["pixels"]
        file.create_dataset("pixels", data=rows, **options)

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=store)
    episodes, wanted = open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS)
    assert isinstance(episodes.frames, kind)
    assert_same(episodes, wanted)
    rows = torch.tensor([[40, 3, 3], [0, 56, 25]])
    assert torch.equal(episodes.frames[rows], wanted.frames[rows])
    assert torch.equal(episodes.in_memory().frames[rows], wanted.frames[rows])


def test_rows_may_have_been_written_in_any_order(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Chunks that lie backwards in the file are read as those that lie in order."""

    def backwards(file: Any) -> None:
        rows = file["pixels"][()]
        del file["pixels"]
        pixels = file.create_dataset("pixels", rows.shape, np.uint8, chunks=(1, 16, 16, 3))
        for row in reversed(range(len(rows))):
            pixels[row] = rows[row]
            file.flush()

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=backwards)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS))


def test_state_goes_before_proprio(tmp_path: Path, counter_walks: Walks) -> None:
    """Where a file has both, `state` is what the episodes' states are."""

    def both(file: Any) -> None:
        file["state"] = np.arange(sum(LENGTHS), dtype=np.float64)[:, None]

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=both)
    states = open_hdf5(tmp_path / "a.h5").states
    assert states is not None
    assert states[:, 0].tolist() == list(range(sum(LENGTHS)))


def test_nothing_open_or_large_is_pickled(
    tmp_path: Path, counter_walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames pickle to less than they are, and another process opens a file of its own."""
    write(tmp_path / "a.h5", counter_walks([300]))
    write(tmp_path / "b.h5", counter_walks([300]), compression="gzip")
    mapped, chunked = (open_hdf5(tmp_path / name).frames for name in ("a.h5", "b.h5"))
    for frames in (mapped, chunked):
        frames[torch.arange(300)]
        assert len(pickle.dumps(frames)) < 300 * 16 * 16
    assert isinstance(chunked, ChunkedFrames)
    mine = chunked._open()
    assert chunked._open() is mine
    monkeypatch.setattr(os, "getpid", lambda: -7)
    assert chunked._open() is not mine


def test_channels_may_come_first(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Frames stored [C, H, W] read as those stored [H, W, C]."""

    def turn(file: Any) -> None:
        rows = file["pixels"][()].transpose(0, 3, 1, 2)
        del file["pixels"]
        file["pixels"] = rows

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=turn)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS))


def test_episodes_may_lie_anywhere(
    tmp_path: Path, counter_walks: Walks, counter_world: World
) -> None:
    """Gaps between episodes and another order in the file change nothing."""

    def scatter(file: Any) -> None:
        rows = np.concatenate([np.full(5, -1), np.arange(25, 55), np.arange(25)])
        for name in ("pixels", "action", "proprio/a", "proprio/b"):
            values = file[name][()][rows]
            del file[name]
            packed = "gzip" if name == "action" else None
            chunks = (1, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, compression=packed)
        del file["ep_offset"], file["ep_len"]
        file["ep_offset"], file["ep_len"] = [35, 56, 5], [21, 4, 30]

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=scatter)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS[:3]))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_workers_read_what_this_process_reads(
    tmp_path: Path, counter_walks: Walks, compression: str | None
) -> None:
    """Two worker processes fetch the same batches, and nothing of an open file is pickled."""
    write(tmp_path / "a.h5", counter_walks(LENGTHS), compression=compression)
    windows = Windows(open_hdf5(tmp_path / "a.h5"))
    order = BatchOrder(len(windows), 4, seed=0, stop=5)
    here = [windows.batch(index) for index in order]
    there = list(loader(windows, order, workers=2))
    assert len(there) == 5
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.frames, theirs.frames)
        assert torch.equal(mine.actions, theirs.actions)
    copy = pickle.loads(pickle.dumps(windows)).batch(torch.tensor([2]))
    assert torch.equal(copy.frames, windows.batch(torch.tensor([2])).frames)


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
        with HDF5Writer(path, compression="gzip" if trial % 4 == 3 else None) as file:
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
    assert trial == 7


FULL = """
import resource, sys
import numpy as np
from worldmodel.data import HDF5Writer

# Python ignores the signal that comes with this limit: writing beyond it fails as on a full disk.
for name, compression, room in (("plain", None, 700_000), ("gzip", "gzip", 700_000),
                                ("nothing", None, 50_000)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    done = 0
    try:
        with HDF5Writer(f"{sys.argv[1]}/{name}.h5", compression=compression) as file:
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
    for line, name in zip(run.stdout.splitlines(), ("plain", "gzip", "nothing"), strict=True):
        told, done, message = line.split(maxsplit=2)
        assert told == name
        assert re.search(rf"cannot write .*{name}\.h5(\.partial)?: File too large", message)
        if name == "nothing":
            continue
        path, last = tmp_path / f"{name}.h5", int(done) - 1
        episodes = open_hdf5(path)
        assert len(episodes) == int(done) > 3
        wanted = np.random.default_rng(last).integers(0, 256, (12, 3, 32, 32), np.uint8)
        assert np.array_equal(episodes.frames[episodes.rows(torch.tensor([last]))], wanted)
        del episodes  # which may hold the file open
        with HDF5Writer(path, append=True) as file:  # the file was closed in order
            file.write(wanted, np.zeros((11, 2)))
        assert len(open_hdf5(path)) == int(done) + 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gzip.h5", "plain.h5"]


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


def test_columns_are_listed_as_stored(tmp_path: Path, counter_walks: Walks) -> None:
    """Every column appears with its shape, type, chunks and compression."""
    write(tmp_path / "a.h5", counter_walks([5]), compression="gzip")
    found = {column.name: column for column in hdf5_columns(tmp_path / "a.h5")}
    assert set(found) == {"pixels", "action", "state", "ep_len", "ep_offset"}
    assert found["pixels"].shape == (5, 16, 16, 3)
    assert found["pixels"].dtype == "uint8"
    assert found["pixels"].storage == "chunks [1, 16, 16, 3], deflate"


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


def replaced(name: str, values: Any) -> Callable[[Any], None]:
    """Put other values in a column."""

    def spoil(file: Any) -> None:
        del file[name]
        file[name] = values

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda file: file.__delitem__("pixels"),
            "a column 'pixels', got action, ep_len",
        ),
        (lambda file: file.__delitem__("ep_offset"), "must have a column 'ep_offset'"),
        (replaced("ep_len", np.zeros(0, np.int32)), "at least one whole episode, got none"),
        (
            replaced("ep_len", [21, 4, 30, 3]),
            "the 57 rows of 'pixels', got 55 . 3 in ep.* 3",
        ),
        (replaced("ep_offset", [0, -1, 25, 55]), "stay within the 57 rows"),
        (replaced("pixels", np.zeros((57, 16, 16, 3))), r"uint8 \[R, H, W, C\], got float64"),
        (replaced("pixels", np.zeros((57, 9, 16, 16), np.uint8)), "1, 3 or 4 channels"),
        (replaced("action", np.zeros((40, 2))), "within the 40 rows of 'action'"),
        (replaced("action", np.full((57, 2), np.nan)), "finite inside an episode, got .* in row 0"),
        (replaced("proprio/a", np.zeros((9, 2))), "one row per frame, got float64"),
    ],
)
def test_a_spoiled_file_is_named(
    tmp_path: Path, counter_walks: Walks, spoil: Callable[[Any], None], message: str
) -> None:
    """A missing column, a wrong shape or an impossible index ends in one clear error."""
    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=spoil)
    with pytest.raises(ValueError, match=message):
        open_hdf5(tmp_path / "a.h5")


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path, counter_walks: Walks) -> None:
    """No file, another kind of file, a file cut short and an unknown state are told apart."""
    path = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.h5"):
        open_hdf5(path)
    path.write_bytes(b"not a table")
    with pytest.raises(ValueError, match=r"must be an HDF5 file, got .*a\.h5, which is not one"):
        open_hdf5(path)
    path.unlink()
    write(path, counter_walks(LENGTHS))
    with pytest.raises(ValueError, match=r"state must name columns.*got 'speed' among action"):
        open_hdf5(path, state="speed")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises((OSError, ValueError), match=r"truncated|cut short"):
        open_hdf5(path)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_damaged_file_is_named(
    tmp_path: Path, counter_walks: Walks, compression: str | None
) -> None:
    """Wherever a bit turns, the file is read or an error with its name says why not."""
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    write(good, counter_walks([6, 5]), compression=compression)
    content = good.read_bytes()
    rng, errors = np.random.default_rng(0), []
    for trial in range(80):
        spoiled = bytearray(content)
        spoiled[rng.integers(len(content) if trial % 3 == 0 else 4096)] ^= 1 << rng.integers(8)
        bad.write_bytes(spoiled)
        try:
            episodes = open_hdf5(bad)
            episodes.frames[torch.arange(len(episodes.frames))]
        except (ValueError, OSError) as error:
            errors.append(str(error))
    assert len(errors) > 20
    # An action that became NaN is told with its row.
    assert [e for e in errors if str(bad) not in e and "inside an episode" not in e] == []


def test_a_missing_filter_is_named(
    tmp_path: Path, counter_walks: Walks, counter_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hdf5plugin the error names it and the filter; with it the frames are read."""
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="optional compression filters")

    def squeeze(file: Any) -> None:
        rows = file["pixels"][()]
        del file["pixels"]
        file.create_dataset("pixels", data=rows, chunks=(4, 16, 16, 3), **hdf5plugin.Blosc())

    publish(tmp_path / "a.h5", counter_walks(LENGTHS), spoil=squeeze)
    assert_same(open_hdf5(tmp_path / "a.h5"), counter_world(LENGTHS))
    monkeypatch.setattr("worldmodel.data.hdf5_frames.filter_available", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ImportError, match=r"'blosc' \(HDF5 filter 32001\).*pip install hdf5plugin"):
        open_hdf5(tmp_path / "a.h5")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without h5py says which extra brings it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install 'sigreg\[data\]'"):
        open_hdf5(tmp_path / "a.h5")


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
