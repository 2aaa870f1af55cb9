"""After any end of a run its files can be read, and --resume leads to the same end."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel.apps.cli import main
from worldmodel.apps.ranks import ALONE
from worldmodel.apps.runs import open_run
from worldmodel.apps.train import command
from worldmodel.apps.train.command import Scores, checkpoints, run
from worldmodel.apps.train.loop import (
    DamagedStateError,
    NonFiniteError,
    Training,
    read_state,
    write_state,
)
from worldmodel.apps.train.material import begin_training, open_material
from worldmodel.apps.train.reports import read_table
from worldmodel.data import HDF5Writer, Windows
from worldmodel.records import Batch
from worldmodel.worlds import TwoRoom, collect

pytest.importorskip("h5py", reason="sigreg[data] is not installed")
# By its own name: it is also started as a script.
sys.path.insert(0, str(Path(__file__).parent))
from killed_runs import settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short walks in Two-Room."""
    path, world = tmp_path_factory.mktemp("data") / "walks.h5", TwoRoom(16)
    walks = collect(world, 12, 14, 0, bump=0.5)
    with HDF5Writer(path) as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    return path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(settings(data, out))
    return out


def weights(out: Path) -> bytes:
    """Bytes of the model file."""
    return (out / "model.safetensors").read_bytes()


