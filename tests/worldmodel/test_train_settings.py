"""Settings of a run: published defaults, four sources in order, and mistakes in one line."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from worldmodel.apps.train import command as train_command
from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.settings import (
    TrainSettings,
    device_of,
    parse_pairs,
    precision_of,
    read_settings_file,
)


def told(*words: str) -> TrainSettings:
    """The settings that a command line means."""
    parser = argparse.ArgumentParser()
    train_command.add_parser(parser.add_subparsers())
    return train_command._settings(parser.parse_args(["train", "--out", "run", *words]))


def test_the_published_recipe_is_the_default_of_lewm() -> None:
    """AdamW 5e-5, decay 1e-3, clip 1, 1 % warm-up, batch 128, λ 0.09, 4 frames 5 apart."""
    settings = told("--data", "x", "--preset", "lewm")
    recipe = TrainConfig(steps=7)
    assert asdict(settings.training(7, "float32")) == asdict(recipe)
    assert (settings.num_frames, settings.frameskip, settings.precision) == (4, 5, "auto")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.clip) == (5e-5, 1e-3, 1.0)
    assert (recipe.warmup, recipe.batch_size, recipe.weight) == (0.01, 128, 0.09)


def test_later_sources_win(tmp_path: Path) -> None:
    """Preset, then file, then flag, then key=value; arguments of a part are merged one by one."""
    file = tmp_path / "settings.json"
    values: dict[str, Any] = {"clip": 2, "seed": 5, "weight": 0.3, "warmup": 0.2}
    file.write_text(json.dumps(values | {"model": {"predictor": {"depth": 3, "heads": 2}}}))
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
    assert TrainSettings.of(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=a", "steps must be a whole number or none, got 'a'"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("batch_size=1.5", "batch_size must be a whole number, got 1.5"),
        ("weight=-1", "weight must be finite and not negative, got -1.0"),
        ("weight=nan", "weight must be finite and not negative, got nan"),
        ("held_out=1", "held_out must be between 0 and 1, got 1.0"),
        ("num_frames=1", "num_frames must be at least 2, a frame and the next, got 1"),
        ("frameskip=0", "frameskip must be at least 1, got 0"),
        ("workers=-1", "workers must not be negative, got -1"),
        ("report_every=0", "report_every must be at least 1, got 0"),
        ("precision=half", "precision must be auto, float32 or bfloat16, got 'half'"),
        ("preset=big", "preset must be one of small, lewm, got 'big'"),
        ("wandb=1", "wandb must be true or false, got 1"),
        ("colour=red", "there is no setting 'colour'; known are action, batch_size"),
        ("weight", "settings must be key=value, or part.key=value with part one of encoder"),
        ("decoder.dim=3", "settings must be key=value, or part.key=value with part one of encoder"),
        ("model=3", "model must hold arguments of encoder, action_encoder, predictor"),
    ],
)
def test_a_mistake_names_the_setting(word: str, message: str) -> None:
    """Setting, rule, and what came."""
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        told("--data", "x", word)


def test_a_settings_file_is_named_when_it_is_none(tmp_path: Path) -> None:
    """Absent, not JSON, and JSON that holds no names."""
    path = tmp_path / "settings.json"
    with pytest.raises(FileNotFoundError, match=r"--config must be a file, got .*settings\.json"):
        read_settings_file(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is not JSON"):
        read_settings_file(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"settings\.json must hold settings by name, got list"):
        read_settings_file(path)
    with pytest.raises(ValueError, match="--data must name a data set"):
        told()


def test_words_become_numbers_only_where_numbers_belong() -> None:
    """A column may be called 123; an argument of a part is a number if it looks like one."""
    values = parse_pairs(["learning-rate=1e-4", "encoder.mlp_dim=none", "predictor.dropout=0"])
    assert values == {
        "learning_rate": "1e-4",
        "model": {"encoder": {"mlp_dim": None}, "predictor": {"dropout": 0}},
    }
    assert TrainSettings.of({"data": "x", "learning_rate": "1e-4"}).learning_rate == 1e-4


def test_device_and_precision_are_what_the_machine_has() -> None:
    """auto never asks a CPU for bfloat16; a device that is not there is refused with the reason."""
    assert precision_of("auto", "cpu") == "float32"
    assert precision_of("bfloat16", "cpu") == "bfloat16"
    assert device_of("cpu") == "cpu"
    with pytest.raises(ValueError, match="device must be a device torch can use, got 'meta'"):
        device_of("meta")


def test_the_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag for each, with both defaults where the presets differ, and examples."""
    parser = argparse.ArgumentParser()
    train_command.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in TrainSettings.__dataclass_fields__:
        assert name == "model" or f"--{name.replace('_', '-')}" in text
    assert "(default: 0.05 for small, 0.09 for lewm)" in text
    assert "torchrun --nproc-per-node" in text


def test_an_objective_brings_its_own_defaults_and_yields_to_what_is_given() -> None:
    """PLDM's terms count in full, a cloned policy has none and looks six frames far."""
    pldm = TrainSettings.of({"data": "a.h5", "objective": "pldm"})
    assert (pldm.weight, pldm.num_frames) == (1.0, 4)
    gcbc = TrainSettings.of({"data": "a.h5", "objective": "gcbc", "preset": "lewm"})
    assert (gcbc.weight, gcbc.num_frames, gcbc.batch_size) == (0.0, 6, 128)
    given = TrainSettings.of({"data": "a.h5", "objective": "pldm", "weight": 0.5})
    assert given.weight == 0.5
    assert TrainSettings.of({"data": "a.h5"}).weight == 0.05
