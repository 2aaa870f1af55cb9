"""Pictures stored as JPEG: what is read is what Pillow decodes, and what is damaged is named."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from worldmodel.apps.cli import main
from worldmodel.apps.runs import open_run
from worldmodel.data import BatchOrder, HDF5Writer, Windows, loader, open_hdf5
from worldmodel.data.jpeg import JPEGFrames, encoded
from worldmodel.worlds import TwoRoom, collect

h5py = pytest.importorskip("h5py", reason="sigreg[data] is not installed")


def walks() -> list[NDArray[np.uint8]]:
    """Frames [L, 3, 32, 32] of three walks of different lengths."""
    world, found = TwoRoom(32), collect(TwoRoom(32), 3, 9, 0, bump=0.5)
    return [world.render(s[: 10 - i]) for i, s in enumerate(found.states)]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The walks at quality 80."""
    path = tmp_path / "walks.h5"
    with HDF5Writer(path, jpeg=80) as writer:
        for frames in walks():
            writer.write(frames, np.zeros((len(frames) - 1, 2)), np.zeros((len(frames), 1)))
    return path


def test_what_is_read_is_what_pillow_decodes(stored: Path) -> None:
    """Any rows, in any order and twice, in a copy that was pickled too."""
    wanted = np.concatenate(walks()).transpose(0, 2, 3, 1)
    rows = torch.tensor([[26, 0, 3], [3, 12, 11]])
    frames = open_hdf5(stored).frames
    found = pickle.loads(pickle.dumps(frames))[rows]
    assert frames.shape == (27, 3, 32, 32)
    assert torch.equal(found, frames[rows])
    for row, frame in zip(rows.flatten().tolist(), found.flatten(0, 1), strict=True):
        content = io.BytesIO()
        Image.fromarray(wanted[row]).save(content, "JPEG", quality=80, subsampling=0)
        with Image.open(content) as picture:
            assert np.array_equal(np.asarray(picture), frame.permute(1, 2, 0).numpy())
        error = np.abs(frame.permute(1, 2, 0).numpy().astype(int) - wanted[row]).mean()
        assert 0 < error < 6


def test_windows_do_not_depend_on_workers(stored: Path) -> None:
    """Another process decodes what this one does."""
    windows = Windows(open_hdf5(stored), num_frames=2, frameskip=2)
    order = BatchOrder(len(windows), 4, seed=0, stop=3)
    for one, two in zip(loader(windows, order), loader(windows, order, workers=1), strict=True):
        assert torch.equal(one.frames, two.frames)  # type: ignore[arg-type]


def test_grey_pictures_stay_grey_and_other_channels_are_refused(tmp_path: Path) -> None:
    """One channel comes back as one; four have no JPEG."""
    frames = np.concatenate(walks())[:5, :1]
    with HDF5Writer(tmp_path / "grey.h5", jpeg=95) as writer:
        writer.write(frames, np.zeros((4, 2)))
        with pytest.raises(ValueError, match=r"pixels \[L, 32, 32, 1\].*got \[5, 32, 32, 3\]"):
            writer.write(frames.repeat(3, 1), np.zeros((4, 2)))
    found = open_hdf5(tmp_path / "grey.h5").frames[torch.arange(5)].numpy()
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 2
    with pytest.raises(ValueError, match="jpeg must be of frames with 1 or 3 channels, got 4"):
        encoded(np.zeros((2, 8, 8, 4), np.uint8), 90)


def test_a_file_can_be_appended_to_and_keeps_its_quality(stored: Path) -> None:
    """A second writer need not know how pictures are stored, and may hand on stored ones."""
    frames = open_hdf5(stored).frames
    assert isinstance(frames, JPEGFrames)
    first, kept = frames[torch.arange(10)], frames.pictures(np.arange(10))
    del frames  # which holds the file open
    with HDF5Writer(stored, append=True) as writer:
        writer.write(walks()[0], np.zeros((9, 2)), np.zeros((10, 1)))
        writer.write(kept, np.zeros((9, 2)), np.zeros((10, 1)))
    again = open_hdf5(stored)
    assert again.lengths.tolist() == [10, 9, 8, 10, 10]
    for start in (0, 27, 37):
        assert torch.equal(again.frames[torch.arange(start, start + 10)], first)