def stop_at(step: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training end with an error behind a step."""
    advance = Training._advance

    def stopping(self: Training, batch: Batch) -> Any:
        if self.step == step:
            raise error
        return advance(self, batch)

    monkeypatch.setattr(Training, "_advance", stopping)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kill_minus_nine_at_every_write_and_step(data: Path, tmp_path: Path) -> None:
    """Killed at any write, or between steps, a run ends with the same weights and tables."""
    script = Path(__file__).with_name("killed_runs.py")
    run = subprocess.run(
        [sys.executable, str(script), str(data), str(tmp_path)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) > 12
    for moment in found:
        assert moment["status"] == -signal.SIGKILL
        assert moment["again"] == 0
        assert moment["same"]
    assert not found[0]["begun"]
    states = [m["states"] for m in found]
    assert states == sorted(states)
    assert max(m["states"] for m in found) == 2


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Interrupted after step 3, where no checkpoint is due; the resumed run takes one step."""
    out, config = tmp_path / "run", tmp_path / "config.json"
    config.write_text(settings(data).model_dump_json(), encoding="utf-8")
    stop_at(3, KeyboardInterrupt(), monkeypatch)
    assert main(["train", "--config", str(config), "--out", str(out)]) == 130
    assert f"continue with: worldmodel train --resume --out {out}" in capsys.readouterr().out
    assert open_run(out).settings["step"] == 3
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert "resumed at step 3 of 4" in capsys.readouterr().out
    assert weights(out) == weights(whole)


def test_worker_processes_decide_no_bit(data: Path, whole: Path, tmp_path: Path) -> None:
    """Batches fetched ahead by another process train the same weights, resumed ones too."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(2, KeyboardInterrupt(), patch)
        with pytest.raises(KeyboardInterrupt):
            run(settings(data, out, workers=1))
    run(settings(data, out, resume=True, workers=2))
    assert weights(out) == weights(whole)


def test_a_damaged_checkpoint_is_stepped_over(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flipped bit: the run says so, continues from the checkpoint before, and ends the same."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "report.json").unlink()
    newest, older = checkpoints(out)
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    run(settings(data, out, resume=True))
    said = capsys.readouterr().out
    assert f"{newest} is damaged: its values do not match their digest" in said
    assert f"training continues from {older.name}" in said
    assert "resumed at step 2 of 4" in said
    assert weights(out) == weights(whole)
    newest.write_bytes(b"")
    older.write_bytes(older.read_bytes()[:100])
    (out / "report.json").unlink()
    with pytest.raises(DamagedStateError, match=r"no checkpoint .* can be read: .*; .*damaged"):
        run(settings(data, out, resume=True))


def test_a_state_whose_step_cannot_be_is_damaged(data: Path, whole: Path, tmp_path: Path) -> None:
    """Whoever renews the digest: a step behind the last, or none at all, is one line."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "report.json").unlink()
    for told in (str(10**9), "x", "-1", "9" * 5000, 7):
        for path in checkpoints(out):
            tensors, words = read_state(whole / "checkpoints" / path.name)
            write_state(path, tensors, words | {"step": told})  # type: ignore[dict-item]
        rule = "its words must be a table" if told == 7 else "it must have a step in 0…4, got"
        with pytest.raises(DamagedStateError, match=rf"no checkpoint .*{rule}"):
            run(settings(data, out, resume=True))


@pytest.fixture
def small_disk() -> Iterator[Any]:
    """A function that limits the size of a file from now on; the limit goes with the test."""
    resource = pytest.importorskip("resource", reason="needs rlimits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_run_and_spares_its_checkpoints(
    data: Path, whole: Path, tmp_path: Path, small_disk: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The file that did not fit is named and leaves no piece; with room, the run goes on."""
    out, save = tmp_path / "run", Training.save

    def full(self: Training, path: Path, also: Any) -> None:
        if self.step == 4:
            small_disk(4096)
        return save(self, path, also)

    monkeypatch.setattr(Training, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*step-000000004\.safetensors: File too"):
        run(settings(data, out))
    monkeypatch.undo()
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000000002.safetensors"]
    assert open_run(out).settings["step"] == 2
    small_disk(-1)
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert "resumed at step 2" in capsys.readouterr().out
    assert weights(out) == weights(whole)


def test_nan_stops_the_run_and_leaves_the_last_good_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and one line with term, batch and cause; the folder opens and every value is finite.

    The failed step moved batch statistics, directions and random numbers: all are taken back.
    """
    out, config, batch = tmp_path / "run", tmp_path / "config.json", Windows.batch
    config.write_text(settings(data).model_dump_json(), encoding="utf-8")

    def dirty(self: Windows, index: Tensor) -> Batch:
        found = batch(self, index)
        if len(calls) == 3:
            found.actions[0, 0, 0] = math.nan
        calls.append(1)
        return found

    calls: list[int] = []
    monkeypatch.setattr(Windows, "batch", dirty)
    monkeypatch.setattr(command, "score", lambda *_: Scores(1.0, 1.0))
    assert main(["train", "--config", str(config), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "stopped at step 4 of 4: prediction loss is not finite on batch 3" in line
    assert "its actions hold NaN or inf" in line
    run = open_run(out)
    assert run.settings["step"] == 3
    assert all(bool(value.isfinite().all()) for value in run.model.state_dict().values())
    tensors, _ = read_state(out / "checkpoints" / "step-000000003.safetensors")
    assert all(bool(value.isfinite().all()) for value in tensors.values())
    assert int(tensors["regularizer.step"]) == 3


def test_a_gradient_that_is_not_finite_stops_before_the_weights_do(data: Path) -> None:
    """A finite loss with an infinite gradient is named as that, and no weight moves."""
    _, training = begin_training(settings(data), open_material(settings(data)), ALONE)
    objective = training.objective

    def steep(*args: Any) -> Any:
        losses = objective(*args)
        cliff = (losses.total - losses.total.detach()).sqrt()  # 0, with an infinite slope
        return losses._replace(total=losses.total + cliff)

    training.objective = steep
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="step 1 of 4: the gradient is not finite on batch 0"):
        list(training.run())
    after = training.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_state_comes_back_bit_for_bit_and_another_format_is_refused(tmp_path: Path) -> None:
    """Types, shapes and odd values survive; another format is told from damage."""
    path = tmp_path / "state.safetensors"
    tensors = {
        "a": torch.tensor([[math.nan, -0.0], [math.inf, 1e-45]]),
        "b": torch.tensor(7),
        "c": torch.randn(4, 3).t().bfloat16(),
    }
    write_state(path, tensors, {"step": "3"})
    back, words = read_state(path)
    assert words == {"step": "3"}
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        raw = back[name].reshape(-1).view(torch.uint8)
        assert torch.equal(raw, value.contiguous().reshape(-1).view(torch.uint8))
    own = path.read_bytes()
    for number, age in ((b"3", "newer"), (b"1", "older")):
        path.write_bytes(own.replace(b'"format": "2"', b'"format": "%s"' % number))
        with pytest.raises(ValueError, match=rf"has format {number.decode()}, {age} than 2"):
            read_state(path)


def test_a_resumed_run_keeps_its_settings_and_its_data(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """Another λ or other episodes are refused; a finished run and an empty folder too."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    with pytest.raises(FileExistsError, match=r"needs an unfinished run.*report\.json"):
        run(settings(data, out, resume=True))
    (out / "report.json").unlink()
    with pytest.raises(ValueError, match=r"must keep the run's settings, got weight 0\.05 → 0\.1"):
        run(settings(data, out, resume=True, weight=0.1))
    other, world = tmp_path / "other.h5", TwoRoom(16)
    walks = collect(world, 12, 14, 1)
    with HDF5Writer(other) as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    with pytest.raises(ValueError, match="must train on the episodes in"):
        run(settings(other, out, resume=True))
    with pytest.raises(FileNotFoundError, match=r"needs a run folder with train\.json"):
        run(settings(data, tmp_path / "nowhere", resume=True))
    with pytest.raises(FileExistsError, match=r"--out must not exist yet.*add --resume"):
        run(settings(data, out))
    (out / "train.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.json is damaged"):
        run(settings(data, out, resume=True))


def test_a_run_killed_before_its_last_page_gets_it(data: Path, whole: Path, tmp_path: Path) -> None:
    """The report is there and the folder's page is not: `--resume` makes it, and nothing else."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "index.html").unlink()
    run(settings(data, out, resume=True))
    assert (out / "index.html").is_file()
    assert weights(out) == weights(whole)
    assert (out / "held_out.csv").read_bytes() == (whole / "held_out.csv").read_bytes()


def test_a_finished_run_is_extended_by_a_schedule_of_its_own(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`--resume --steps 8` begins a warm-up and a cosine at step 4; killed on the way, the same."""
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(whole, one)
    shutil.copytree(whole, two)
    words = ["train", "--resume", "--steps", "8", "--out"]
    assert main([*words, str(one)]) == 0
    rates = read_table(one / "curves.csv")["learning_rate"]
    fresh = rates[: len(rates) // 2]
    assert rates[-1] == pytest.approx(fresh[-1])
    stop_at(5, KeyboardInterrupt(), monkeypatch)
    assert main([*words, str(two)]) == 130
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(two)]) == 0
    assert weights(one) == weights(two)
    assert weights(one) != weights(whole)
    assert (one / "held_out.csv").read_bytes() == (two / "held_out.csv").read_bytes()
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(one)]) == 2
    assert "report.json; --steps above 8 extends it" in capsys.readouterr().err
    # Eight steps at once have another cosine.
    run(settings(data, tmp_path / "long", steps=8))
    assert weights(tmp_path / "long") != weights(one)


def test_a_run_is_found_again_from_another_folder(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path becomes absolute when it is read: resuming from elsewhere finds the data."""
    monkeypatch.chdir(data.parent)
    stop_at(2, KeyboardInterrupt(), monkeypatch)
    assert main(["train", "--config", str(whole / "train.json"), "--data", data.name,
                 "--out", str(tmp_path / "run")]) == 130  # fmt: skip
    monkeypatch.undo()
    kept = json.loads((tmp_path / "run" / "train.json").read_text(encoding="utf-8"))
    assert kept["data"] == str(data)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "--out", "run"]) == 0
    assert weights(tmp_path / "run") == weights(whole)


def test_parts_of_a_given_time_end_as_the_whole(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--minutes` ends a run behind a step, with status 0; the last part ends it."""
    words = ["train", "--config", str(whole / "train.json"), "--out", str(tmp_path / "run")]
    parts = 0
    while not (tmp_path / "run" / "report.json").exists():
        again = ["--resume"] if parts else []
        assert main([*words, "--minutes", "1e-9", *again]) == 0
        assert parts == 4 or "steps are kept; continue with" in capsys.readouterr().out
        parts += 1
    assert parts == 5
    mine, theirs = (open_run(folder).model.state_dict() for folder in (tmp_path / "run", whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
