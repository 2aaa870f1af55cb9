"""Commands in forked processes: quick, since torch is loaded, and harmless when they hang."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LIMIT = 20  # seconds; more is a hang
_MEMORY = 12 << 30  # bytes of address space


class Ended(NamedTuple):
    """How a child ended: exit status, negative for a signal, None for a hang; and what it said."""

    status: int | None
    said: str


class Child:
    """A function, or a command's words, in a process and group of its own."""

    def __init__(
        self,
        work: Callable[[], int],
        told: Path,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.told = told
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.setsid()
                os.environ.update(env or {})
                os.chdir(folder or ".")
                for one in (signal.SIGTERM, signal.SIGALRM):
                    signal.signal(one, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
                file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout = os.fdopen(1, "w", closefd=False)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                status = work()
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def wait(self, limit: float = LIMIT) -> Ended:
        """The end, within `limit` seconds; what hangs is killed with its group."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return Ended(code, self.told.read_text(errors="replace"))
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return Ended(None, self.told.read_text(errors="replace"))

    def kill(self, which: signal.Signals, *, group: bool) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, which)


def command(words: Sequence[str | Path], told: Path, env: Mapping[str, str] | None = None) -> Child:
    """Begin a command."""
    from worldmodel.apps.cli import main

    return Child(lambda: main([str(word) for word in words]), told, env)


def verdict(ended: Ended, *names: str) -> str:
    """What an outcome is worth: legitimate, clear, other name, bug, traceback, hang or crash."""
    if ended.status is None:
        return "hang"
    if "Traceback (most recent call last)" in ended.said:
        return "traceback"
    if ended.status < 0:
        return "crash"
    if ended.status == 1 and "this is a bug" in ended.said:
        return "bug"
    if ended.status == 0:
        return "legitimate"
    lines = [line for line in ended.said.splitlines() if "error:" in line]
    if ended.status != 2 or len(lines) != 1:
        return "unclear"
    return "clear" if not names or any(name in lines[0] for name in names) else "other name"
