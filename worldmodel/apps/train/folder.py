"""The folder of a training run: when it may be made or gone on with, and what it says first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel._files import write_atomically
from worldmodel.apps.runs import EPISODES
from worldmodel.apps.train.material import TrainMaterial
from worldmodel.apps.train.settings import FREE, TrainSettings

__all__ = ["REPORT", "SETTINGS", "begin", "check_data", "check_folder", "settings_of"]

SETTINGS = "train.json"
REPORT = "report.json"


def check_folder(settings: TrainSettings, out: Path, *, resume: bool) -> None:
    """Refuse a folder that a run cannot begin in, or go on in with these settings.

    Raises: FileExistsError, FileNotFoundError or ValueError, with what to do instead.
    """
    path = out / SETTINGS
    if not resume:
        if out.exists():
            unfinished = path.exists() and not (out / REPORT).exists()
            remedy = "add --resume to go on with it, or " if unfinished else ""
            raise FileExistsError(
                f"--out must not exist yet, got {out}: {remedy}choose another folder"
            )
        return
    if not path.is_file():
        raise FileNotFoundError(f"--resume needs a run folder with {SETTINGS}, got {out}")
    if (out / REPORT).exists():
        raise FileExistsError(f"--resume needs an unfinished run, got {out} with its {REPORT}")
    before = settings_of(out).to_json()
    changed = [
        f"{name} {before[name]} → {value}"
        for name, value in settings.to_json().items()
        if name not in FREE and value != before[name] and not _resolved(name, value)
    ]
    if changed:
        raise ValueError(f"--resume must keep the run's settings, got {', '.join(changed)}")


def _resolved(name: str, value: Any) -> bool:
    """Whether a setting leaves to the run what train.json has already decided."""
    return (name, value) in (("steps", None), ("precision", "auto"))


def settings_of(out: Path) -> TrainSettings:
    """The settings a run folder was begun with.

    Raises: ValueError naming train.json if it is damaged.
    """
    path = out / SETTINGS
    try:
        values: Mapping[str, Any] = json.loads(path.read_text())
        return TrainSettings.of(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def check_data(material: TrainMaterial, out: Path) -> None:
    """Refuse to go on with other episodes than the folder names.

    Raises: ValueError naming episodes.json.
    """
    path = out / EPISODES
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text())["train"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if before != material.trained_on:
        raise ValueError(f"--resume must train on the same episodes, got others than {path} names")


def begin(settings: TrainSettings, material: TrainMaterial, out: Path, *, resume: bool) -> None:
    """Make the folder and write what is decided before the first step.

    Raises: OSError naming the folder or the file.
    """
    try:
        out.mkdir(parents=True, exist_ok=resume)
    except OSError as error:
        raise OSError(
            f"--out must be a folder that can be made, got {out}: {error.strerror}"
        ) from error
    text = json.dumps(settings.to_json(), indent=2) + "\n"
    write_atomically(out / SETTINGS, text.encode())
    names = {"train": material.trained_on, "held_out": material.kept_apart}
    write_atomically(out / EPISODES, json.dumps(names).encode() + b"\n")
