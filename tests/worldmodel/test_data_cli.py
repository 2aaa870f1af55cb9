"""Truths of `worldmodel data`: what it collects, says, draws and converts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel.apps import settings
from worldmodel.apps.cli import COMMANDS, main
from worldmodel.apps.data import command as data
from worldmodel.apps.parsing import parse
from worldmodel.data import open_hdf5
from worldmodel.worlds import TwoRoom, collect
from worldmodel.worlds.maze import Maze

pytest.importorskip("h5py", reason="sigreg[data] is not installed")


def worldmodel_data(*words: object) -> int:
    """Run `worldmodel data …` without the program around it."""
    name, *rest = map(str, words)
    known = COMMANDS[f"data {name}"]
    told = parse(getattr(settings, known.settings), f"data {name}", rest)
    return int(getattr(data, known.function)(told))


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    """A small collected file."""
    out = tmp_path / "walks.h5"
    options = ("--episodes", 3, "--length", 20, "--size", 32, "--seed", 5)
    assert worldmodel_data("collect", "--env", "two-room", *options, "--out", out) == 0
    return out


def test_collect_writes_what_the_world_shows(walks: Path) -> None:
    """The file holds the expert's walk of that seed: states, actions, and a picture of each."""
    wanted = collect(TwoRoom(32), 3, 20, 5)
    episodes = open_hdf5(walks)
    assert episodes.lengths.tolist() == [21, 21, 21]
    assert episodes.num_missing == 3
    assert episodes.states is not None
    states = episodes.states.unflatten(0, (3, 21)).numpy()
    assert np.array_equal(states, wanted.states)
    assert np.array_equal(episodes.actions.unflatten(0, (3, 21))[:, :-1].numpy(), wanted.actions)
    frames = episodes.frames[torch.arange(63)].numpy()
    assert np.array_equal(frames, TwoRoom(32).render(wanted.states.reshape(-1, 2)))


def test_walkers_bump_into_the_wall_if_asked(tmp_path: Path) -> None:
    """`--bump` is the expert's `bump`; a probability outside 0…1 is refused."""
    out = tmp_path / "walks.h5"
    options = ("--episodes", 2, "--length", 10, "--size", 16, "--seed", 3)
    worldmodel_data("collect", *options, "--bump", 0.5, "--out", out)
    actions = open_hdf5(out).actions.unflatten(0, (2, 11))[:, :-1].numpy()
    assert np.array_equal(actions, collect(TwoRoom(16), 2, 10, 3, bump=0.5).actions)
    maze, seen = ("--env", "maze-7", "--policy", "expert"), tmp_path / "maze.h5"
    big = ("--episodes", 2, "--length", 10, "--size", 32, "--seed", 3, "--bump", 0.5)
    worldmodel_data("collect", *big, *maze, "--out", seen)
    actions = open_hdf5(seen).actions.unflatten(0, (2, 11))[:, :-1].numpy()
    assert np.array_equal(actions, collect(Maze(32, layout=7), 2, 10, 3, bump=0.5).actions)
    more = (*big, *maze[:2], "--policy", "random", "--out", tmp_path / "other.h5")
    with pytest.raises(ValueError, match="--bump is for the expert of two-room and maze, got maze"):
        worldmodel_data("collect", *more)
    with pytest.raises(ValueError, match="--bump must be less than or equal to 1"):
        worldmodel_data("collect", *options, "--bump", 1.5, "--out", tmp_path / "other.h5")


