"""Run a simulator for many agents at once, in this process or in several others.

A simulator keeps nothing between calls: the state holds all it needs. So any worker can step any
agent, and results do not depend on the number or order of agents.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Workers", "serve"]

# A worker imports its simulator, but not the main script as multiprocessing would: that may import
# torch and triton, which cost time and memory and can crash beside OpenGL.
_BOOT = """
import sys
sys.path[:] = sys.argv[2:]
from worldmodel.worlds._processes import serve
serve(int(sys.argv[1]))
"""


class Workers:
    """A simulator of one agent, called for many.

    `make`, which is picklable, makes the simulator in each of `num` processes, which start at the
    first call; 0 runs it in this process. The simulator's methods take the arguments of one agent.
    """

    def __init__(self, make: Callable[[], Any], num: int) -> None:
        if num < 0:
            raise ValueError(f"workers must be 0 or more, got {num}")
        self._make, self._num = make, num
        self._here: Any = None
        self._pipes: list[Connection] = []
        self.processes: list[subprocess.Popen[bytes]] = []  #: those that were started last
        self._stop: Callable[[], Any] = lambda: None

    def call(self, what: str, *arrays: NDArray[Any]) -> Any:
        """Call a method of the simulator on each row: [N, ...], ... -> [N, ...]."""
        if self._num == 0:
            self._here = self._here or self._make()
            return _each(self._here, what, arrays)
        if not self._pipes:
            self._start()
        parts = [np.array_split(array, len(self._pipes)) for array in arrays]
        busy = []
        for pipe, *mine in zip(self._pipes, *parts, strict=True):
            if len(mine[0]):
                with suppress(ConnectionError):  # `_answer` reports dead workers
                    pipe.send((what, mine))
                busy.append(pipe)
        # Fetch all answers before raising, so that none stays in a pipe.
        answers = [_answer(pipe) for pipe in busy]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return np.concatenate(answers)

    def close(self) -> None:
        """Stop the processes; a later call starts new ones."""
        self._stop()
        self._pipes = []

    def _start(self) -> None:
        if os.name != "posix":
            raise OSError(f"workers need Linux or macOS, this is {sys.platform}: workers=0")
        self.processes = []
        for _ in range(self._num):
            ours, theirs = multiprocessing.Pipe()
            command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), *sys.path]
            process = subprocess.Popen(  # noqa: S603  our own words, no shell
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
            theirs.close()
            ours.send(self._make)
            self._pipes.append(ours)
            self.processes.append(process)
        self._stop = weakref.finalize(self, _stop, list(self._pipes), list(self.processes))


def _answer(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        return OSError("a simulator process died, killed from outside or by its graphics driver")


def _each(simulator: Any, what: str, arrays: Sequence[NDArray[Any]]) -> Any:
    act = getattr(simulator, what)
    return np.stack([act(*row) for row in zip(*arrays, strict=True)])


def serve(descriptor: int) -> None:
    """The loop of a worker: receive the simulator, then answer calls."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the main process handles them, and its end ends this
    pipe, simulator = Connection(descriptor), None
    make = pipe.recv()
    while True:
        try:
            what, arrays = pipe.recv()
        except EOFError:
            os._exit(0)  # at once: graphics drivers fail during interpreter shutdown
        try:
            simulator = simulator or make()
            answer = _each(simulator, what, arrays)
        except (ImportError, OSError, ValueError) as error:
            answer = type(error)(str(error))
        except Exception as error:
            answer = OSError(f"a simulator failed: {type(error).__name__}: {error}")
        pipe.send(answer)


def _stop(pipes: list[Connection], processes: list[subprocess.Popen[bytes]]) -> None:
    for pipe in pipes:
        pipe.close()  # ends the worker
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()  # no effect if it has ended
        process.wait()
