"""Commands in forked processes: quick, since torch is loaded, and harmless when they hang."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from worldmodel.apps.cli import main

LIMIT = 20  # seconds; more is a hang, where a command takes a tenth of it
_MEMORY = 12 << 30  # bytes of address space


class Ended(NamedTuple):
    """How a child ended: exit status, negative for a signal, None for a hang; and what it said."""

    status: int | None
    said: str


class Child:
    """A function, or a command's words, in a process and group of its own."""

    limit: float = LIMIT  #: seconds that the machine's pace makes of it

    def __init__(
        self,
        work: Callable[[], int],
        told: Path,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.told, self.status, self._over = told, None, False
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status, begun = 70, False
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
                begun = True
                status = work()
                told.with_suffix(".modules").write_text("\n".join(sys.modules), encoding="utf-8")
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException as error:
                # A command that is interrupted says nothing, and so does one that never began.
                if begun or not isinstance(error, KeyboardInterrupt):
                    traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()
                    sys.stderr.flush()
                finally:
                    os._exit(status)

    def ended(self, limit: float | None = None) -> bool:
        """Whether it ends within `limit` seconds; `status` then says how."""
        end = time.monotonic() + (self.limit if limit is None else limit)
        while not self._over and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self._over = os.waitstatus_to_exitcode(status), True
            else:
                time.sleep(0.01)
        return self._over

    def wait(self, limit: float | None = None) -> Ended:
        """The end, within `limit` seconds; what hangs is killed with its group."""
        if not self.ended(limit):
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._over = True
        return Ended(self.status, self.told.read_text(errors="replace"))

    def kill(
        self, which: signal.Signals, *, group: bool, among: random.Random | None = None
    ) -> None:
        """Send a signal to the group, to the process, or to one `among` it and its children."""
        if self._over:
            return
        pids = [self.pid]
        with contextlib.suppress(OSError):
            of = Path(f"/proc/{self.pid}/task/{self.pid}/children")
            pids += map(int, of.read_text(encoding="utf-8").split()) if among else ()
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.pid, which)
            else:
                os.kill(among.choice(pids) if among else self.pid, which)


def learn(folder: Path) -> None:
    """Import what the children that told in `folder` had to import: later ones need not."""
    for path in folder.glob("*.modules"):
        for name in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        path.unlink()


def command(words: Sequence[str | Path], told: Path, env: Mapping[str, str] | None = None) -> Child:
    """Begin a command."""
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
