"""The main job in small: every file, every figure, and a run that survives Ctrl-C."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from worldmodel import load
from worldmodel.apps.demo.run import DemoConfig, run_demo
from worldmodel.apps.train import loop as train
from worldmodel.apps.train.loop import NonFiniteError
from worldmodel.apps.train.state import read_state

TINY = DemoConfig(
    steps=4, episodes=12, length=30, held_out=10, pairs=6, budget=10, image_size=16, dim=8,
    batch_size=16, num_proj=8,
)  # fmt: skip
FILES = {
    "config.json", "curves.csv", "curves.png", "demo.json", "episodes.gif", "episodes.json",
    "latent.png",
    "model.safetensors", "report.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run with its ablation."""
    out = tmp_path_factory.mktemp("demo") / "run"
    run_demo(TINY, out, ablate=True)
    return out


def test_a_run_leaves_all_files_and_no_temporary_ones(whole: Path) -> None:
    """The folder holds what the help says and nothing more; pictures can be opened."""
    assert {p.name for p in whole.iterdir()} == FILES
    for name in ("curves.png", "episodes.gif", "latent.png"):
        with Image.open(whole / name) as image:
            image.load()


def test_the_report_holds_every_figure(whole: Path) -> None:
    """Rates, interval, probes, losses, seconds by phase, seed, versions and commit."""
    report = json.loads((whole / "report.json").read_text())
    low, high = report["success_interval"]
    assert 0 <= low <= report["success_rate"] <= high <= 1
    assert 0 <= report["random_success_rate"] <= 1
    assert report["episodes"] == 6
    for probe in ("linear", "mlp"):
        assert set(report["probe_r2"][probe]) == {"x", "y"}
    for rate in ("same_room_success_rate", "cross_room_success_rate"):
        assert report[rate] is None or 0 <= report[rate] <= 1
    assert report["mean_start_goal_distance"] > 1
    assert report["pred_loss"] > 0
    assert report["sigreg"] > 0
    assert report["sigreg_floor"] == pytest.approx(1.0525, abs=1e-3)
    seconds = dict(report["wall_seconds"])
    assert {"collect", "train", "probe", "plan", "pictures", "total"} <= set(seconds)
    total = seconds.pop("total")
    assert total == pytest.approx(sum(seconds.values()), abs=0.02)
    assert report["seed"] == 0
    assert report["versions"]["torch"] == torch.__version__
    assert "sigreg" in report["versions"]
    assert "git_commit" in report
    assert report["ablation"]["weight"] == 0


def test_the_saved_model_loads_and_encodes(whole: Path) -> None:
    """`load` gives the trained model back from the run folder alone."""
    model = load(whole).eval()
    assert model.encode(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 1, 8)


def test_the_curves_have_a_row_for_each_step(whole: Path) -> None:
    """Four steps, four rows, all finite, and the last agrees with the report."""
    rows = [r.split(",") for r in (whole / "curves.csv").read_text().splitlines()]
    assert rows[0] == ["step", "prediction", "sigreg"]
    assert [int(r[0]) for r in rows[1:]] == [1, 2, 3, 4]
    report = json.loads((whole / "report.json").read_text())
    assert float(rows[-1][1]) == pytest.approx(report["pred_loss"], rel=1e-3)


def test_an_interrupted_run_resumes_to_the_same_end(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C inside step 2 leaves a readable folder; going on gives the same weights and rates."""
    out, calls, loss = tmp_path / "run", [0], train.jepa_loss

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return loss(*args)

    monkeypatch.setattr(train, "jepa_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_demo(TINY, out)
    monkeypatch.undo()
    assert {p.name for p in out.iterdir()} == {"curves.csv", "demo.json", "training.safetensors"}
    assert json.loads((out / "demo.json").read_text())["steps"] == 4
    assert len((out / "curves.csv").read_text().splitlines()) == 3
    with pytest.raises(FileExistsError, match=r"--out must not exist yet.*add --resume"):
        run_demo(TINY, out)
    with pytest.raises(ValueError, match=r"--resume must keep the run's settings, got steps 4 → 5"):
        run_demo(replace(TINY, steps=5), out, resume=True)
    run_demo(TINY, out, resume=True)
    assert {p.name for p in out.iterdir()} == FILES
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (out / "curves.csv").read_text() == (whole / "curves.csv").read_text()
    one, two = (json.loads((o / "report.json").read_text()) for o in (out, whole))
    for key in ("success_rate", "random_success_rate", "probe_r2", "mean_start_goal_distance"):
        assert one[key] == two[key]


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    """Resuming needs an unfinished run; a folder that never ran is named too."""
    with pytest.raises(FileExistsError, match=r"needs an unfinished run, got .* report\.json"):
        run_demo(TINY, whole, resume=True)
    with pytest.raises(FileNotFoundError, match=r"needs a run folder with demo\.json"):
        run_demo(TINY, whole / "nowhere", resume=True)


def test_a_damaged_settings_file_is_named(tmp_path: Path) -> None:
    """Half a demo.json is told from a folder of another run."""
    (tmp_path / "demo.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"demo\.json is damaged"):
        run_demo(TINY, tmp_path, resume=True)


def test_a_diverging_run_stops_and_says_where(tmp_path: Path) -> None:
    """An absurd learning rate ends in an error that names the step, not in a report.

    The state before that step is kept, batch statistics and all: every value is finite.
    """
    config = replace(TINY, steps=20, learning_rate=1e30, warmup=0.0)
    with pytest.raises(NonFiniteError, match=r"stopped at step \d+ of 20: .* is not finite on"):
        run_demo(config, tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
    tensors, words = read_state(tmp_path / "run" / "training.safetensors")
    assert 0 < int(words["step"]) < 20
    assert all(bool(value.isfinite().all()) for value in tensors.values())
