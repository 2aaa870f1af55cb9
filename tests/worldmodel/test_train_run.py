"""`worldmodel train` from end to end: the folder it leaves, its split, its scores, its mistakes."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldmodel import heads
from worldmodel.apps.cli import main
from worldmodel.apps.parsing import complete
from worldmodel.apps.ranks import ALONE
from worldmodel.apps.runs import metric_of, open_run
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train import command
from worldmodel.apps.train import material as train_material
from worldmodel.apps.train.command import run as train
from worldmodel.apps.train.command import score
from worldmodel.apps.train.loop import Training, learning_rate
from worldmodel.apps.train.material import TrainMaterial, begin_training, open_material
from worldmodel.apps.train.reports import read_table
from worldmodel.checkpoint import digest
from worldmodel.data import ActionScale, BatchOrder, HDF5Writer, Windows, episode_digests, open_hdf5
from worldmodel.data.frames import EpisodeFrames
from worldmodel.study import embed
from worldmodel.worlds import TwoRoom, collect

pytest.importorskip("h5py", reason="sigreg[data] is not installed")
# By its own name: it is also started as a script.
sys.path.insert(0, str(Path(__file__).parent))
from killed_runs import settings


def write_walks(path: Path, size: int = 16, num: int = 12, length: int = 14) -> Path:
    """Short walks in Two-Room as an HDF5 file."""
    world, walks = TwoRoom(size), collect(TwoRoom(size), num, length, 0, bump=0.5)
    with HDF5Writer(path) as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve walks whose file names its world."""
    path = write_walks(tmp_path_factory.mktemp("data") / "walks.h5")
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs["world"] = "two-room"
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(settings(data, out, report_every=1, held_out=0.25))
    return out


def built(given: TrainSettings) -> tuple[Training, TrainMaterial]:
    """The training of some settings, before its first step."""
    material = open_material(given)
    return begin_training(given, material, ALONE)[1], material


def test_the_folder_says_everything(run: Path, data: Path) -> None:
    """Model, scale, world, objective, data, episodes on each side and every setting."""
    found, episodes = open_run(run), open_hdf5(data)
    assert (found.world, found.objective, found.frameskip) == ("two-room", "lewm", 2)
    assert found.data == str(data.resolve())
    names = episode_digests(episodes)
    assert found.trained_on | found.held_out == set(names)
    assert not found.trained_on & found.held_out
    assert len(found.held_out) == 3
    chosen = torch.tensor([e for e, name in enumerate(names) if name in found.trained_on])
    assert torch.allclose(found.scale.mean, ActionScale.fit(episodes, chosen).mean)
    assert found.settings["step"] == 4
    kept = json.loads((run / "train.json").read_text())
    assert complete(TrainSettings, "train", kept, {"out": run}).model_dump(mode="json") == kept
    assert {k: v for k, v in found.settings.items() if k != "step"} == kept
    assert (kept["steps"], kept["precision"]) == (4, "float32")
    report = json.loads((run / "report.json").read_text())
    last = read_table(run / "held_out.csv")
    assert report["held_out_prediction"] == last["prediction"][-1]
    assert last["step"] == [2, 4]
    assert read_table(run / "curves.csv")["step"] == [1, 2, 3, 4]
    assert (run / "curves.png").stat().st_size > 1000
    assert {path.name for path in run.rglob("*.tmp")} == set()


def test_the_metric_is_of_the_finished_model(run: Path, tmp_path: Path) -> None:
    """A block of the training windows moves the embeddings by about 1 a direction."""
    found = open_run(run)
    kept = json.loads((run / "train.json").read_text())
    windows = open_material(complete(TrainSettings, "train", kept, {"out": run})).train
    z = embed(found.world_model, windows.batch(torch.arange(len(windows))).tensors()[0])
    moved = metric_of(found)(z).diff(dim=1).flatten(0, 1)
    values = torch.linalg.eigvalsh(moved.T @ moved / len(moved))
    assert 0.9 < values[-1] < 1.1  # directions below the ridge move by less
    without = tmp_path / "without"
    shutil.copytree(run, without)
    heads.save_head(heads.Head(3, 3), without / "metric.safetensors")
    with pytest.raises(ValueError, match=r"must map embeddings of \d+ dims, it does not"):
        metric_of(open_run(without))
    (without / "metric.safetensors").unlink()
    with pytest.raises(ValueError, match=r"metric mahalanobis needs metric\.safetensors in"):
        metric_of(open_run(without))


