"""The command line: names of the commands, and what becomes of an error."""

from __future__ import annotations

import dis
import importlib
import io
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from worldmodel.apps._interrupt import kill_is_interrupt

__all__ = ["COMMANDS", "main"]

_OURS = ("sigreg", "planners", "worldmodel")
_REPORT = (
    "this is a bug of worldmodel; please report it with the output of the same command and --debug"
)


class Command(NamedTuple):
    """One command.

    Attributes:
        settings: name of its record in `worldmodel.apps.settings`.
        module: where its `run(settings) -> exit status` stands.
        about: one line.
        function: name of that function.
    """

    settings: str
    module: str
    about: str
    function: str = "run"


COMMANDS = {
    "demo": Command("DemoSettings", "demo.command", "learn a world model from pixels and plan"),
    "data collect": Command(
        "CollectSettings", "data.command", "record episodes of a policy in a world", "collect"
    ),
    "data inspect": Command(
        "InspectSettings", "data.command", "say what is in a data set", "inspect"
    ),
    "data convert": Command(
        "ConvertSettings", "data.command", "write any data set we read as HDF5", "convert"
    ),
    "data render": Command(
        "RenderSettings", "data.command", "draw recorded states at another size", "render"
    ),
    "train": Command("TrainSettings", "train.command", "train a world model on a data set"),
    "tune-lambda": Command("TuneSettings", "tune", "find the weight of SIGReg by bisection"),
    "study": Command("StudySettings", "study.command", "measure what a run has learned, one page"),
    "view": Command("ViewSettings", "view.command", "write a page on which a run plans"),
    "manifest": Command(
        "ManifestSettings", "evaluate.manifest_command", "write down start and goal pairs"
    ),
    "evaluate": Command(
        "EvaluateSettings", "evaluate.command", "measure how often plans reach the goals"
    ),
    "compare": Command(
        "CompareSettings", "evaluate.comparing", "compare two results on one manifest"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    A mistake of the user's ends in one line and status 2, a bug of ours in one line that says so
    and status 1; `--debug` shows the traceback of either.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that the stream lacks is replaced, rather than ending the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((n for n in COMMANDS if words[: n.count(" ") + 1] == n.split()), None)
    if name is None:
        return _overview(words)
    debug = "--debug" in words
    try:
        return _run(name, words[name.count(" ") + 1 :])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        elif _is_mistake(error):
            _complain(name, str(error))
        else:
            _complain(name, f"{type(error).__name__}: {error} ({_REPORT})")
        return 2 if _is_mistake(error) else 1


def _run(name: str, words: Sequence[str]) -> int:
    from worldmodel.apps import settings
    from worldmodel.apps.parsing import parse

    command = COMMANDS[name]
    told = parse(getattr(settings, command.settings), name, words)
    module = importlib.import_module(f"worldmodel.apps.{command.module}")
    with kill_is_interrupt():
        return int(getattr(module, command.function)(told))


def _overview(words: Sequence[str]) -> int:
    """The commands, for --help or behind a name that is none of them."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    usage = "usage: worldmodel COMMAND [--help] ..."
    about = "World models that predict embeddings, and planning with them."
    known = {word for name in COMMANDS for word in name.split()[:1]}
    if words and not words[0].startswith("-"):
        wrong = words[0] if words[0] not in known else " ".join(words[:2])
        if not (words[0] in known and (len(words) == 1 or words[1] in ("-h", "--help"))):
            _complain(None, f"there is no command {wrong!r}; known are {', '.join(COMMANDS)}")
            return 2
        lines = [line for line in lines if line.split()[0] == words[0]]
    elif words[:1] not in (["-h"], ["--help"]):
        _complain(None, "a command must be given: " + ", ".join(COMMANDS))
        return 2
    sys.stdout.write("\n".join([usage, "", about, "", "commands:", *lines, ""]))
    return 0


def _complain(name: str | None, message: str) -> None:
    who = "worldmodel" if name is None else f"worldmodel {name}"
    sys.stderr.write(f"{who}: error: {' '.join(message.split())}\n")


def _is_mistake(error: BaseException) -> bool:
    """Whether an error tells of the user's words, files or machine, rather than of a bug.

    What the system refuses (files, memory, packages) is no bug of ours; neither is what our own
    code raises on purpose. A ValueError or TypeError that comes out of a library, or that Python
    raises in the middle of our code, is one.
    """
    if isinstance(error, (OSError, ImportError, MemoryError)):
        return True
    if type(error).__name__ == "OutOfMemoryError":
        return True
    kinds = (ValueError, TypeError, ArithmeticError)
    return isinstance(error, kinds) and _raised_by_us(error.__traceback__)


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is ours and stands at a `raise` statement."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    instruction = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return package in _OURS and dis.opname[instruction] in ("RAISE_VARARGS", "RERAISE")
