"""Settings of a run: published defaults, four sources in order, and mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from worldmodel.apps.machine import device_of, precision_of
from worldmodel.apps.parsing import complete, parse, read_settings
from worldmodel.apps.settings import DemoSettings, Recipe, TrainSettings, TuneSettings


def told(*words: str) -> TrainSettings:
    """The settings that a command line means."""
    return parse(TrainSettings, "train", ["--out", "run", *words])


def of(**values: Any) -> TrainSettings:
    """The settings that some named values mean."""
    return complete(TrainSettings, "train", {"data": "a.h5", "out": "run"} | values)


def test_the_published_recipe_is_the_default_of_lewm() -> None:
    """AdamW 5e-5, decay 1e-3, clip 1, 1 % warm-up, batch 128, λ 0.09, 4 frames 5 apart."""
    settings, recipe = told("--data", "x", "--preset", "lewm"), Recipe()
    assert {n: getattr(settings, n) for n in Recipe.model_fields} == recipe.model_dump() | {
        "config": None, "debug": False,
    }  # fmt: skip
    assert (settings.num_frames, settings.frameskip, settings.precision) == (4, 5, "auto")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.clip) == (5e-5, 1e-3, 1.0)
    assert (recipe.warmup, recipe.batch_size, recipe.weight) == (0.01, 128, 0.09)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_later_sources_win(tmp_path: Path, suffix: str) -> None:
    """Preset, then file, then flag, then key=value; arguments of a part are merged one by one."""
    file = tmp_path / f"settings.{suffix}"
    values: dict[str, Any] = {"clip": 2, "seed": 5, "weight": 0.3, "warmup": 0.2}
    # JSON is YAML too.
    text = json.dumps(values | {"model": {"predictor": {"depth": 3, "heads": 2}}})
    file.write_text(text, encoding="utf-8")
    settings = told(
        "--data", "x", "--config", str(file), "--seed", "6", "--weight", "0.4",
        "weight=0.5", "predictor.depth=4", "encoder.dim=8",
    )  # fmt: skip
    assert (settings.preset, settings.batch_size) == ("small", 64)
    assert (settings.clip, settings.warmup) == (2.0, 0.2)
    assert (settings.seed, settings.weight) == (6, 0.5)
    assert settings.model == {"predictor": {"depth": 4, "heads": 2}, "encoder": {"dim": 8}}


def test_settings_come_back_from_their_own_file() -> None:
    """Every value survives train.json."""
    settings = told("--data", "x", "steps=none", "wandb=true", "world=two-room", "pixels=123")
    assert (settings.steps, settings.wandb, settings.pixels) == (None, True, "123")
    again = json.loads(settings.model_dump_json())
    assert complete(TrainSettings, "train", again, {"out": "run"}) == settings


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """train.json and demo.json as the first release wrote them: the same names, "model" nested."""
    path = tmp_path / "train.json"
    path.write_text(json.dumps({
        "data": "walks.h5", "preset": "small", "objective": "lewm", "steps": 600, "batch_size": 64,
        "seed": 0, "learning_rate": 0.001, "weight": 0.05, "weight_decay": 0.001, "clip": 1.0,
        "warmup": 0.1, "num_proj": 256, "precision": "float32", "num_frames": 4, "frameskip": 5,
        "held_out": 0.1, "held_out_windows": 512, "checkpoint_every": 1000, "report_every": None,
        "world": None, "pixels": None, "action": None, "device": "auto", "workers": 1,
        "sharded": False, "wandb": False, "model": {"predictor": {"dropout": 0.0}},
    }), encoding="utf-8")  # fmt: skip
    settings = told("--config", str(path), "--seed", "1")
    assert (settings.seed, settings.steps, settings.schedule_from) == (1, 600, 0)
    assert settings.model == {"predictor": {"dropout": 0.0}}
    demo = {
        "seed": 3, "steps": 600, "episodes": 800, "length": 80, "bump": 0.4, "held_out": 200,
        "pairs": 200, "offset": 25, "budget": 50, "frameskip": 5, "image_size": 64, "dim": 64,
        "batch_size": 64, "learning_rate": 0.001, "weight": 0.05, "warmup": 0.1, "num_proj": 256,
        "device": "cpu",
    }  # fmt: skip
    assert complete(DemoSettings, "demo", demo) == DemoSettings(seed=3, device="cpu")


def test_what_commands_share_goes_by_name() -> None:
    """Demo and search hand on what they have in common with train, and nothing else."""
    shared = TuneSettings(batch_size=32).common(TrainSettings)
    assert shared["batch_size"] == 32
    assert {"out", "resume", "runs", "windows"}.isdisjoint(shared)
    assert of(**shared, weight=0.2).learning_rate == TuneSettings().learning_rate


def test_paths_are_absolute_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists is kept from its root on, links and all; the id of a data set stays a word."""
    (tmp_path / "walks.h5").write_bytes(b"")
    (tmp_path / "link.h5").symlink_to(tmp_path / "walks.h5")
    monkeypatch.chdir(tmp_path)
    assert told("--data", "walks.h5").data == str(tmp_path / "walks.h5")
    assert told("--data", "./link.h5").data == str(tmp_path / "link.h5")
    assert told("--data", "D4RL/door/human-v2").data == "D4RL/door/human-v2"
    (tmp_path / "two-room").mkdir()
    assert parse(TuneSettings, "tune-lambda", []).data == "two-room"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=a", '--steps must be a valid integer, got "a"'),
        ("steps=0", '--steps must be greater than or equal to 1, got "0"'),
        ("batch_size=1.5", '--batch-size must be a valid integer, got "1.5"'),
        ("weight=-1", '--weight must be greater than or equal to 0, got "-1"'),
        ("weight=nan", "--weight must be"),
        ("held_out=1", '--held-out must be less than 1, got "1"'),
        ("num_frames=1", '--num-frames must be greater than or equal to 2, got "1"'),
        ("frameskip=0", '--frameskip must be greater than or equal to 1, got "0"'),
        ("workers=-1", '--workers must be greater than or equal to 0, got "-1"'),
        ("report_every=0", '--report-every must be greater than or equal to 1, got "0"'),
        (
            "precision=half",
            "--precision must be 'auto', 'float32', 'tf32' or 'bfloat16', got \"half\"",
        ),
        ("preset=big", "--preset must be 'small', 'lewm' or 'mlp', got \"big\""),
        ("seed=9223372036854775808", "--seed must be less than 9223372036854775808, got"),
        ("wandb=maybe", '--wandb must be a valid boolean, got "maybe"'),
        (
            "colour=red",
            "there is no setting 'colour'; the settings are accumulate, action, augment",
        ),
        ("decoder.dim=3", "settings must be key=value, or part.key=value with part one of encoder"),
        ("augment.shift=0.5", "augment.shift must be whole pixels, got 0.5"),
        ("augment.contrast=2", "augment.contrast and brightness must be at most 1, got 2"),
        ("augment.blur=1", "augment.blur must be 'shift', 'contrast' or 'brightness'"),
        ("accumulate=0", '--accumulate must be greater than or equal to 1, got "0"'),
        ("model=3", "--model must be a valid dictionary"),
    ],
)
def test_a_mistake_names_the_setting(word: str, message: str) -> None:
    """Setting, rule, and what came."""
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        told("--data", "x", word)


