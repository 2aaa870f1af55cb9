"""What a run shows: its tables, TensorBoard's files, Weights & Biases, the collapse alarm."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sigreg import embedding_report, noise_floor
from worldmodel.apps.parsing import complete
from worldmodel.apps.settings import Recipe, TrainSettings
from worldmodel.apps.train import reports as train_reports
from worldmodel.apps.train.loop import Training, learning_rate
from worldmodel.apps.train.material import build_model
from worldmodel.apps.train.reports import COLUMNS, Alarm, Reports, Scores, read_table
from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.worlds import TwoRoom, collect

SMALL = {"dim": 8, "projector_dim": 16}


def make_training(weight: float = 0.1, steps: int = 6, **changes: Any) -> Training:
    """A tiny model on walks in Two-Room."""
    world = TwoRoom(16)
    walks = collect(world, 20, 14, seed=0, bump=0.5)
    nowhere = np.full((20, 1, 2), np.nan, np.float32)
    episodes = Episodes(
        frames=torch.from_numpy(world.render(walks.states.reshape(-1, 2))),
        actions=torch.from_numpy(np.concatenate([walks.actions, nowhere], 1).reshape(-1, 2)),
        lengths=torch.full((20,), 15),
    )
    windows = Windows(episodes, frameskip=2, scale=ActionScale.fit(episodes))
    parts = {
        "encoder": SMALL | {"width": 4},
        "action_encoder": {"dim": 8},
        "predictor": SMALL | {"depth": 1, "mlp_dim": 16},
    }
    told = complete(TrainSettings, "train", {"data": "walks.h5", "out": "run", "model": parts})
    torch.manual_seed(1)
    model = build_model(told, windows)
    options = {"batch_size": 32, "learning_rate": 3e-3, "num_proj": 32, "warmup": 0.1} | changes
    return Training(model, windows, Recipe(steps=steps, weight=weight, **options))


def followed(training: Training, reports: Reports) -> None:
    """Train to the end under the eyes of the reports."""
    for losses in training.run():
        reports.step(losses)


def test_tensorboard_reads_what_the_table_holds(tmp_path: Path) -> None:
    """Tags, steps and values come back through TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = make_training(steps=4)
    with Reports(training, tmp_path, every=2) as reports:
        followed(training, reports)
        reports.held_out(Scores(0.25, -1e-7))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    table = read_table(tmp_path / "curves.csv")
    for name in ("prediction", "excess", "effective_rank", "learning_rate"):
        events = found.Scalars(f"train/{name}")
        assert [event.step for event in events] == [2, 4]
        assert [event.value for event in events] == pytest.approx(table[name], rel=1e-4)
    assert found.Scalars("held_out/prediction")[0].value == 0.25
    assert found.Scalars("held_out/regularization")[0].value == pytest.approx(-1e-7)


def test_rows_are_means_over_their_stretch(tmp_path: Path) -> None:
    """Each row averages the losses since the last; excess, rank and rate are of this run."""
    training, seen = make_training(), []
    with Reports(training, tmp_path, every=2) as reports:
        for losses in training.run():
            seen.append((float(losses.prediction), float(losses.regularization)))
            reports.step(losses)
    table = read_table(tmp_path / "curves.csv")
    assert tuple(table) == COLUMNS
    assert table["step"] == [2, 4, 6]
    means = np.asarray(seen).reshape(3, 2, 2).mean(1)
    assert table["prediction"] == pytest.approx(means[:, 0], rel=1e-5)
    assert table["regularization"] == pytest.approx(means[:, 1], rel=1e-5)
    excess = means[:, 1] - noise_floor()
    assert table["excess"] == pytest.approx(excess, rel=1e-4)
    assert table["learning_rate"] == pytest.approx(
        [learning_rate(training.recipe, s) for s in (1, 3, 5)], rel=1e-5
    )
    assert all(1 <= rank <= 8 for rank in table["effective_rank"])
    assert all(value > 0 for name in COLUMNS[4:] for value in table[name])


def test_looking_moves_nothing(tmp_path: Path) -> None:
    """A run with a read-out after every step ends with the weights of one without any."""
    silent, watched = make_training(), make_training()
    list(silent.run())
    torch.manual_seed(1)
    watched = make_training()
    with Reports(watched, tmp_path, every=1) as reports:
        followed(watched, reports)
    for name, value in silent.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name])


def test_a_continued_table_has_no_row_twice(tmp_path: Path) -> None:
    """Rows behind the resumed step go, and half a line that a killed writer left goes too."""
    path, header = tmp_path / "curves.csv", ("step", "a")
    path.write_text("step,a\n1,0.5\n2,0.25\n3,0.1\n4,0.")
    train_reports._begin(path, header, 9)
    assert path.read_text() == "step,a\n1,0.5\n2,0.25\n3,0.1\n"
    train_reports._begin(path, header, 2)
    assert path.read_text() == "step,a\n1,0.5\n2,0.25\n"
    train_reports._begin(tmp_path / "new.csv", header, 0)
    assert (tmp_path / "new.csv").read_text() == "step,a\n"