def test_damage_is_named(stored: Path) -> None:
    """Bytes that are no picture, a picture of another size, places outside, a missing column."""

    def put(column: str, rows: slice | int, values: Any) -> None:
        with h5py.File(stored, "r+") as file:
            file[column][rows] = values

    content, row = io.BytesIO(), torch.tensor([0])
    Image.new("RGB", (8, 8)).save(content, "JPEG")
    other = np.frombuffer(content.getvalue(), np.uint8)
    put("pixels_jpeg", slice(len(other)), other)
    with pytest.raises(ValueError, match=r"walks\.h5 is damaged: its picture 0 .*got RGB of 8 × 8"):
        open_hdf5(stored).frames[row]
    put("pixels_jpeg", slice(100), 0)
    with pytest.raises(ValueError, match=r"walks\.h5 is damaged: its picture 0 must be JPEG"):
        open_hdf5(stored).frames[row]
    put("pixels", 5, [2**62, 2**62])
    with pytest.raises(ValueError, match=r"must stay within the \d+ bytes.* in .*walks\.h5"):
        open_hdf5(stored)
    with h5py.File(stored, "r+") as file:
        file["pixels"].attrs["shape"] = [32, 32]
    with pytest.raises(ValueError, match=r"must have the shape of its pictures.*walks\.h5"):
        open_hdf5(stored)
    with h5py.File(stored, "r+") as file:
        file["pixels"].attrs["shape"] = [32, 32, 3]
        del file["pixels_jpeg"]
    with pytest.raises(ValueError, match=r"walks\.h5 must have a column 'pixels_jpeg'"):
        open_hdf5(stored)


@pytest.mark.parametrize(("jpeg", "compression"), [(0, None), (101, None), (90, "gzip")])
def test_qualities_out_of_range_are_refused(
    tmp_path: Path, jpeg: int, compression: str | None
) -> None:
    """A quality is 1 to 100; JPEG is not compressed again."""
    with pytest.raises(ValueError, match=f"jpeg must be .* got {jpeg}"):
        HDF5Writer(tmp_path / "x.h5", jpeg=jpeg, compression=compression)


def test_commands_write_it_read_it_and_train_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """convert makes a smaller file, inspect says what it is, convert without it unpacks, train."""
    plain, small, back = (tmp_path / f"{name}.h5" for name in ("plain", "small", "back"))
    words = ["--env", "two-room", "--episodes", "8", "--length", "30", "--size", "64"]
    assert main(["data", "collect", *words, "--out", str(plain)]) == 0
    assert main(["data", "convert", str(plain), str(small), "--jpeg", "90"]) == 0
    assert small.stat().st_size < plain.stat().st_size / 3
    assert main(["data", "inspect", str(small), "--sheet", str(tmp_path / "s.png")]) == 0
    assert "jpeg" in capsys.readouterr().out
    assert main(["data", "convert", str(small), str(back)]) == 0
    packed, unpacked = open_hdf5(small), open_hdf5(back)
    rows = torch.arange(len(packed.actions))
    assert torch.equal(packed.frames[rows], unpacked.frames[rows])
    words = ["--steps=1", "--batch-size=4", "--frameskip=2", "--workers=0", "--num-proj=8"]
    assert main(["train", "--data", str(small), "--out", str(tmp_path / "run"), *words]) == 0
    assert open_run(tmp_path / "run").data == str(small)


def test_a_collection_is_continued_at_its_own_quality(tmp_path: Path) -> None:
    """--resume keeps the file's quality and refuses another; what would do nothing is refused."""
    out = tmp_path / "walks.h5"
    words = ["data", "collect", "--length", "4", "--size", "16", "--policy", "random"]
    words += ["--out", str(out), "--episodes"]
    assert main([*words, "2", "--jpeg", "70"]) == 0
    assert main([*words, "3", "--resume", "--jpeg", "80"]) == 2
    assert main([*words, "3", "--resume"]) == 0
    assert len(open_hdf5(out)) == 3
    assert isinstance(open_hdf5(out).frames, JPEGFrames)
    assert (
        main(
            [
                *words[:-2],
                str(tmp_path / "x.h5"),
                "--episodes",
                "1",
                "--jpeg",
                "70",
                "--states-only",
            ]
        )
        == 2
    )
