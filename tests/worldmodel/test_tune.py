"""Truths of `worldmodel tune-lambda`: the bisection, what judges a run, and what is left."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from worldmodel.apps import tune
from worldmodel.apps.cli import main
from worldmodel.apps.parsing import complete
from worldmodel.apps.settings import DemoSettings, TrainSettings, TuneSettings
from worldmodel.apps.train import material as train_material
from worldmodel.apps.tune import Trial, bisection, judge, monotone, run_trial, tune_material
from worldmodel.data import Episodes, HDF5Writer, Windows
from worldmodel.data.frames import EpisodeFrames

ROOT = 0.0703


@given(
    root=st.floats(1.001e-3, 0.999),
    evaluations=st.integers(3, 20),
    slope=st.floats(1e-3, 1e3),
)
def test_bisection_encloses_the_root_of_a_monotone_function(
    root: float, evaluations: int, slope: float
) -> None:
    """The root lies in a bracket of the promised width, after the promised number of calls."""
    calls: list[float] = []

    def function(x: float) -> float:
        calls.append(x)
        return slope * (math.log(x) - math.log(root))

    low, high = bisection(function, 1e-3, 1.0, evaluations)
    assert low < root <= high
    assert len(calls) == evaluations == len(set(calls))
    assert calls[:2] == [1e-3, 1.0]
    width = math.log(high / low)
    assert width == pytest.approx(math.log(1000) / 2 ** (evaluations - 2), rel=1e-6)
    assert {low, high} <= set(calls)
    assert monotone({x: math.log(x / root) for x in calls})


def test_a_step_is_found_as_well_as_a_slope() -> None:
    """Only the sign counts: a jump at the root is enclosed as a crossing is."""
    low, high = bisection(lambda x: -0.1 if x < ROOT else 3.0, 1e-3, 1.0, 12)
    assert low < ROOT <= high < 1.01 * low


@pytest.mark.parametrize(("value", "side"), [(-1.0, "above high"), (1.0, "below low")])
def test_a_root_outside_the_range_is_told_with_its_side(value: float, side: str) -> None:
    """Equal signs at both ends end after two calls, and the error says where to look."""
    with pytest.raises(ValueError, match=f"it changes {side}"):
        bisection(lambda _: value, 0.1, 1.0, 5)


def test_a_sign_that_changes_back_is_noticed() -> None:
    """Monotone means: negative up to one point, not negative from there on."""
    assert monotone({0.5: -1.0, 2.0: 3.0, 1.0: -0.1, 4.0: 0.0})
    assert not monotone({0.5: 1.0, 1.0: -1.0, 2.0: 1.0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "low must be below high = 0.1, got 1"),
        ({"low": 0.0}, "low\n  Input should be greater than 0"),
        ({"high": math.inf}, "high\n  Input should be a finite number"),
        ({"runs": 2}, "runs\n  Input should be greater than or equal to 3"),
        ({"windows": 1}, "windows\n  Input should be greater than or equal to 2"),
        ({"preset": "big"}, "preset\n  Input should be 'small', 'lewm' or 'mlp'"),
    ],
)
def test_a_search_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    """A logarithm needs positive ends in order; a bisection needs a point between them."""
    with pytest.raises(ValidationError, match=re.escape(message)):
        TuneSettings(**wrong)


class Oracle(nn.Module):
    """Embeds a frame as given, and predicts by a rule."""

    def __init__(self, embed: Callable[[Tensor], Tensor], rule: str) -> None:
        super().__init__()
        self.embed, self.rule = embed, rule
        self.unused = nn.Parameter(torch.zeros(1))
        self.following = torch.empty(0)

    def encode(self, frames: Tensor) -> Tensor:
        """[B, T, C, H, W] -> [B, T, D]."""
        z = self.embed(frames.double())
        self.following = z[:, 1:]
        return z

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """The next embedding, or the same one."""
        return self.following if self.rule == "knows" else z


def position(frames: Tensor) -> Tensor:
    """Step, last action and episode of the counter world, off a bit so that they vary."""
    return frames[..., 0, 0] / 255


def gaussian(frames: Tensor) -> Tensor:
    """Independent normal numbers, whatever is seen."""
    generator = torch.Generator().manual_seed(int(frames.sum()) % 1000)
    return torch.randn(*frames.shape[:2], 32, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_prediction_is_measured_against_no_change(
    counter_world: Callable[[list[int]], Episodes], scale: float
) -> None:
    """A model that foresees all scores 0, one that foresees no change 1, at any scale."""
    windows = Windows(counter_world([40, 60]))
    index = torch.arange(len(windows))
    for rule, wanted in (("knows", 0.0), ("stands still", 1.0)):
        model: Any = Oracle(lambda frames: scale * position(frames), rule)
        found = judge(model, windows, index)
        assert found["prediction"] == pytest.approx(wanted, abs=1e-6)
        if rule == "knows":
            assert found["error"] == 0


def test_distribution_is_measured_between_gaussian_and_collapse(
    counter_world: Callable[[list[int]], Episodes],
) -> None:
    """Gaussian embeddings score 0 as far as chance allows, a single point scores 1."""
    windows = Windows(counter_world([300] * 3))
    index = torch.arange(len(windows))
    model: Any = Oracle(gaussian, "stands still")
    found = judge(model, windows, index)
    assert abs(found["distribution"]) < 0.01
    assert found["effective_rank"] > 28
    # However few judge: 20 Gaussian samples are on average no worse than 800.
    few = [judge(model, windows, part, seed=i) for i, part in enumerate(index.split(20))]
    assert abs(sum(f["distribution"] for f in few) / len(few)) < 0.02
    point: Any = Oracle(lambda frames: torch.zeros(*frames.shape[:2], 32), "stands still")
    found = judge(point, windows, index)
    assert found["distribution"] == pytest.approx(1.0, abs=1e-4)
    assert found["prediction"] == 1.0
    assert found["effective_rank"] == 0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TuneSettings:
    """A search on few, short and small episodes of the built-in world, with runs of two steps."""
    tiny = partial(DemoSettings, episodes=16, length=30, image_size=16)
    monkeypatch.setattr(tune, "DemoSettings", tiny)
    return TuneSettings(
        steps=2, batch_size=16, num_proj=8, windows=40, out=tmp_path / "t", device="cpu"
    )


def training(settings: TuneSettings) -> TrainSettings:
    """What each short run is told."""
    own = {"out": settings.out, "workers": 0}
    return complete(TrainSettings, "train", settings.common(TrainSettings), own)


@pytest.fixture
def foretold(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of training: shortfalls that meet at ROOT. Returns the list of λ that were tried."""
    tried: list[float] = []

    def trial(_: object, __: object, ___: object, weight: float) -> Trial:
        tried.append(weight)
        along = math.log(weight / ROOT) / 20
        return Trial(
            weight=weight, prediction=0.2 + along, distribution=0.2 - along, gap=2 * along,
            error=0.01, sigreg=3.0, effective_rank=5.0, seconds=1.0,
        )  # fmt: skip

    monkeypatch.setattr(tune, "run_trial", trial)
    return tried


