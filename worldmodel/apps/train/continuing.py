"""What a run that is continued must keep, and what may be changed."""

from __future__ import annotations

import json
from pathlib import Path

from worldmodel.apps.parsing import check_kept, kept_settings
from worldmodel.apps.runs import EPISODES
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train.material import TrainMaterial
from worldmodel.data.hdf5_writer import read_origin

__all__ = ["REPORT", "SETTINGS", "check_episodes", "continued"]

SETTINGS = "train.json"
REPORT = "report.json"


def continued(settings: TrainSettings) -> TrainSettings:
    """The settings of a run, with what its data and an earlier part of it decide; writes nothing.

    Returns: settings with `world`; of a continued run with its steps and precision, and where it
        was finished and gets more steps, with the step at which their schedule begins.
    Raises: FileNotFoundError, FileExistsError or ValueError, with what to do instead.
    """
    out = settings.out
    if not settings.resume:
        return settings.model_copy(update={"world": settings.world or _world_of(settings.data)})
    if not (out / SETTINGS).is_file():
        raise FileNotFoundError(f"--resume needs a run folder with {SETTINGS}, got {out}")
    before = kept_settings(TrainSettings, "train", out / SETTINGS, out=out)
    steps, precision = settings.steps or before.steps, settings.precision
    decided = {
        "steps": steps,
        "precision": before.precision if precision == "auto" else precision,
        "world": settings.world or before.world,
        "schedule_from": before.schedule_from,
    }
    if (out / REPORT).exists():
        if (steps or 0) <= (before.steps or 0):
            raise FileExistsError(
                f"--resume needs an unfinished run, got {out} with its {REPORT}; --steps above "
                f"{before.steps} extends it"
            )
        decided["schedule_from"] = before.steps
        before = before.model_copy(update={"steps": steps, "schedule_from": before.steps})
    settings = settings.model_copy(update=decided)
    check_kept(settings, before)
    return settings


def check_episodes(material: TrainMaterial, out: Path) -> None:
    """Refuse to continue with other episodes than the folder names.

    Raises: ValueError naming episodes.json.
    """
    path = out / EPISODES
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["train"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if before != material.trained_on:
        raise ValueError(f"--resume must train on the same episodes, got others than {path} names")


def _world_of(data: str) -> str | None:
    """The world an HDF5 file says it comes from, in its attribute `world`."""
    name = read_origin(data).get("world") if Path(data).is_file() else None
    return name if isinstance(name, str) else None
