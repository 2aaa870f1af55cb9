"""`worldmodel demo` on the command line: its options, and what it says at the end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from worldmodel.apps._arguments import device, positive, seed, weight
from worldmodel.apps.demo.material import DemoConfig
from worldmodel.apps.demo.run import run_demo
from worldmodel.apps.progress import say
from worldmodel.apps.report import demo_lines

__all__ = ["add_parser"]

_DEMO = """\
Learn a world model from pixels and plan with it, from nothing, in minutes.

  1. collect   a noisy walker explores two rooms with a door between them
  2. train     LeWorldModel: next-embedding error + weight × SIGReg, no decoder, no reward
  3. plan      cross-entropy method in latent space, to goals it has never seen
  4. report    success against a random policy, probes, curves, a map and a film
"""
_EXAMPLES = """\
examples:
  worldmodel demo                      the whole thing, into runs/demo
  worldmodel demo --seed 1 --out b     another seed, another folder
  worldmodel demo --steps 200          a quick, worse model
  worldmodel demo --ablate             also train without SIGReg, and compare
  worldmodel demo --resume             go on after Ctrl-C
"""


def add_parser(commands: Any) -> None:
    """Add `demo` to the commands."""
    default = DemoConfig()
    demo = commands.add_parser(
        "demo",
        help="learn a world model from pixels and plan with it, in minutes",
        description=_DEMO,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    demo.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR",
        help="run folder to create (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--seed", type=seed, default=default.seed, metavar="N",
        help="decides data, weights, pairs and plans (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--steps", type=positive, default=default.steps, metavar="N",
        help="training steps; fewer is quicker and worse (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--pairs", type=positive, default=default.pairs, metavar="N",
        help="start and goal pairs to try (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--weight", type=weight, default=default.weight, metavar="λ",
        help="weight of SIGReg; 0 leaves it out (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--device", type=device, default=default.device, metavar="D",
        help="cpu, cuda, cuda:1, mps … (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--ablate", action="store_true",
        help="also train with weight 0 and print both side by side; takes twice as long",
    )  # fmt: skip
    demo.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in --out"
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    config = DemoConfig(
        seed=arguments.seed,
        steps=arguments.steps,
        pairs=arguments.pairs,
        weight=arguments.weight,
        device=arguments.device,
    )
    try:
        report = run_demo(config, arguments.out, resume=arguments.resume, ablate=arguments.ablate)
    except KeyboardInterrupt:
        if not arguments.out.exists():
            say("\ninterrupted; nothing was written yet")
            raise
        say(f"\ninterrupted; the folder {arguments.out} is readable and holds the state so far")
        say(f"go on with: {_again(arguments)}")
        raise
    for line in demo_lines(report, arguments.out):
        say(line)
    return 0


def _again(arguments: argparse.Namespace) -> str:
    default = DemoConfig()
    words = ["worldmodel demo", f"--out {arguments.out}"]
    words += [
        f"--{name} {getattr(arguments, name)}"
        for name in ("seed", "steps", "pairs", "weight", "device")
        if getattr(arguments, name) != getattr(default, name)
    ]
    return " ".join([*words, *(["--ablate"] if arguments.ablate else []), "--resume"])