def test_an_interrupted_stretch_counts_on(tmp_path: Path) -> None:
    """Stopped inside a row and continued, the table is that of one run, alarm included."""
    whole = make_training(steps=7)
    with Reports(whole, tmp_path / "whole", every=3) as reports:
        followed(whole, reports)
    first = make_training(steps=7)
    with Reports(first, tmp_path / "parts", every=3) as reports:
        for losses in first.run():
            reports.step(losses)
            if first.step == 5:
                break
        reports.alarm.seen, reports.alarm.count, reports.alarm.raised = 2, 1, True
        first.save(tmp_path / "state.safetensors", reports.state())
    second = make_training(steps=7)
    state = second.restore(tmp_path / "state.safetensors")
    with Reports(second, tmp_path / "parts", every=3, state=state) as reports:
        assert (reports.alarm.seen, reports.alarm.count, reports.alarm.raised) == (2, 1, True)
        followed(second, reports)
    one, two = (read_table(tmp_path / name / "curves.csv") for name in ("whole", "parts"))
    assert {k: v for k, v in one.items() if k != "windows_per_second"} == {
        k: v for k, v in two.items() if k != "windows_per_second"
    }


def test_the_rate_is_that_of_the_steps_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that was begun before an interruption counts only the steps since, in their time."""
    now = [0.0]
    monkeypatch.setattr(train_reports.time, "monotonic", lambda: now[0])
    training = make_training(steps=4)
    with Reports(training, tmp_path, every=4) as reports:
        for losses in training.run():
            reports.step(losses)
            if training.step == 3:
                break
        training.save(tmp_path / "state.safetensors", reports.state())
    again = make_training(steps=4)
    state = again.restore(tmp_path / "state.safetensors")
    with Reports(again, tmp_path, every=4, state=state) as reports:
        now[0] = 2.0
        followed(again, reports)
    assert read_table(tmp_path / "curves.csv")["windows_per_second"] == [32 / 2]


def test_tensorboard_forgets_what_a_killed_writer_told_too_much(tmp_path: Path) -> None:
    """Continued at step 2, the events behind it count no longer, and none is there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = make_training(steps=4)
    with Reports(training, tmp_path, every=1) as reports:
        for losses in training.run():
            reports.step(losses)
            if training.step == 2:
                training.save(tmp_path / "state.safetensors", reports.state())
    again = make_training(steps=4)
    state = again.restore(tmp_path / "state.safetensors")
    with Reports(again, tmp_path, every=1, state=state) as reports:
        followed(again, reports)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/prediction")
    assert [event.step for event in events] == [1, 2, 3, 4]


def test_weights_and_biases_gets_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If asked for: the same values under the same steps, and the run is closed."""
    logged: list[tuple[int, dict[str, float]]] = []
    run = SimpleNamespace(
        log=lambda values, step: logged.append((step, values)),
        finish=lambda exit_code: logged.append((-1, {"exit": exit_code})),
    )
    training = make_training()
    with Reports(training, tmp_path, every=3, wandb=run) as reports:
        followed(training, reports)
        reports.held_out(Scores(0.5, 2.0))
    assert [step for step, _ in logged] == [3, 6, 6, -1]
    assert logged[0][1].keys() == {f"train/{name}" for name in COLUMNS[1:]}
    assert logged[2][1] == {"held_out/prediction": 0.5, "held_out/regularization": 2.0}
    assert logged[3][1] == {"exit": 0}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        train_reports.need_wandb()


def test_only_sigreg_has_a_floor(tmp_path: Path) -> None:
    """The floor is that of the layer's own rule; another regularizer has none, and no alarm."""
    training = make_training()
    assert Reports(training, tmp_path / "a").floor == pytest.approx(noise_floor())
    training.regularizer = torch.nn.Identity()
    reports = Reports(training, tmp_path / "b")
    assert (reports.floor, reports.alarm) == (None, None)


@pytest.mark.slow
def test_the_alarm_rings_without_sigreg_and_only_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """λ = 0 collapses and the alarm says why and what to do; λ = 0.1 on the same data is silent."""
    for weight, rings in ((0.0, 1), (0.1, 0)):
        training = make_training(weight, steps=110, batch_size=64)
        with Reports(training, tmp_path / str(weight), every=5) as reports:
            followed(training, reports)
        said = capsys.readouterr().out
        assert said.count("COLLAPSE") == rings == reports.alarm.count
        if rings:
            assert "standard deviation 0.0" in said
            assert "weight is 0, so nothing prevents collapse; set weight=" in said


def test_every_kind_of_collapse_is_told_and_told_once() -> None:
    """A point, a line, a far cluster; three read-outs in a row, then silence until it is over."""
    config = Recipe(steps=1000, weight=0.02)
    healthy = torch.randn(4, 128, 16)
    line = torch.randn(4, 128, 1) * torch.randn(16) * 0.5 + 0.01 * healthy
    cases = {
        "near one point": 0.01 * healthy,
        r"fill 1.0 of 16 directions": line,
        "of a single point's": 0.2 * healthy,
    }
    for words, z in cases.items():
        alarm, found = Alarm(config), embedding_report(z, num_proj=64)
        assert alarm.look(50, found) is None
        assert alarm.look(200, found) is None
        assert alarm.look(210, found) is None
        told = alarm.look(220, found)
        assert told is not None
        assert words in told
        assert "Raise weight (now 0.02" in told
        assert alarm.look(230, found) is None
        over = alarm.look(240, embedding_report(healthy, num_proj=64))
        assert over is not None
        assert "spread out again" in over
    alarm = Alarm(config)
    for step in range(200, 400, 10):
        assert alarm.look(step, embedding_report(torch.randn(4, 128, 16), num_proj=64)) is None