def test_its_own_file_trains_the_same_model(run: Path, tmp_path: Path) -> None:
    """`--config RUN/train.json` reproduces the weights bit for bit."""
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "train.json"), "--out", str(again)]) == 0
    assert digest(open_run(again).model) == digest(open_run(run).model)


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_drawn_while_training_train_the_same_model(
    run: Path, data: Path, tmp_path: Path, workers: int
) -> None:
    """`--render` of states alone gives the weights of stored frames, resumed or not."""
    import h5py

    states, out = tmp_path / "states.h5", tmp_path / "run"
    with h5py.File(data) as file, h5py.File(states, "w") as alone:
        for name in ("state", "ep_len", "ep_offset"):
            file.copy(name, alone)
        file.copy("action", alone, name="torque")
        alone.attrs["world"] = "two-room"
    given = settings(states, out, report_every=1, held_out=0.25, action="torque")
    with pytest.raises(ValueError, match="states and no pictures: draw them by train --render"):
        train(given)
    drawn = given.model_copy(update={"render": 16, "workers": workers, "steps": 2})
    train(drawn)
    train(drawn.model_copy(update={"steps": 4, "resume": True}))
    straight = drawn.model_copy(update={"steps": 4, "out": tmp_path / "straight"})
    train(straight)
    assert digest(open_run(straight.out).model) == digest(open_run(run).model)
    assert open_run(out).settings["render"] == 16


