"""The main job in small: every file, every figure, and a run that survives whatever ends it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from worldmodel import load
from worldmodel.apps import demo
from worldmodel.apps.cli import main
from worldmodel.apps.demo import gather, run, seed_for
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import DemoSettings, PlannerSettings
from worldmodel.apps.train.loop import NonFiniteError, Training, read_state
from worldmodel.apps.train.reports import read_table
from worldmodel.worlds import TwoRoom, collect

TINY = DemoSettings(
    steps=4, episodes=12, length=30, held_out=10, pairs=6, budget=10, image_size=16, dim=8,
    batch_size=16, num_proj=8, device="cpu",
)  # fmt: skip
WORDS = [
    f"--{name.replace('_', '-')}={value}"
    for name, value in TINY.model_dump(exclude_defaults=True).items()
]
FILES = {
    "checkpoints", "config.json", "curves.csv", "curves.png", "demo.html", "demo.json",
    "episodes.gif", "episodes.json", "held_out.csv", "index.html", "latent.png",
    "metric.safetensors", "model.safetensors", "report.json", "tensorboard", "train.json",
}  # fmt: skip
FIGURES = ("success_rate", "random_success_rate", "probe_r2", "mean_start_goal_distance", "sigreg")


def at(out: Path, **changes: Any) -> DemoSettings:
    """The tiny demo in a folder."""
    return TINY.model_copy(update={"out": out, **changes})


def report_of(out: Path) -> dict[str, Any]:
    """What report.json holds."""
    content: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run with its ablation."""
    out = tmp_path_factory.mktemp("demo") / "run"
    assert run(at(out, ablate=True)) == 0
    return out


def same_end(one: Path, two: Path) -> bool:
    """Whether two runs ended with the same weights, tables and figures."""
    weights = [(out / "model.safetensors").read_bytes() for out in (one, two)]
    curves = [(out / "held_out.csv").read_bytes() for out in (one, two)]
    figures = [{name: report_of(out)[name] for name in FIGURES} for out in (one, two)]
    return all(a == b for a, b in (weights, curves, figures))


def test_a_run_leaves_all_files_and_no_temporary_ones(whole: Path) -> None:
    """The folder holds what the help says and nothing more; pictures can be opened."""
    assert {p.name for p in whole.iterdir()} == FILES | {"without-sigreg"}
    for name in ("curves.png", "episodes.gif", "latent.png"):
        with Image.open(whole / name) as image:
            image.load()


def test_the_report_holds_every_figure(whole: Path) -> None:
    """Rates, interval, probes, losses, seconds by phase, seed, versions and commit."""
    report = report_of(whole)
    low, high = report["success_interval"]
    assert 0 <= low <= report["success_rate"] <= high <= 1
    assert 0 <= report["random_success_rate"] <= 1
    assert report["episodes"] == 6
    assert report["planner"]["name"] == "icem"
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
    assert (report["seed"], report["config"]["steps"]) == (0, 4)
    assert report["versions"]["torch"] == torch.__version__
    assert "sigreg" in report["versions"]
    assert "git_commit" in report
    assert report["ablation"]["weight"] == 0
    assert report["ablation"]["embedding_std"] > 0


def test_the_saved_model_loads_and_encodes(whole: Path) -> None:
    """`load` gives the trained model back from the run folder alone."""
    model = load(whole).eval()
    assert model.encode(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 1, 8)


def test_the_curves_have_a_row_for_each_step(whole: Path) -> None:
    """Four steps, four rows, and the last agrees with the report."""
    table = read_table(whole / "curves.csv")
    assert table["step"] == [1, 2, 3, 4]
    report = report_of(whole)
    assert table["prediction"][-1] == pytest.approx(report["pred_loss"], rel=1e-3)
    assert table["regularization"][-1] == pytest.approx(report["sigreg"], rel=1e-3)


def test_it_learns_from_what_data_collect_writes() -> None:
    """Episodes in memory are the walks of the demo's seed; held-out walkers never bump."""
    material = gather(TINY)
    for episodes, purpose, num, bump in (
        (material.seen, "train", 12, 0.4), (material.unseen, "held out", 10, 0.0),
    ):  # fmt: skip
        wanted = collect(TwoRoom(16), num, 30, seed_for(TINY, purpose), bump=bump)
        states, actions = (x.unflatten(0, (num, 31)) for x in (episodes.states, episodes.actions))
        assert (states.numpy() == wanted.states).all()
        assert (actions[:, :-1].numpy() == wanted.actions).all()
        frames = TwoRoom(16).render(wanted.states.reshape(-1, 2))
        assert torch.equal(episodes.frames, torch.from_numpy(frames))