def test_a_table_as_an_option_takes_names_and_values() -> None:
    """A word that is no name=value is a mistake in the project's own words."""
    assert told("--data", "x", "--augment", "shift=2").augment == {"shift": 2}
    with pytest.raises(ValueError, match=r"^--augment must be name=value$"):
        told("--data", "x", "--augment", "nonsense")


def test_a_preset_that_is_no_word_is_refused_like_any_other() -> None:
    """A file may hold a list where a name belongs."""
    with pytest.raises(ValueError, match=r"^--preset must be 'small', 'lewm' or 'mlp', got"):
        of(preset=["small"])


def test_a_settings_file_is_named_when_it_is_none(tmp_path: Path) -> None:
    """Absent, not JSON, and JSON that holds no names."""
    path = tmp_path / "settings.json"
    with pytest.raises(FileNotFoundError, match=r"--config must be a file, got .*settings\.json"):
        read_settings(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings\.json is not JSON"):
        read_settings(path)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings\.json must hold settings by name, got list"):
        read_settings(path)
    with pytest.raises(ValueError, match="--data must be given"):
        told()


def test_words_become_numbers_only_where_numbers_belong() -> None:
    """A column may be called 123; an argument of a part is a number if it looks like one."""
    settings = told(
        "--data", "x", "learning-rate=1e-4", "pixels=123", "encoder.mlp_dim=none",
        "predictor.dropout=0",
    )  # fmt: skip
    assert (settings.learning_rate, settings.pixels) == (1e-4, "123")
    assert settings.model == {"encoder": {"mlp_dim": None}, "predictor": {"dropout": 0}}


def test_device_and_precision_are_what_the_machine_has() -> None:
    """auto never asks a CPU for bfloat16; a device that is not there is refused with the reason."""
    assert precision_of("auto", "cpu") == "float32"
    assert precision_of("bfloat16", "cpu") == "bfloat16"
    assert device_of("cpu") == "cpu"
    with pytest.raises(ValueError, match="precision tf32 needs a GPU by CUDA, got device cpu"):
        precision_of("tf32", "cpu")
    with pytest.raises(ValueError, match="--device must be a device torch can use, got 'meta'"):
        device_of("meta")


def test_the_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag for each, with the defaults of the preset that is chosen, and examples."""
    for preset, weight in (("small", "0.05"), ("lewm", "0.09")):
        with pytest.raises(SystemExit):
            told("--preset", preset, "--help")
        text = " ".join(capsys.readouterr().out.split())
        for name in TrainSettings.model_fields:
            flag = f"--{name.replace('_', '-')}"
            assert (flag in text) == (name != "schedule_from")
        assert f"gcbc: 0 (default: {weight})" in text
        assert "torchrun --nproc-per-node" in text


def test_an_objective_brings_its_own_defaults_and_yields_to_what_is_given() -> None:
    """PLDM's terms count in full, a cloned policy has none and looks six frames far."""
    assert (of(objective="pldm").weight, of(objective="pldm").num_frames) == (1.0, 4)
    gcbc = of(objective="gcbc", preset="lewm")
    assert (gcbc.weight, gcbc.num_frames, gcbc.batch_size) == (0.0, 6, 128)
    assert of(objective="pldm", weight=0.5).weight == 0.5
    assert of().weight == 0.05


def test_a_continued_run_keeps_its_settings_wherever_its_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a flag, by key=value, or by the default of the command."""
    monkeypatch.chdir(tmp_path)
    for out, words in (("run", ["--out", "run"]), ("other", ["out=other"])):
        Path(out).mkdir()
        values = of(steps=7).model_dump_json()
        (tmp_path / out / "train.json").write_text(values, encoding="utf-8")
        for resume in ("--resume", "resume=true", "resume=1"):
            assert parse(TrainSettings, "train", [resume, *words]).steps == 7
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    text = DemoSettings(seed=5).model_dump_json()
    (tmp_path / "runs" / "demo" / "demo.json").write_text(text, encoding="utf-8")
    assert parse(DemoSettings, "demo", ["--resume"]).seed == 5
    assert parse(DemoSettings, "demo", ["--resume", "--seed", "6"]).seed == 6
