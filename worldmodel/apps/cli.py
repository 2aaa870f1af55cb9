"""The command line: names of the commands, and what becomes of an error."""

from __future__ import annotations

import dis
import importlib
import io
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["COMMANDS", "kill_is_interrupt", "main"]

_OURS = ("sigreg", "planners", "worldmodel")
_REPORT = (
    "this is a bug of worldmodel; please report it with the output of the same command and --debug"
)


class Command(NamedTuple):
    """One command."""

    settings: str  #: name of its record in `worldmodel.apps.settings`
    module: str
    function: str  #: settings -> exit status
    about: str


_TABLE = (
    ("demo", "Demo", "demo.run", "learn a world model from pixels and plan"),
    ("data collect", "Collect", "data.command.collect", "record episodes of a policy in a world"),
    ("data inspect", "Inspect", "data.command.inspect", "say what is in a data set"),
    ("data convert", "Convert", "data.command.convert", "write any data set we read as HDF5"),
    ("data render", "Render", "data.command.render", "draw recorded states at another size"),
    ("train", "Train", "train.command.run", "train a world model on a data set"),
    ("tune-lambda", "Tune", "tune.run", "find the weight of SIGReg by bisection"),
    ("study", "Study", "study.command.run", "measure what a run has learned, one page"),
    ("manifest", "Manifest", "evaluate.manifest.run", "write down start and goal pairs"),
    ("evaluate", "Evaluate", "evaluate.trial.run", "measure how often plans reach the goals"),
    ("compare", "Compare", "evaluate.result.run", "compare two results on one manifest"),
)
COMMANDS = {
    name: Command(f"{record}Settings", f"worldmodel.apps.{module}", function, about)
    for name, record, path, about in _TABLE
    for module, _, function in [path.rpartition(".")]
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
    try:
        from worldmodel.apps import settings
        from worldmodel.apps.parsing import parse

        command = COMMANDS[name]
        told = parse(getattr(settings, command.settings), name, words[name.count(" ") + 1 :])
        module = importlib.import_module(command.module)
        with kill_is_interrupt():
            return int(getattr(module, command.function)(told))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        mistake = _is_mistake(error)
        if "--debug" in words:
            traceback.print_exc()
        else:
            bug = f"{type(error).__name__}: {error} ({_REPORT})"
            _complain(f" {name}", str(error) if mistake else bug)
        return 2 if mistake else 1


@contextmanager
def kill_is_interrupt() -> Iterator[None]:
    """SIGTERM, with which Slurm and systemd end a job, means Ctrl-C, unless it has a handler."""
    main_thread = threading.current_thread() is threading.main_thread()
    if mine := main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _overview(words: Sequence[str]) -> int:
    """The commands, for --help or behind a name that is none of them."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    first, known = [*words, ""][0], {name.split()[0] for name in COMMANDS}
    if first and not first.startswith("-"):
        if first not in known or [*words, "-h"][1] not in ("-h", "--help"):
            wrong = first if first not in known else " ".join(words[:2])
            _complain("", f"there is no command {wrong!r}; known are {', '.join(COMMANDS)}")
            return 2
        lines = [line for line in lines if line.split()[0] == first]
    elif first not in ("-h", "--help"):
        _complain("", "a command must be given: " + ", ".join(COMMANDS))
        return 2
    usage = "usage: worldmodel COMMAND [--help] ..."
    about = "World models that predict embeddings, and planning with them."
    sys.stdout.write("\n".join([usage, "", about, "", "commands:", *lines, ""]))
    return 0


def _complain(name: str, message: str) -> None:
    sys.stderr.write(f"worldmodel{name}: error: {' '.join(message.split())}\n")


def _is_mistake(error: BaseException) -> bool:
    """Whether an error tells of the user's words, files or machine, rather than of a bug.

    What the system refuses (files, memory, packages) is no bug of ours; neither is what our own
    code raises on purpose. A ValueError or TypeError that comes out of a library, or that Python
    raises in the middle of our code, is one.
    """
    trace, refused = error.__traceback__, (OSError, ImportError, MemoryError)
    if isinstance(error, refused) or type(error).__name__ == "OutOfMemoryError":
        return True
    if trace is None or not isinstance(error, (ValueError, TypeError, ArithmeticError)):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    instruction = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return package in _OURS and dis.opname[instruction] in ("RAISE_VARARGS", "RERAISE")