def test_inspect_tells_what_is_there(
    walks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names format, columns, lengths, ranges, NaN rows and windows, and draws frames as PNG."""
    capsys.readouterr()
    sheet = tmp_path / "sheet.png"
    assert worldmodel_data("inspect", walks, "--sheet", sheet) == 0
    said = capsys.readouterr().out
    for line in (
        r"walks\.h5  \(hdf5\)",
        r"pixels +\[63, 32, 32, 3\] +uint8 +chunks \[1, 32, 32, 3\]",
        r"episodes +3, 63 rows; 21 to 21 each, median 21",
        r"frames +32 × 32 pixels, 3 channels",
        r"actions +2 dims",
        r"NaN actions +3 rows, 3 at the end of an episode",
        r"states +2 dims",
        r"windows +6 of 4 frames, 5 rows apart",
    ):
        assert re.search(line, said), line
    lowest, mean, highest, _ = map(float, re.search(r"dim 0 +(.*)", said)[1].split())  # type: ignore[index]
    actions = open_hdf5(walks).actions[:, 0]
    known = actions[actions.isfinite()]
    assert [lowest, mean, highest] == pytest.approx(
        [float(known.min()), float(known.mean()), float(known.max())], rel=1e-2, abs=1e-3
    )
    picture = np.asarray(Image.open(sheet))
    first = TwoRoom(32).render(collect(TwoRoom(32), 3, 20, 5).states[0, :1])[0].transpose(1, 2, 0)
    enlarged = first.repeat(4, 0).repeat(4, 1)
    assert np.array_equal(picture[:128, :128], enlarged)  # the first frame, four times as wide


def test_convert_copies_and_resizes(walks: Path, tmp_path: Path) -> None:
    """A converted file holds the same rows; a resized one their averages, compressed or not."""
    out, small = tmp_path / "copy.h5", tmp_path / "small.h5"
    assert worldmodel_data("convert", walks, out) == 0
    assert worldmodel_data("convert", walks, small, "--size", 16, "--compression", "gzip") == 0
    one, two, half = open_hdf5(walks), open_hdf5(out), open_hdf5(small)
    rows = torch.arange(63)
    assert torch.equal(one.frames[rows], two.frames[rows])
    torch.testing.assert_close(one.actions, two.actions, equal_nan=True)
    assert half.frames.shape == (63, 3, 16, 16)
    means = [e.frames[rows].float().mean((2, 3)) for e in (one, half)]
    torch.testing.assert_close(means[0], means[1], atol=1.0, rtol=0)


def test_an_interrupted_collection_says_what_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C leaves a readable file with the whole episodes so far, and the number is told."""
    drawn: list[int] = []

    def draw(self: TwoRoom, states: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        drawn.append(1)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return np.zeros((len(states), 3, 32, 32), np.uint8)

    monkeypatch.setattr(TwoRoom, "render", draw)
    out = tmp_path / "walks.h5"
    with pytest.raises(KeyboardInterrupt):
        worldmodel_data("collect", "--episodes", 5, "--length", 4, "--size", 32, "--out", out)
    assert "walks.h5 holds 2 complete episodes" in capsys.readouterr().out
    assert len(open_hdf5(out)) == 2


def test_mistakes_are_named_before_any_work(walks: Path, tmp_path: Path) -> None:
    """An existing output, an absent input, no folder and a wrong column end in one error each."""
    with pytest.raises(FileExistsError, match=r"must not exist yet, got .*walks\.h5"):
        worldmodel_data("collect", "--episodes", 1, "--out", walks)
    with pytest.raises(FileNotFoundError, match="no data set at"):
        worldmodel_data("inspect", tmp_path / "absent.h5")
    with pytest.raises(FileNotFoundError, match="must be in a folder that exists"):
        worldmodel_data("convert", walks, tmp_path / "absent" / "out.h5")
    with pytest.raises(ValueError, match="must have a column 'torque'"):
        worldmodel_data("inspect", walks, "--action", "torque")
    with pytest.raises(FileNotFoundError, match=r"--sheet must be in a folder .*absent/sheet"):
        worldmodel_data("inspect", walks, "--sheet", tmp_path / "absent" / "sheet.png")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ValueError, match="which is not one"):
        worldmodel_data("inspect", tmp_path / "text.h5")


@pytest.mark.parametrize("words", [("--episodes", "0"), ("--episodes", "two"), ("--seed", "-1")])
def test_numbers_are_checked_by_the_parser(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A count below 1, a word and a negative seed are refused with the option's name."""
    assert main(["data", "collect", "--episodes", "1", "--out", "a.h5", *words]) == 2
    assert f"{words[0]} must" in capsys.readouterr().err


def test_a_missing_extra_is_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without h5py one line says what to install, from an index and from a clone."""
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    out = tmp_path / "a.h5"
    assert main(["data", "collect", "--episodes", "1", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        'needs h5py: pip install "sigreg[worldmodel]" (in a clone: pip install ".[worldmodel]")'
    )
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_is_drawn_again(walks: Path, tmp_path: Path) -> None:
    """A sheet of the same data is its own to be replaced; that of other data is not."""
    sheet, other = tmp_path / "sheet.png", tmp_path / "other.h5"
    worldmodel_data("convert", walks, other)
    assert worldmodel_data("inspect", walks, "--sheet", sheet) == 0
    assert worldmodel_data("inspect", walks, "--sheet", sheet) == 0
    with pytest.raises(FileExistsError, match="--sheet must not exist yet"):
        worldmodel_data("inspect", other, "--sheet", sheet)