def told(settings: TuneSettings) -> dict[str, Any]:
    """What tune.json holds."""
    content: dict[str, Any] = json.loads((settings.out / "tune.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trial_depends_on_nothing_but_its_weight(small: TuneSettings, precision: str) -> None:
    """The same λ gives the same numbers whatever was run before; another λ gives others."""
    small = small.model_copy(update={"precision": precision})
    train = training(small)
    material = tune_material(small, train)
    judges = torch.arange(40)
    first = run_trial(train, material, judges, 0.05)
    other = run_trial(train, material, judges, 50.0)
    again = run_trial(train, material, judges, 0.05)
    assert first.model_copy(update={"seconds": again.seconds}) == again
    assert other.error != first.error
    assert 0 < first.prediction
    assert 0 < first.distribution <= 1.1


def test_precision_is_that_of_the_long_run(small: TuneSettings) -> None:
    """The short runs and their judgement compute as they are told to."""
    seen = []
    for precision in ("float32", "bfloat16"):
        train = training(small.model_copy(update={"precision": precision}))
        material = tune_material(small, train)
        seen.append(run_trial(train, material, torch.arange(40), 0.05).error)
    assert seen[0] != seen[1]
    assert seen[0] == pytest.approx(seen[1], rel=0.2)


def test_no_episode_both_trains_and_judges(small: TuneSettings) -> None:
    """Training and held-out windows share no row, and actions have one scale."""
    material = tune_material(small, training(small))
    rows = [set(w._starts.tolist()) for w in (material.train, material.held_out)]
    lengths = material.train.episodes.lengths
    assert len(lengths) == 20
    first, second = ({r // int(lengths[0]) for r in part} for part in rows)
    assert first.isdisjoint(second)
    assert (len(first), len(second)) == (16, 4)
    assert material.train.scale is material.held_out.scale


def test_a_source_of_whole_episodes_is_read_once(
    small: TuneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set that gives whole episodes lies in memory: no step decodes any of them again."""
    read: list[int] = []

    def decoded(e: int) -> Any:
        read.append(e)
        return torch.randint(0, 256, (30, 16, 16, 3), dtype=torch.uint8).numpy()

    lengths = torch.full((6,), 30)
    source = Episodes(EpisodeFrames(decoded, lengths, (3, 16, 16)), torch.randn(180, 2), lengths)
    monkeypatch.setattr(train_material, "open_pictures", lambda *_, **__: source)
    settings = small.model_copy(update={"data": str(tmp_path / "videos"), "held_out": 0.4})
    train = training(settings)
    material = tune_material(settings, train)
    run_trial(train, material, torch.arange(10), 0.05)
    assert sorted(read) == list(range(6))


def test_a_search_finds_where_the_shortfalls_meet(
    small: TuneSettings, foretold: list[float]
) -> None:
    """λ is enclosed within a quarter in seven runs; the folder holds every trial and a picture."""
    assert tune.run(small) == 0
    content = told(small)
    found = content["result"]
    assert found["low"] < ROOT <= found["high"] < 1.25 * found["low"]
    assert len(foretold) == 7
    assert {p.name for p in small.out.iterdir()} == {
        "index.html", "tune-lambda.json", "tune.html", "tune.json", "tune.png",
    }  # fmt: skip
    assert [t["weight"] for t in content["trials"]] == foretold
    assert found["weight"] == pytest.approx(math.sqrt(found["low"] * found["high"]))
    assert found["monotone"] is True
    assert content["config"]["steps"] == 2
    with Image.open(small.out / "tune.png") as picture:
        picture.load()


def test_an_interrupted_search_repeats_no_trial(
    tmp_path: Path, small: TuneSettings, foretold: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the folder holds the trials so far, and resuming ends where one search would."""
    whole = small.model_copy(update={"out": tmp_path / "whole"})
    tune.run(whole)
    wanted = list(foretold)
    foretold.clear()
    trial = tune.run_trial

    def interrupted(*given: Any) -> Trial:
        if len(foretold) == 3:
            raise KeyboardInterrupt
        return trial(*given)

    monkeypatch.setattr(tune, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune.run(small)
    content = told(small)
    assert len(content["trials"]) == 3
    assert "result" not in content
    monkeypatch.setattr(tune, "run_trial", trial)
    assert main(["tune-lambda", "--resume", "--out", str(small.out)]) == 0
    assert foretold == wanted
    assert told(small)["result"] == told(whole)["result"]


def test_a_wider_search_keeps_what_is_known(small: TuneSettings, foretold: list[float]) -> None:
    """λ beyond the range is told with its side; a wider range continues with the same folder."""
    with pytest.raises(ValueError, match="it changes above high"):
        tune.run(small.model_copy(update={"high": 1e-2}))
    assert (small.out / "tune.png").is_file()
    tune.run(small.model_copy(update={"low": 1e-2, "runs": 5, "resume": True}))
    found = told(small)["result"]
    assert found["low"] < ROOT <= found["high"]
    assert foretold.count(1e-2) == 1
    assert sorted(t["weight"] for t in told(small)["trials"]) == sorted(foretold)


def test_mistakes_are_told_and_leave_no_folder(
    tmp_path: Path, small: TuneSettings, foretold: list[float]
) -> None:
    """Absent data, a folder in the way or of other settings: one error each."""
    out = small.out
    with pytest.raises(FileNotFoundError, match="no data set at"):
        tune.run(small.model_copy(update={"data": str(tmp_path / "no.h5")}))
    with pytest.raises(FileNotFoundError, match=r"--resume needs a run folder with tune\.json"):
        tune.run(small.model_copy(update={"resume": True}))
    assert not out.exists()
    tune.run(small)
    with pytest.raises(FileExistsError, match=r"must not exist yet, got .*add --resume"):
        tune.run(small)
    other = small.model_copy(update={"steps": 3, "resume": True})
    with pytest.raises(ValueError, match="must keep the run's settings, got steps 2 → 3"):
        tune.run(other)
    (out / "tune.json").write_text('{"config": {}, "trials": [{}]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tune\.json is no record of a search: trials\.0\.weight"):
        tune.run(small.model_copy(update={"resume": True}))


def test_the_command_searches_a_file_and_says_what_it_found(
    tmp_path: Path, foretold: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run is one line, λ with its range the last but one; mistakes end with status 2."""
    pytest.importorskip("h5py", reason="h5py is not installed")
    data, out = tmp_path / "a.h5", tmp_path / "t"
    with HDF5Writer(data) as file:
        for _ in range(3):
            frames = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
            file.write(frames.numpy(), torch.randn(39, 2).numpy())
    words = ["tune-lambda", "--data", str(data), "--out", str(out), "--steps", "2"]
    words += ["--batch-size", "8", "--runs", "5", "--held-out", "0.4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("run ") == 5
    assert "run 1 of 5  λ 0.001" in said
    assert "judged on 21 held-out ones" in said
    assert "\n  λ = 0.0487   (between 0.0316 and 0.075)\n" in said
    assert json.loads((out / "tune.json").read_text("utf-8"))["config"]["data"] == str(data)
    assert main(words) == 2
    assert "worldmodel tune-lambda: error: --out must not exist" in capsys.readouterr().err
    for wrong in (["--low", "0"], ["--runs", "0"], ["--device", "abacus"], ["--high", "x"]):
        assert main([*words, "--out", str(tmp_path / "u"), *wrong]) == 2
        assert f"{wrong[0]} must" in capsys.readouterr().err