def test_its_planner_imagines_no_more_than_the_default() -> None:
    """What the demo plans with was chosen among planners of equal cost."""
    assert (demo.PLANNER.planner, demo.PLANNER.horizon) == ("icem", 7)
    mine, usual = demo.PLANNER, PlannerSettings()
    assert math.prod(mine.budget) * mine.horizon <= math.prod(usual.budget) * usual.horizon


def test_it_plans_in_units_of_a_block(whole: Path, tmp_path: Path) -> None:
    """Distances have the run's metric, and are plain where embeddings do not change at all."""
    trained = open_run(whole)
    assert demo.planner_of(trained) == demo.PLANNER.model_copy(update={"metric": "mahalanobis"})
    assert demo.planner_of(trained._replace(folder=tmp_path)) == demo.PLANNER


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_has_seeds_of_its_own(seed: int) -> None:
    """One per purpose, all of them seeds again."""
    settings = TINY.model_copy(update={"seed": seed})
    seeds = {seed_for(settings, p) for p in ("train", "held out", "pairs", "probe")}
    assert len(seeds) == 4
    assert all(0 <= one < 2**63 for one in seeds)


@pytest.mark.parametrize("phase", ["gather", "train", "study", "evaluate", "write_film"])
def test_interrupted_in_any_phase_it_continues_to_the_same_end(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], phase: str,
) -> None:  # fmt: skip
    """Ctrl-C before each phase: the command that is printed, typed as it is, ends the run."""
    out = tmp_path / "run"

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, phase, stop)
    assert main(["demo", *WORDS, "--out", str(out)]) == 130
    said = capsys.readouterr().out
    monkeypatch.undo()
    if phase in ("gather", "train"):
        # Nothing was learned yet, so nothing stays.
        assert "nothing was kept" in said
        assert not out.exists()
        return
    again = said.split("continue with: ")[1].splitlines()[0].split()
    assert again[:3] == ["worldmodel", "demo", "--resume"]
    assert main(again[1:]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    assert same_end(out, whole)


def test_interrupted_in_training_it_continues_to_the_same_end(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Ctrl-C inside step 2: the step is finished and kept, and other settings are refused."""
    out, advance = tmp_path / "run", Training._advance

    def interrupted(self: Training, batch: Any) -> Any:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return advance(self, batch)

    monkeypatch.setattr(Training, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(at(out))
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match=r"--out must not exist yet.*add --resume"):
        run(at(out))
    with pytest.raises(ValueError, match=r"--resume must keep the run's settings, got steps 4 → 5"):
        run(at(out, steps=5, resume=True))
    assert main(["demo", "--resume", "--out", str(out)]) == 0
    assert "resumed at step 2 of 4" in capsys.readouterr().out
    assert same_end(out, whole)
    with pytest.raises(FileExistsError, match=r"needs an unfinished run, got .* report\.json"):
        run(at(out, resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("words", ["train  1/4 steps", "probe took", "pictures:"])
def test_killed_in_any_phase_it_continues_to_the_same_end(
    whole: Path, tmp_path: Path, number: signal.Signals, words: str
) -> None:
    """kill -9 and SIGTERM once the phase has begun; --resume asks for no other word."""
    out = tmp_path / "run"
    command_line = [sys.executable, "-m", "worldmodel", "demo", *WORDS, "--out", str(out)]
    with subprocess.Popen(
        command_line, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(words):
                break
        time.sleep(0.05)
        process.send_signal(number)
        process.communicate()
    assert process.returncode in (-number, 130)
    if (out / "report.json").exists():
        pytest.skip("it was quicker than the signal")
    assert main(["demo", "--resume", "--out", str(out)]) == 0
    assert same_end(out, whole)


def test_a_folder_that_never_ran_is_named(tmp_path: Path) -> None:
    """Resuming needs demo.json, and one that is whole."""
    with pytest.raises(FileNotFoundError, match=r"needs a run folder with demo\.json"):
        run(at(tmp_path / "nowhere", resume=True))
    (tmp_path / "demo.json").write_text('{"seed": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"demo\.json is damaged"):
        run(at(tmp_path, resume=True))


def test_a_diverging_run_stops_and_says_where(tmp_path: Path) -> None:
    """An absurd learning rate ends in an error that names the step, not in a report.

    The state before that step is kept, batch statistics and all: every value is finite.
    """
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=r"stopped at step \d+ of 20: .* is not finite on"):
        run(at(out, steps=20, learning_rate=1e30, warmup=0.0))
    assert not (out / "report.json").exists()
    (state,) = (out / "checkpoints").iterdir()
    tensors, words = read_state(state)
    assert 0 < int(words["step"]) < 20
    assert all(bool(value.isfinite().all()) for value in tensors.values())
