"""The command line: the table of commands, and how an error is reported."""

import _thread
import ast
import dis
import importlib
import io
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import NamedTuple

_OURS = ("sigreg", "planners", "worldmodel")
_REPORT = (
    "this is a bug of worldmodel; please report it with the output of the same command and --debug"
)


class Command(NamedTuple):
    """One command: its settings record in `worldmodel.apps.settings`, and its function."""

    settings: str
    module: str
    function: str = "run"  #: settings -> exit status


COMMANDS = {
    "demo": Command("DemoSettings", "worldmodel.apps.demo"),
    "data collect": Command("CollectSettings", "worldmodel.apps.data.command", "collect"),
    "data inspect": Command("InspectSettings", "worldmodel.apps.data.command", "inspect"),
    "data convert": Command("ConvertSettings", "worldmodel.apps.data.command", "convert"),
    "data render": Command("RenderSettings", "worldmodel.apps.data.command", "render"),
    "train": Command("TrainSettings", "worldmodel.apps.train.command"),
    "tune-lambda": Command("TuneSettings", "worldmodel.apps.tune"),
    "study": Command("StudySettings", "worldmodel.apps.study.command"),
    "view": Command("ViewSettings", "worldmodel.apps.view.command"),
    "manifest": Command("ManifestSettings", "worldmodel.apps.evaluate.manifest"),
    "evaluate": Command("EvaluateSettings", "worldmodel.apps.evaluate.trial"),
    "compare": Command("CompareSettings", "worldmodel.apps.evaluate.result"),
    "info": Command("InfoSettings", "worldmodel.apps.machine", "info"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    A user's mistake prints one line and returns 2. A bug prints one line that says so and returns
    1. `--debug` shows the traceback of both.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that the stream cannot encode is replaced; it must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    warnings.formatwarning = lambda message, *_: f"worldmodel: warning: {message}\n"
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((n for n in COMMANDS if words[: n.count(" ") + 1] == n.split()), None)
    try:
        if name is None:
            return _overview(words)
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
            _complain(f" {name or ''}".rstrip(), str(error) if mistake else bug)
        return 2 if mistake else 1


@contextmanager
def kill_is_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which Slurm and systemd send to end a job, as Ctrl-C; keep other handlers."""
    main_thread, before = threading.current_thread() is threading.main_thread(), sys.unraisablehook

    def again(told: "sys.UnraisableHookArgs") -> None:
        # Python drops an interrupt that a finaliser raises, so it is raised again.
        if isinstance(told.exc_value, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            before(told)

    sys.unraisablehook = again
    if mine := main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        sys.unraisablehook = before
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _overview(words: Sequence[str]) -> int:
    """Print the commands, or those of a group, for --help; complain about any other words."""
    first, known = [*words, ""][0], ", ".join(COMMANDS)
    asked = set(words[1:2]) <= {"-h", "--help"}
    group = {n for n in COMMANDS if first in ("-h", "--help") or n.split()[0] == first}
    if not group or not asked:
        wrong = " ".join(words[:2] if group else words[:1])
        none = f"there is no command {wrong!r}; the commands are {known}"
        nameless = not first or first.startswith("-")
        _complain("", f"a command must be given: {known}" if nameless else none)
        return 2
    # The docstrings come from the source text: importing the records takes far longer.
    source = resources.files(__package__).joinpath("settings.py").read_text(encoding="utf-8")
    kinds = {c.name: c for c in ast.parse(source).body if isinstance(c, ast.ClassDef)}
    told = {n: ast.get_docstring(kinds[COMMANDS[n].settings]) for n in COMMANDS if n in group}
    about = "World models that predict embeddings, and planning with them.\n\ncommands:"
    lines = [f"  {name:<12}  {line}" for name, line in told.items()]
    within = "" if first.startswith("-") else f"{first} "
    usage = f"usage: worldmodel {within}COMMAND [--help] ...\n"
    sys.stdout.write("\n".join([usage, about, *lines, ""]))
    return 0


def _complain(name: str, message: str) -> None:
    sys.stderr.write(f"worldmodel{name}: error: {' '.join(message.split())}\n")


def _is_mistake(error: BaseException) -> bool:
    """Whether the user's words, files or machine caused an error, and not a bug.

    Errors of the system (files, memory, packages) are mistakes. So are errors that our own code
    raises on purpose. A ValueError or TypeError that a library raises, or that Python raises in
    the middle of our code, is a bug.
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
