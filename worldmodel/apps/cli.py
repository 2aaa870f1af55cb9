"""The command line: one verb for each app."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from worldmodel.apps._interrupt import kill_is_interrupt
from worldmodel.apps.data import command as data
from worldmodel.apps.demo import command as demo
from worldmodel.apps.evaluate import command as evaluate
from worldmodel.apps.study import command as study
from worldmodel.apps.train import command as train
from worldmodel.apps.train.loop import NonFiniteError
from worldmodel.apps.tune import command as tune

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; user mistakes end in one line and status 2, never in a traceback."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not train.take_pairs(arguments, rest):
        _refuse(parser, arguments.command, rest)
    try:
        with kill_is_interrupt():
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except (ValueError, TypeError, OSError, ImportError, NonFiniteError) as error:
        sys.stderr.write(f"worldmodel {arguments.command}: error: {error}\n")
        return 2


def _refuse(parser: argparse.ArgumentParser, command: str, words: Sequence[str]) -> NoReturn:
    """Say which words were not understood, and which option was probably meant."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    chosen: argparse.ArgumentParser = commands.choices[command]
    known = re.findall(r"--[\w-]+", chosen.format_help())
    word = words[0].split("=")[0]
    close = difflib.get_close_matches(word, known, cutoff=0.7)
    # Most slips and short forms begin right: --iters is --iterations rather than --elites.
    meant = max(close, key=lambda name: _alike(name, word), default=None)
    hint = f"; did you mean {meant}?" if meant else ""
    chosen.error(f"unrecognized arguments: {' '.join(words)}{hint}")


def _alike(a: str, b: str) -> int:
    """How many letters two words begin with alike."""
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worldmodel",
        description="World models that predict embeddings, and planning with them.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for app in (demo, data, train, tune, study, evaluate):
        app.add_parser(commands)
    return parser
