"""Hostile files, signals to a whole group and killed workers: one line, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent))
from fuzz.words import _MODEL, TRAIN

import worldmodel
from sigreg import SIGReg, VCReg, collapse_value, invariance_loss
from worldmodel.apps.cli import COMMANDS, main
from worldmodel.apps.folder import locked
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.train.command import whole_steps
from worldmodel.apps.train.reports import _begin
from worldmodel.data import Windows, open_hdf5
from worldmodel.study import paired_test

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short walks."""
    path = tmp_path_factory.mktemp("data") / "w.h5"
    words = ("--episodes", "8", "--length", "20", "--size", "16", "--out", str(path))
    assert main(["data", "collect", *words]) == 0
    return path


def begin(data: Path, out: Path) -> subprocess.Popen[str]:
    """A long run with two workers in a group of its own, under way."""
    words = ("train", "--data", data, "--out", out, *TRAIN[2:], *_MODEL, "--steps", "100000")
    line, end = map(str, (*words, "--workers", "2")), time.monotonic() + 60
    # A process of its own: a fork of this one could hang in the threads of torch.
    child = subprocess.Popen(
        [sys.executable, "-m", "worldmodel", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    # Both: a single child may be a command that an import calls.
    while len(workers_of(child.pid)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)  # into the steps
    return child


def workers_of(pid: int) -> list[int]:
    """The processes that load its data."""
    return list(
        map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split())
    )


def test_a_kill_of_the_whole_group_keeps_the_step(data: Path, tmp_path: Path) -> None:
    """SIGTERM to all processes of a job, as systemd sends it: the run can go on."""
    child = begin(data, tmp_path / "run")
    os.killpg(child.pid, signal.SIGTERM)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "continue with: worldmodel train --resume" in said
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_killed_worker_keeps_the_step(data: Path, tmp_path: Path) -> None:
    """As the memory killer does it: one line that says what to change, and a checkpoint."""
    child = begin(data, tmp_path / "run")
    os.kill(workers_of(child.pid)[0], signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "a process that loads data was killed" in said
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_worker_says_nothing_of_another_ones_end() -> None:
    """The thread that hands tensors over would print a traceback of the connection that broke."""
    code = (
        "import sys; from multiprocessing.resource_sharer import sys as its; assert its is sys\n"
        "from worldmodel.data.windows import _deaf, _leaving; _deaf(_leaving(), 0)\n"
        "its.excepthook(ConnectionResetError, ConnectionResetError('peer'), None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_signal_to_one_rank_stops_all_of_them() -> None:
    """Whichever rank gets the signal, `release` raises on all of them after the same step."""

    class Others(Ranks):
        """Two ranks, of which the other was told."""

        def gather(self, words: str) -> list[str]:
            return [words, told]

    told = ""
    with whole_steps(Others(0, 2)) as release:
        release()
        told = "told"
        with pytest.raises(KeyboardInterrupt):
            release()


def test_a_damaged_file_that_claims_a_writer_is_given_up_on(data: Path, tmp_path: Path) -> None:
    """HDF5 would wait for that writer to mend it, for minutes, deaf to signals."""
    content = bytearray(data.read_bytes())
    content[11] |= 5
    (tmp_path / "w.h5").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"w\.h5 is damaged"):
        open_hdf5(tmp_path / "w.h5")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_values_of_other_files_are_not_read(data: Path, tmp_path: Path, kind: str) -> None:
    """A file from elsewhere must not make a copy of whatever it names."""
    secret, path = tmp_path / "secret", tmp_path / "w.h5"
    secret.write_bytes(b"s" * 10**6)
    path.write_bytes(data.read_bytes())
    with h5py.File(path, "r+") as file:
        shape = file["pixels"].shape
        del file["pixels"]
        if kind == "external":
            where = [(str(secret), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("pixels", shape, np.uint8, external=where)
        else:
            layout = h5py.VirtualLayout(shape, np.uint8)
            layout[:] = h5py.VirtualSource(str(data), "pixels", shape)
            file.create_virtual_dataset("pixels", layout)
    assert main(["data", "convert", str(path), str(tmp_path / "c.h5")]) == 2
    assert not (tmp_path / "c.h5").exists()
    with pytest.raises(ValueError, match="must hold its own values"):
        open_hdf5(path)


def test_what_would_be_silently_wrong_is_refused(data: Path) -> None:
    """Numbers out of range, disagreeing shapes and foreign episodes have no result."""
    nan = torch.tensor([0.0, float("nan"), 1.0])
    windows = Windows(open_hdf5(data), num_frames=2, frameskip=1)
    batch = windows.batch(torch.arange(4))
    with pytest.raises(ValueError, match="finite"):
        paired_test(nan, torch.zeros(3))
    for weight in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="weight must be"):
            worldmodel.jepa_loss(
                worldmodel.presets.small(2, image_size=16), batch, SIGReg(), weight
            )
        with pytest.raises(ValueError, match="variance must be"):
            VCReg(weight)
        with pytest.raises(ValueError, match="inverse must be"):
            worldmodel.PLDMTerms(inverse=weight)
    with pytest.raises(ValueError, match="num_samples must be"):
        collapse_value(-1)
    with pytest.raises(ValueError, match="depth must be"):
        worldmodel.CausalPredictor(8, depth=-3)
    with pytest.raises(ValueError, match="centre"):
        invariance_loss(torch.zeros(2, 3, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="subset must be"):
        Windows(open_hdf5(data), subset=torch.tensor([-1]))


def test_settings_that_nest_without_end_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They could be read, and not be written into the run's folder."""
    config = tmp_path / "deep.json"
    deep = "[" * 400 + "]" * 400
    config.write_text(f'{{"model": {{"encoder": {{"dim": {deep}}}}}}}', encoding="utf-8")
    words = ("--config", str(config), "--data", "two-room", "--out", str(tmp_path / "run"))
    assert main(["train", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "settings must be what JSON can hold" in line


def test_a_table_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    """Whole rows of numbers stay, up to the step; what else lies there goes."""
    path = tmp_path / "curves.csv"
    path.write_bytes(b"step,a\n1,0.5\n2,nan\nx,1\n3,<b>\n\x80\x04,2\n4,-1.5e-07\n9,1\n5,2")
    _begin(path, ("step", "a"), 8)
    assert path.read_text(encoding="utf-8") == "step,a\n1,0.5\n2,nan\n4,-1.5e-07\n"


def test_no_command_replaces_what_it_did_not_write(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, links, devices and inputs stay, and each is refused before the work begins."""
    run, note, link = tmp_path / "run", tmp_path / "note.json", tmp_path / "link"
    train = ["train", "--data", str(data), *TRAIN[2:], *_MODEL, "--steps", "1", "--out"]
    assert main([*train, str(run)]) == 0
    task = tmp_path / "pairs.json"
    assert main(["manifest", "--env", "two-room", "--pairs", "2", "--out", str(task)]) == 0
    note.write_text("{}", encoding="utf-8")
    link.symlink_to(data)
    before = {path: path.read_bytes() for path in (data, run / "train.json", note)}
    commands = {
        "demo": ["demo"],
        "data collect": ["data", "collect", "--episodes", "2", "--length", "6", "--resume"],
        "data inspect": ["data", "inspect", str(data)],
        "data convert": ["data", "convert", str(data)],
        "data render": ["data", "render", str(data)],
        "train": train[:-1],
        "tune-lambda": ["tune-lambda", "--data", str(data)],
        "study": ["study", str(run)],
        "view": ["view", str(run), "--no-serve"],
        "manifest": ["manifest", "--env", "two-room", "--pairs", "2"],
        "evaluate": ["evaluate", str(run), "--manifest", str(task)],
        "compare": ["compare", str(note), str(note)],
    }
    assert {*commands} == {*COMMANDS} - {"info"}
    places = (Path("/dev/null"), link, data, run / "train.json", note)
    for name, words in commands.items():
        option = {"data inspect": ["--sheet"], "data convert": [], "data render": []}
        for place in places:
            # A file of its own kind is continued, if it is one.
            if name == "data collect" and place in (data, run / "train.json", note):
                continue
            if name == "view":
                pytest.importorskip("onnxscript")
            more = ["--size", "16"] if name == "data render" else []
            assert main([*words, *option.get(name, ["--out"]), str(place), *more]) == 2, (
                name,
                place,
            )
            (line,) = capsys.readouterr().err.splitlines()
            assert "must" in line, line
    assert main([*commands["compare"], "--out", ""]) == 2
    assert "--out must not exist yet" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
    assert link.is_symlink()
    assert Path("/dev/null").is_char_device()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["collect", "evaluate", "train", "demo"])
def test_the_second_of_two_processes_is_told_who_the_first_is(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One writes; the other refuses in one line with its number, and leaves the output alone."""
    out, run, task = tmp_path / "out", tmp_path / "run", tmp_path / "pairs.json"
    train = ["train", "--data", str(data), *TRAIN[2:], *_MODEL, "--out"]
    many = {
        "collect": ["data", "collect", "--episodes", "100000", "--length", "9", "--size", "16"],
        "evaluate": ["evaluate", str(run), "--manifest", str(task), "--seeds", "9999"],
        "train": ["train", "--resume"],
        "demo": ["demo", "--device", "cpu"],
    }  # fmt: skip
    if name == "evaluate":
        assert main([*train, str(run), "--steps", "1"]) == 0
        assert main(["manifest", "--env", "two-room", "--pairs", "4", "--out", str(task)]) == 0
    if name == "train":
        assert main([*train, str(out), "--steps", "100000", "--minutes", "1e-9"]) == 0
    words = [*many[name], "--out", str(out)]
    holder = out / ".lock.holder" if name != "collect" else tmp_path / "out.lock.holder"
    first = subprocess.Popen(
        [sys.executable, "-m", "worldmodel", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not holder.is_file() and time.monotonic() < end:
            time.sleep(0.05)
        capsys.readouterr()
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{out} is being written by process {first.pid} on " in line
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert holder.is_file()  # the lock died with its process, whatever still lies there

    def free() -> bool:
        with suppress(BlockingIOError), locked(holder.with_suffix(""), "out"):
            return True
        return False

    end = time.monotonic() + 30
    while not free():  # the lock dies with the process and its workers, which were killed together
        assert time.monotonic() < end
        time.sleep(0.05)
