"""Everything a training run is told: names, published and small defaults, files and key=value."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch

from worldmodel.apps._arguments import device
from worldmodel.apps.train.config import TrainConfig

__all__ = [
    "FREE",
    "PRESETS",
    "TrainSettings",
    "check_model",
    "device_of",
    "parse_pairs",
    "precision_of",
    "read_settings_file",
]

# What may differ between a run and its continuation: it decides no weight on one device.
FREE = ("data", "workers", "device", "sharded", "wandb", "pixels", "action")
_PARTS = ("encoder", "action_encoder", "predictor")


def _option(text: str, default: Any, *, small: Any = None) -> Any:
    """A setting: its help, its default (published where there is one), the small preset's."""
    return field(default=default, metadata={"help": text, "small": small})


@dataclass(frozen=True)
class TrainSettings:
    """All settings of `worldmodel train`, each a flag, a key=value and a key of train.json.

    Defaults are the published recipe (LeWM, arXiv:2603.19312, released configuration), which the
    preset "lewm" takes as they are; "small" has its own for a few of them.

    Attributes:
        model: arguments of the parts that differ from the preset's, by part and name.
    Raises: ValueError naming the setting, the rule and what came.
    """

    data: str = _option("HDF5 file, LeRobot folder, Minari folder or id", "")
    preset: str = _option("model and defaults: lewm, as published, or small, for a CPU", "small")
    objective: str = _option("what is minimised", "lewm")
    steps: int | None = _option(
        "optimizer steps, which is also where the cosine ends; none: 10 passes over the data", None
    )
    batch_size: int = _option("windows per step, over all ranks", 128, small=64)
    seed: int = _option("of weights, split, batches, dropout and directions", 3072, small=0)
    learning_rate: float = _option("peak", 5e-5, small=1e-3)
    weight: float = _option(
        "λ, weight of SIGReg; grows in effect with the batch; for pldm 1, for gcbc 0",
        0.09, small=0.05,
    )  # fmt: skip
    weight_decay: float = _option("of AdamW", 1e-3)
    clip: float = _option("largest norm of the gradient", 1.0)
    warmup: float = _option("fraction of the steps with a rising rate", 0.01, small=0.1)
    num_proj: int = _option("directions SIGReg looks along", 1024, small=256)
    precision: str = _option(
        "float32, bfloat16, or auto: bfloat16 on a GPU that has it", "auto", small="float32"
    )
    num_frames: int = _option(
        "frames of a window; at most predictor.history + 1; for gcbc 6, its goals lie in it", 4
    )
    frameskip: int = _option("raw steps between two frames, whose actions make one block", 5)
    held_out: float = _option("fraction of the episodes kept out of training", 0.1)
    held_out_windows: int = _option("of those episodes, scored at every checkpoint", 512)
    checkpoint_every: int = _option("steps between two checkpoints; the last two are kept", 1000)
    report_every: int | None = _option("steps between two rows of curves.csv; none: 200 rows", None)
    world: str | None = _option("name of the world the data come from, kept for evaluate", None)
    pixels: str | None = _option("column of the frames; none: the format's usual one", None)
    action: str | None = _option("column of the actions; none: the format's usual one", None)
    device: str = _option("cpu, cuda, cuda:1, …; auto: a GPU if there is one", "auto")
    workers: int = _option("processes that load data ahead; decides no number", 2, small=1)
    sharded: bool = _option("each process holds a part of the weights (FSDP2), not all", False)
    wandb: bool = _option("also log to Weights & Biases, if installed", False)
    model: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("--data must name a data set, got none")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        for name in ("num_frames", "frameskip", "held_out_windows", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_frames < 2:
            raise ValueError("num_frames must be at least 2, a frame and the next, got 1")
        if self.report_every is not None and self.report_every < 1:
            raise ValueError(f"report_every must be at least 1, got {self.report_every}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, got {self.held_out}")
        if self.workers < 0 or self.seed < 0:
            name = "workers" if self.workers < 0 else "seed"
            raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        steps = 1 if self.steps is None else self.steps
        self.training(steps, "float32" if self.precision == "auto" else self.precision)

    def training(self, steps: int, precision: str) -> TrainConfig:
        """The part that the loop itself is told."""
        return TrainConfig(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight=self.weight,
            weight_decay=self.weight_decay,
            clip=self.clip,
            warmup=self.warmup,
            num_proj=self.num_proj,
            precision=precision,
            seed=self.seed,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Settings of some named values; the objective and the preset give the others.

        Raises: ValueError if a name is unknown or a value is of another type.
        """
        typed = {name: _typed(name, value) for name, value in values.items()}
        preset = typed.get("preset", "small")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        of_objective = _OBJECTIVES.get(typed.get("objective", "lewm"), {})
        return cls(**(PRESETS[preset] | of_objective | typed))

    def to_json(self) -> dict[str, Any]:
        """Values that `of` takes back."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        f.name: f.metadata["small"]
        for f in fields(TrainSettings)
        if f.metadata.get("small") is not None
    }
    | {"preset": "small"},
    "lewm": {"preset": "lewm"},
}
# Where an objective means something else: PLDM's terms have weights of their own; a cloned policy
# has none, and its goals reach to the end of its windows, 25 raw steps away.
_OBJECTIVES: dict[str, dict[str, Any]] = {
    "pldm": {"weight": 1.0},
    "gcbc": {"weight": 0.0, "num_frames": 6},
}
_HINTS = get_type_hints(TrainSettings)
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def _typed(name: str, value: Any) -> Any:
    """A value as the setting `name` holds it, from JSON or from the words of a command line."""
    if name == "model":
        return check_model(value)
    if name not in _HINTS:
        raise ValueError(f"there is no setting {name!r}; known are {', '.join(sorted(_HINTS))}")
    kinds = getattr(_HINTS[name], "__args__", (_HINTS[name],))
    if isinstance(value, str) and str not in kinds:
        value = _value(value)
    elif isinstance(value, str) and type(None) in kinds and value.lower() in ("none", "null"):
        value = None
    if float in kinds and type(value) is int:
        value = float(value)
    if type(value) not in kinds:
        wanted = " or ".join("none" if k is type(None) else _NAMES[k] for k in kinds)
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _value(text: str) -> Any:
    """A word, number, truth value or nothing, from how it is written."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def check_model(value: Any) -> dict[str, dict[str, Any]]:
    """Arguments of the model's parts, by part and name.

    Raises: ValueError if they are not.
    """
    known = isinstance(value, dict) and all(
        part in _PARTS and isinstance(arguments, dict) for part, arguments in value.items()
    )
    if not known:
        raise ValueError(
            f"model must hold arguments of {', '.join(_PARTS)}, each by name, got {value!r}"
        )
    return {part: dict(arguments) for part, arguments in value.items()}


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """`["weight=0.1", "predictor.dropout=0"]` as values that `TrainSettings.of` takes.

    Raises: ValueError if one is not key=value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        part, dot, name = key.strip().partition(".")
        if not equals or not part or (dot and (part not in _PARTS or not name)):
            raise ValueError(
                "settings must be key=value, or part.key=value with part one of "
                f"{', '.join(_PARTS)}, got {pair!r}"
            )
        if dot:
            values.setdefault("model", {}).setdefault(part, {})[name] = _value(text.strip())
        else:
            values[part.replace("-", "_")] = text.strip()
    return values


def read_settings_file(path: Path) -> dict[str, Any]:
    """The values of a JSON file as `train.json` of a run folder is one.

    Raises: FileNotFoundError or ValueError, naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--config must be a file, got {path}")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold settings by name, got {type(values).__name__}")
    return values


def device_of(name: str) -> str:
    """The device that a setting means.

    Raises: ValueError if there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return device(name)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"device {error}") from error


def precision_of(name: str, device: str) -> str:
    """The precision that a setting means on a device."""
    if name != "auto":
        return name
    low = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return "bfloat16" if low else "float32"
