"""Truths of the HDF5 layout: read as written, whatever stores it or spoils it."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.data import BatchOrder, Episodes, Windows, loader, open_hdf5
from worldmodel.data.hdf5 import ChunkedFrames, MappedFrames, hdf5_columns

h5py = pytest.importorskip("h5py", reason="sigreg[data] is not installed")

sys.path.append(str(Path(__file__).parent))
from hdf5_files import assert_same, publish, write  # noqa: E402

World = Callable[[list[int]], Episodes]
Walks = Callable[[list[int]], list[Any]]
LENGTHS = [21, 4, 30, 2]


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
    mine = chunked._own(chunked._open)
    assert chunked._own(chunked._open) is mine
    monkeypatch.setattr(os, "getpid", lambda: -7)
    assert chunked._own(chunked._open) is not mine


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


def test_columns_are_listed_as_stored(tmp_path: Path, counter_walks: Walks) -> None:
    """Every column appears with its shape, type, chunks and compression."""
    write(tmp_path / "a.h5", counter_walks([5]), compression="gzip")
    found = {column.name: column for column in hdf5_columns(tmp_path / "a.h5")}
    assert set(found) == {"pixels", "action", "state", "ep_len", "ep_offset"}
    assert found["pixels"].shape == (5, 16, 16, 3)
    assert found["pixels"].dtype == "uint8"
    assert found["pixels"].storage == "chunks [1, 16, 16, 3], deflate"


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
        (replaced("ep_offset", [0, 20, 25, 53]), "episodes 0 and 1 that overlap in .*a.h5"),
        (replaced("ep_len", [20.5, 4, 30, 2]), "'ep_len' must hold whole numbers, got float64"),
        (replaced("ep_offset", [0, np.nan, 25, 55]), "'ep_offset' must hold whole numbers"),
        (replaced("pixels", np.zeros((57, 16, 16, 3))), r"uint8 \[R, H, W, C\], got float64"),
        (replaced("pixels", np.zeros((57, 65, 66, 67), np.uint8)), "must have few channels"),
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
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ImportError, match=r"'blosc' \(HDF5 filter 32001\).*pip install hdf5plugin"):
        open_hdf5(tmp_path / "a.h5")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without h5py says which extra brings it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'needs h5py: pip install "sigreg\[worldmodel\]"'):
        open_hdf5(tmp_path / "a.h5")
