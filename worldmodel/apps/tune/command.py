"""`worldmodel tune-lambda`: find the weight of SIGReg for a data set, in a few short runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from worldmodel.apps._arguments import device, natural, positive
from worldmodel.apps.progress import say
from worldmodel.apps.tune.search import run_tune
from worldmodel.apps.tune.trial import BUILT_IN, TuneConfig

__all__ = ["add_parser"]

_ABOUT = """\
Find λ, the weight of SIGReg, by bisection on its logarithm.

Each run is short, starts from the same weights, and is judged on episodes it has not seen:
  prediction    error, as a fraction of the error of predicting no change; rises with λ
  distribution  SIGReg above its floor, as a fraction of a collapse's; falls with λ
The λ where they meet keeps the larger of the two as small as it can be.
"""
_EXAMPLES = """\
examples:
  worldmodel tune-lambda                            the built-in world, into runs/tune
  worldmodel tune-lambda --data walks.h5 --out t    your own episodes
  worldmodel tune-lambda --resume --high 10         look further, keep what was tried
"""


def add_parser(commands: Any) -> None:
    """Register `tune-lambda`; it sets `run`, a function of the parsed arguments."""
    default = TuneConfig()
    parser = commands.add_parser(
        "tune-lambda",
        help="find the weight of SIGReg by bisection, in a handful of short runs",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--data",
        default=default.data,
        metavar="DATA",
        help=f"HDF5 file, LeRobot folder, Minari folder or id, or the built-in world {BUILT_IN} "
        "(default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("runs/tune"),
        metavar="DIR",
        help="folder to create (default: %(default)s)",
    )
    add(
        "--low",
        type=_weight,
        default=1e-3,
        metavar="λ",
        help="smallest weight (default: %(default)s)",
    )
    add(
        "--high",
        type=_weight,
        default=1.0,
        metavar="λ",
        help="largest weight (default: %(default)s)",
    )
    add(
        "--runs",
        type=positive,
        default=7,
        metavar="N",
        help="short runs, both ends included; one more halves the range left "
        "(default: %(default)s)",
    )
    add(
        "--steps",
        type=positive,
        default=default.steps,
        metavar="N",
        help="training steps of each run (default: %(default)s)",
    )
    add(
        "--preset",
        choices=["small", "lewm"],
        default=default.preset,
        help="the model (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=positive,
        default=default.batch_size,
        metavar="B",
        help="windows per step, those of the long run: λ depends on it (default: %(default)s)",
    )
    add(
        "--learning-rate",
        type=_weight,
        default=default.learning_rate,
        metavar="η",
        help="peak (default: %(default)s)",
    )
    add(
        "--frameskip",
        type=positive,
        default=default.frameskip,
        metavar="N",
        help="raw actions between two frames (default: %(default)s)",
    )
    add(
        "--seed",
        type=natural,
        default=default.seed,
        metavar="N",
        help="of data, split, weights and batches, alike in every run (default: %(default)s)",
    )
    add(
        "--device",
        type=device,
        default=default.device,
        metavar="D",
        help="cpu, cuda … (default: %(default)s)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the runs in --out; --low, --high and --runs may differ",
    )
    parser.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    config = TuneConfig(
        data=arguments.data,
        preset=arguments.preset,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        frameskip=arguments.frameskip,
        seed=arguments.seed,
        device=arguments.device,
    )
    out = arguments.out
    try:
        found = run_tune(
            config,
            out,
            low=arguments.low,
            high=arguments.high,
            runs=arguments.runs,
            resume=arguments.resume,
        )
    except KeyboardInterrupt:
        say(f"\ninterrupted; {out / 'tune.json'} holds the runs so far, --resume goes on with them")
        raise
    lines = ["", f"  λ = {found.middle:.3g}   (between {found.low:.3g} and {found.high:.3g})"]
    if not found.monotone:
        lines.append("  the runs do not change sides once: with so few steps they are too noisy")
    lines.append(f"  look at {out / 'tune.png'}; all figures are in {out / 'tune.json'}")
    for line in lines:
        say(line)
    return 0


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be finite and above 0, got {text}")
    return value