def test_frames_on_the_device_train_the_same_model(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--preload` gives the weights of a run without; what does not fit is told in both numbers."""
    given = settings(data, tmp_path / "run", report_every=1, held_out=0.25, preload=True, workers=2)
    train(given)
    assert digest(open_run(given.out).model) == digest(open_run(run).model)
    monkeypatch.setattr(train_material, "free_memory", lambda _: 2.0**10)
    told = r"preload must fit the 9\.54e-07 GiB that are free on cpu, got 9\.\d+e-05 GiB of frames"
    with pytest.raises(ValueError, match=told):
        train(given.model_copy(update={"out": tmp_path / "other"}))
    assert not (tmp_path / "other").exists()


def test_scores_are_those_of_the_saved_model_and_move_nothing(data: Path) -> None:
    """Mean over held-out windows in evaluation mode; mode, random state and step stay."""
    training, material = built(settings(data))
    list(training.run())
    random, before = torch.get_rng_state(), digest(training.model)
    step = int(training.regularizer.state_dict()["step"])
    prediction, _ = score(training, material.held_out, 8)
    assert torch.equal(torch.get_rng_state(), random)
    assert digest(training.model) == before
    assert int(training.regularizer.state_dict()["step"]) == step
    assert training.model.training
    assert training.regularizer.training
    model = training.model.eval()
    order = BatchOrder(len(material.held_out), 8, seed=0)
    frames, actions = material.held_out.batch(order.batch(0))
    with torch.no_grad():
        z = model.encode(frames)
        error = (model.predict(z[:, :-1], actions[:, :-1]) - z[:, 1:]).square().mean()
    assert prediction == pytest.approx(float(error), rel=1e-5)


def test_without_steps_a_run_makes_ten_passes(data: Path) -> None:
    """As published; the cosine ends there too."""
    training, material = built(settings(data, steps=None))
    assert training.steps == 10 * (len(material.train) // 8)
    assert learning_rate(training.recipe, training.steps) == pytest.approx(0, abs=1e-12)


def test_bfloat16_trains_the_network_in_low_precision_only(data: Path) -> None:
    """Under autocast the losses stay float32 and near those of float32, and weights are float32."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        training, material = built(settings(data, precision=precision))
        losses[precision] = training.losses(material.train.batch(torch.arange(16)))
        assert all(p.dtype == torch.float32 for p in training.model.parameters())
    low, full = losses["bfloat16"], losses["float32"]
    assert low.embeddings.dtype == torch.bfloat16
    assert low.total.dtype == low.regularization.dtype == torch.float32
    assert float(low.prediction) == pytest.approx(float(full.prediction), rel=0.1)
    assert float(low.prediction) != float(full.prediction)


def test_parts_take_arguments_by_name(data: Path) -> None:
    """`predictor.dropout=0` reaches the predictor, and the frame size is the data's."""
    model = built(settings(data, model={"predictor": {"dropout": 0.0}}))[0].model
    assert model.predictor.config["dropout"] == 0
    assert model.predictor.config["depth"] == 1
    assert model.encoder.config["image_size"] == 16
    assert model.action_encoder.config["action_dim"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder.colour=1"], "encoder (ConvEncoder) has no 'colour'; it has dim, image_size"),
        (["--preset", "lewm"], "image_size must be a multiple of patch_size 14, got 16; set enc"),
        (["predictor.dim=9"], "encoder and predictor must share one dim, got 64 and 9"),
        (["num_frames=6"], "num_frames must be at most predictor.history + 1 = 4, got 6"),
        (
            ["num_frames=4", "frameskip=9"],
            "are shorter than a window, num_frames 4 × frameskip 9 = 36 rows",
        ),
        (
            ["batch_size=1"],
            "batch_size must be at least 2 per process, and divisible by them, got 1 for 1",
        ),
        (["batch_size=9999"], "batch_size must be between 1 and the"),
        (
            ["objective=gan"],
            "--objective must be 'lewm', 'pldm', 'gcbc', 'predictor' or 'proposals', got \"gan\"",
        ),
        (["augment.shift=16"], "augment.shift must be below the 16 pixels of a frame, got 16"),
        (["accumulate=99"], "accumulate must be at most the 64 windows of a step in each process"),
        (["precision=tf32", "device=cpu"], "precision tf32 needs a GPU by CUDA, got device cpu"),
        (["pixels=depth"], "must have a column 'depth', got action, ep_len"),
        (["device=cuda:99"], "--device must be a device torch can use, got 'cuda:99'"),
        (
            ["seed=1", "--seed", "2", "weight=-1"],
            '--weight must be greater than or equal to 0, got "-1"',
        ),
        (["data=nothing.h5"], "there is no data set at nothing.h5"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Status 2, what was wrong, and --out free for another try."""
    out = tmp_path / "run"
    given = ["--data", str(data), "--out", str(out), "--frameskip", "2"]
    assert main(["train", *given, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("worldmodel train: error: ")
    assert message in line
    assert not out.exists()


def test_other_words_than_key_value_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings may stand anywhere; an unknown flag among them is still an unknown flag."""
    assert main(["train", "a=1", "--out", "x", "b=2", "--colour", "c=3"]) == 2
    assert "unrecognized arguments: --colour" in capsys.readouterr().err


def test_data_that_cannot_be_split_or_seen_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One episode, and frames that are not square: each named, with what to do."""
    one, wide = write_walks(tmp_path / "one.h5", num=1), tmp_path / "wide.h5"
    with HDF5Writer(wide) as writer:
        for _ in range(2):
            writer.write(np.zeros((15, 3, 16, 32), np.uint8), np.zeros((14, 2), np.float32))
    out = str(tmp_path / "run")
    assert main(["train", "--data", str(one), "--out", out]) == 2
    assert "1 of 1 episodes are shorter than a window" in capsys.readouterr().err
    assert main(["train", "--data", str(wide), "--out", out]) == 2
    assert "frames must be square and of three channels, got 32 × 16 and 3" in (
        capsys.readouterr().err
    )


def test_a_source_of_whole_episodes_is_read_into_memory(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows are those of the file; one too large is refused, with the command that helps."""
    stored = open_hdf5(data)
    lengths = stored.lengths

    def read(e: int) -> NDArray[np.uint8]:
        first = int(stored.offsets[e])
        rows = torch.arange(first, first + int(lengths[e]))
        return stored.frames[rows].permute(0, 2, 3, 1).contiguous().numpy()

    by_episode = replace(stored, frames=EpisodeFrames(read, lengths, (3, 16, 16)))
    monkeypatch.setattr(train_material, "open_pictures", lambda *_, **__: by_episode)
    chosen, mapped = torch.arange(5), Windows(stored, frameskip=2)
    material = open_material(settings(data))
    episodes = material.train.episodes
    assert isinstance(episodes.frames, torch.Tensor)
    every = Windows(episodes, frameskip=2)
    assert torch.equal(every.batch(chosen).frames, mapped.batch(chosen).frames)
    monkeypatch.setattr(train_material, "_MEMORY", 1000)
    with pytest.raises(ValueError, match=r"write it as HDF5 first: worldmodel data convert"):
        open_material(settings(data))


def test_wandb_is_asked_for_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the package the run does not begin; with it, it is told settings and name."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    out = tmp_path / "run"
    words = ["--data", str(data), "--out", str(out), "wandb=true"]
    assert main(["train", *words]) == 2
    assert "wandb=true needs Weights & Biases: pip install wandb" in capsys.readouterr().err
    assert not out.exists()
    told: dict[str, Any] = {}

    class Wandb:
        @staticmethod
        def init(**words: Any) -> Any:
            told.update(words)
            return Wandb

        @staticmethod
        def log(values: dict[str, float], step: int) -> None:
            told[f"step {step}"] = values

        @staticmethod
        def finish(exit_code: int) -> None:
            told["exit"] = exit_code

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    train(settings(data, out, wandb=True))
    assert (told["name"], told["exit"]) == ("run", 0)
    assert told["config"]["steps"] == 4
    assert told["step 4"].keys() == {"held_out/prediction", "held_out/regularization"}
    # Continued, it is the same run there too.
    began = told["id"]
    train(settings(data, out, wandb=True, resume=True, steps=6))
    assert (told["id"], told["resume"]) == (began, "allow")


def test_a_run_begins_with_the_weights_of_another(run: Path, data: Path, tmp_path: Path) -> None:
    """`--init-from` takes every tensor; the first held-out score is near that of the other run."""
    given = settings(data, tmp_path / "tuned", init_from=run, steps=1, learning_rate=1e-12)
    model = built(given)[0].model
    assert digest(model) == digest(open_run(run).model)
    train(given)
    kept = json.loads((tmp_path / "tuned" / "train.json").read_text(encoding="utf-8"))
    assert kept["init_from"] == str(run)
    # Once it has a checkpoint of its own, the other run may go.
    words = ["--resume", "--steps", "3", "--init-from", str(tmp_path / "no")]
    assert main(["train", *words, "--out", str(tmp_path / "tuned")]) == 0
    assert open_run(tmp_path / "tuned").settings["step"] == 3


def test_a_run_that_gets_more_steps_has_no_metric_until_its_end(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted on the way, its newest model would have the metric of an older one."""
    out = tmp_path / "run"
    shutil.copytree(run, out)

    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_advance", stopped)
    assert main(["train", "--resume", "--steps", "6", "--out", str(out)]) == 130
    assert not (out / "metric.safetensors").exists()
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert (out / "metric.safetensors").exists()


def test_a_predictor_is_trained_on_a_frozen_encoder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder stays to the bit, the predictor learns; resumed without the first run too."""
    first, out, again = (tmp_path / name for name in ("first", "tuned", "again"))
    shutil.copytree(run, first)
    words = ["train", "--config", str(run / "train.json"), "--objective", "predictor"]
    words += ["terms.rollout=1", "--init-from", str(first), "--out"]
    assert main([*words, str(out)]) == 0
    kept = json.loads((out / "train.json").read_text())
    frozen = built(complete(TrainSettings, "train", kept, {"out": out}))[0].model.encoder
    assert not any(p.requires_grad for p in frozen.parameters())  # or ranks would wait for them
    before, after = (open_run(path).world_model for path in (first, out))
    assert digest(before.encoder) == digest(after.encoder)
    assert digest(before.predictor) != digest(after.predictor)
    old, new = (metric_of(open_run(path)).state_dict() for path in (first, out))
    assert all(torch.equal(old[name], new[name]) for name in old)
    shutil.copytree(out, again)
    (again / "report.json").unlink()
    max((again / "checkpoints").glob("step-*.safetensors")).unlink()
    shutil.rmtree(first)
    assert main(["train", "--resume", "--out", str(again)]) == 0
    assert digest(open_run(again).model) == digest(after)
    shutil.copytree(run, first)
    (first / "metric.safetensors").unlink()
    alone = [*words[:5], "--out"]
    varied = [*words[:5], "augment.shift=1", *words[5:]]
    refused = (
        (words, "needs metric.safetensors"),
        (alone, "needs --init-from"),
        (varied, "augment must be left out"),
    )
    for given, message in refused:
        capsys.readouterr()
        assert main([*given, str(tmp_path / "refused")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()


def test_minutes_count_the_embedding(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it takes all the time, one step follows."""
    out, embedded, clock = tmp_path / "tuned", command.embedded, time.monotonic

    def slow(*given: Any, **named: Any) -> TrainMaterial:
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 20)
        return embedded(*given, **named)

    monkeypatch.setattr(command, "embedded", slow)
    words = ["train", "--config", str(run / "train.json"), "--objective", "predictor"]
    words += ["--workers", "0", "--init-from", str(run), "--minutes", "0.3", "--out", str(out)]
    assert main(words) == 0
    (kept,) = (out / "checkpoints").glob("step-*.safetensors")
    assert int(kept.stem.partition("-")[2]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frameskip=3"], "--init-from must be trained on actions of 2 dims × frameskip 3, as"),
        (["encoder.width=8"], "--init-from must hold the model of these settings"),
        (["objective=gcbc", "model={}"], "--init-from must be a GCBC"),
    ],
)
def test_weights_of_another_model_are_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    """Another action width, another size, another class: one line, and no folder."""
    out, mine = tmp_path / "run", tmp_path / "mine.json"
    mine.write_text(settings(data).model_dump_json(exclude={"model"}), encoding="utf-8")
    given = ["--config", str(mine), "--init-from", str(run), "--out", str(out)]
    assert main(["train", *given, *(w for w in words if w != "model={}")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not out.exists()


def test_a_start_that_fails_late_leaves_no_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error in the first step, behind every check: the corrected command can have the name."""
    out, mine = tmp_path / "deep" / "run", tmp_path / "mine.json"
    mine.write_text(settings(data).model_dump_json(), encoding="utf-8")

    def broken(*_: Any) -> Any:
        raise MemoryError("no room for the first batch")

    monkeypatch.setattr(Training, "_advance", broken)
    words = ["train", "--config", str(mine), "--out", str(out)]
    assert main(words) == 2
    assert "no room for the first batch" in capsys.readouterr().err
    assert not out.parent.exists()
    monkeypatch.undo()
    assert main(words) == 0
