"""`worldmodel train`: its flags, one for every setting, and what it says when it is stopped."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from worldmodel.apps.progress import say
from worldmodel.apps.train.folder import settings_of
from worldmodel.apps.train.objectives import OBJECTIVES
from worldmodel.apps.train.run import run_train
from worldmodel.apps.train.settings import (
    PRESETS,
    TrainSettings,
    check_model,
    parse_pairs,
    read_settings_file,
)

__all__ = ["add_parser", "take_pairs"]

_ABOUT = """\
Train a world model on episodes of pixels and actions, and leave a run folder.

The loss has two terms: the error of the predicted next embedding, and weight × SIGReg, which keeps
the embeddings spread out as a Gaussian. A healthy run shows a falling prediction loss while SIGReg
falls towards its floor (1.05 for a Gaussian batch). If the prediction loss falls and SIGReg grows,
the embeddings collapse; an alarm says so and what to change.

Every setting is a flag, a key=value, or a key of a JSON file; key=value wins over flags, flags over
--config, and both over the preset. Arguments of the model's parts have the part's name in front:
predictor.dropout=0, encoder.depth=6.
"""
_EXAMPLES = """\
examples:
  worldmodel data collect --env two-room --episodes 800 --length 80 --bump 0.4 --out walks.h5
  worldmodel train --data walks.h5 --steps 600 --out runs/first
  worldmodel train --data pusht.h5 --preset lewm --workers 8 --out runs/pusht
  worldmodel train --data walks.h5 --out runs/b weight=0.02 predictor.dropout=0
  worldmodel train --data walks.h5 --config runs/b/train.json --seed 1 --out runs/c
  worldmodel train --resume --out runs/first
  torchrun --nproc-per-node 4 -m worldmodel train --data pusht.h5 --preset lewm --out runs/d

what is in the run folder:
  train.json         every setting, also those you did not give; --config reads it
  checkpoints/       the last two states; --resume goes on from them, bit for bit on a CPU
  model.safetensors, config.json, episodes.json
                     the model of the newest checkpoint, for worldmodel.load and other commands
  curves.csv, held_out.csv, tensorboard/
                     losses, excess over SIGReg's floor, effective rank, spread, rate
  curves.png, report.json
                     at the end

on several processes the batch is shared out: N of them with batch B train as one with batch B;
--sharded shares out the weights too.
"""
_GROUPS = {
    "data": ("data", "pixels", "action", "world", "num_frames", "frameskip", "held_out"),
    "recipe": (
        "preset", "objective", "steps", "batch_size", "seed", "learning_rate", "weight",
        "weight_decay", "clip", "warmup", "num_proj", "precision",
    ),
    "run": (
        "checkpoint_every", "report_every", "held_out_windows", "device", "workers", "sharded",
        "wandb",
    ),
}  # fmt: skip
_METAVARS = {int: "N", float: "X", str: "NAME"}


def add_parser(commands: Any) -> None:
    """Register `train`; it sets `run`, a function of the parsed arguments."""
    parser = commands.add_parser(
        "train",
        help="train a world model on a data set",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in --out"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON file of settings, as RUN/train.json"
    )
    parser.add_argument(
        "pairs",
        nargs="*",
        metavar="key=value",
        help="any setting, and arguments of the model's parts",
    )
    known, hints = {f.name: f for f in fields(TrainSettings)}, get_type_hints(TrainSettings)
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add(group, known[name], hints[name])
    parser.set_defaults(run=_train)


def take_pairs(arguments: argparse.Namespace, rest: Sequence[str]) -> bool:
    """Add key=value words that argparse left over behind others; False if they are none of that.

    Argparse takes positional words from one place only.
    """
    if arguments.command != "train" or any(w.startswith("-") or "=" not in w for w in rest):
        return False
    arguments.pairs = [*arguments.pairs, *rest]
    return True


def _add(group: Any, setting: Field[Any], hint: Any) -> None:
    flag, text = f"--{setting.name.replace('_', '-')}", setting.metadata["help"]
    if hint is bool:
        group.add_argument(flag, action="store_const", const=True, default=None, help=text)
        return
    kind = getattr(hint, "__args__", (hint,))[0]
    small = setting.metadata["small"]
    if setting.name == "data":
        shown = ""
    elif small is None:
        shown = f" (default: {'none' if setting.default is None else setting.default})"
    else:
        shown = f" (default: {small} for small, {setting.default} for lewm)"
    words = {"preset": "|".join(PRESETS), "objective": "|".join(OBJECTIVES), "data": "PATH"}
    metavar = words.get(setting.name, _METAVARS[kind])
    group.add_argument(flag, metavar=metavar, help=(text + shown).replace("%", "%%"))


def _train(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    try:
        report = run_train(settings, arguments.out, resume=arguments.resume)
    except ImportError as error:
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        if (arguments.out / "checkpoints").exists():
            again = f"worldmodel train --resume --out {shlex.quote(str(arguments.out))}"
            say(f"\ninterrupted; go on with: {again}")
        else:
            say("\ninterrupted before the first checkpoint")
        raise
    if report:
        say(f"held-out prediction loss {report['held_out_prediction']:.4g}")
    return 0


def _settings(arguments: argparse.Namespace) -> TrainSettings:
    values: dict[str, Any] = {}
    if arguments.resume and (arguments.out / "train.json").is_file():
        values = settings_of(arguments.out).to_json()
    if arguments.config is not None:
        values = _over(values, read_settings_file(arguments.config))
    given = {
        name: getattr(arguments, name)
        for names in _GROUPS.values()
        for name in names
        if getattr(arguments, name) is not None
    }
    values = _over(_over(values, given), parse_pairs(arguments.pairs))
    if arguments.resume and "data" not in values:
        raise FileNotFoundError(f"--resume needs a run folder with train.json, got {arguments.out}")
    return TrainSettings.of(values)


def _over(values: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Values with later ones over them, arguments of the model's parts one by one."""
    parts = check_model(values.get("model", {}))
    for part, changes in check_model(later.get("model", {})).items():
        parts[part] = parts.get(part, {}) | changes
    return values | later | ({"model": parts} if parts else {})
