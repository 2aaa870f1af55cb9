"""Run a simulator for many agents at once, in this process or shared out among others.

A simulator keeps nothing from one call to the next: all it needs is in the state. So any worker may
step any agent, and what happens to one does not depend on how many there are or in which order.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodel._extras import install

__all__ = [
    "SimulatedSession",
    "Simulation",
    "Simulator",
    "Workers",
    "check_states",
    "cores",
    "require",
    "serve",
]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Simulator(Protocol):
    """One agent's world as two functions of its state."""

    def step(self, state: Floats, action: Floats) -> Floats:
        """One raw step: [S], [A] -> [S]."""

    def draw(self, state: Floats) -> Pixels:
        """The picture of a state: [3, H, W]."""

    def renderer(self) -> str:
        """What draws the pictures."""


def require(module: str, extra: str) -> None:
    """Look for an optional package without importing it: that may open an OpenGL context.

    Raises: ImportError naming the extra that brings it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{extra} needs the package {module}: {install(extra)}")


def cores(limit: int = 16) -> int:
    """As many processes as this machine has cores, at most `limit`."""
    return max(1, min(limit, os.cpu_count() or 1))


def check_states(states: Floats, dims: int) -> Floats:
    """States as they are, if they are finite [N, dims].

    Raises: ValueError otherwise.
    """
    if states.ndim != 2 or states.shape[1] != dims:
        raise ValueError(f"states must be [N, {dims}], got {list(states.shape)}")
    if not np.isfinite(states).all():
        raise ValueError("states must be finite, got NaN or inf")
    return states.astype(np.float32)


# A worker imports its simulator and nothing else of ours: not the package's face, which would bring
# torch and triton along, seconds and hundreds of megabytes for each, and a crash next to OpenGL.
_BOOT = """
import sys, types
from multiprocessing.connection import Connection
for name, folder in zip(("worldmodel", "worldmodel.worlds"), sys.argv[2:]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from worldmodel.worlds._processes import serve
serve(Connection(int(sys.argv[1])))
"""


def _folders() -> tuple[str, str]:
    here = Path(__file__).resolve().parent
    return str(here.parent), str(here)


class Workers:
    """A simulator behind `step` and `draw` for arrays of states.

    Args:
        make: makes the simulator where it will run, with those functions of `Simulator` that are
            asked of it; a picklable callable.
        num: of processes, started at the first call; 0 runs it in this process.

    Attributes:
        processes: those that were started last.
    """

    def __init__(self, make: Callable[[], Any], num: int) -> None:
        if num < 0:
            raise ValueError(f"workers must be 0 or more, got {num}")
        self._make, self._num = make, num
        self._here: Any = None
        self._pipes: list[Connection] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._stop: Callable[[], Any] = lambda: None

    def step(self, states: Floats, actions: Floats) -> Floats:
        """[N, S], [N, A] -> [N, S]."""
        moved: Floats = self._share("step", states, actions)
        return moved

    def draw(self, states: Floats) -> Pixels:
        """[N, S] -> [N, 3, H, W]."""
        drawn: Pixels = self._share("draw", states)
        return drawn

    def begin(self, seeds: NDArray[np.int64]) -> Floats:
        """Starts of a simulator that makes them itself, with its `begin`: [N] -> [N, S]."""
        starts: Floats = self._share("begin", seeds)
        return starts

    def renderer(self) -> str:
        """What draws the pictures, as the simulator says."""
        if self._num == 0:
            self._here = self._here or self._make()
            return str(self._here.renderer())
        if not self._pipes:
            self._start()
        _send(self._pipes[0], ("renderer", ()))
        failed, result = self._answer(self._pipes[0])
        if failed:
            raise result
        return str(result)

    def close(self) -> None:
        """Stop the processes; a later call starts new ones."""
        self._stop()
        self._pipes = []

    def _share(self, what: str, *arrays: NDArray[Any]) -> Any:
        if self._num == 0:
            self._here = self._here or self._make()
            return _each(self._here, what, arrays)
        if not self._pipes:
            self._start()
        parts = [np.array_split(array, len(self._pipes)) for array in arrays]
        busy = []
        for pipe, *mine in zip(self._pipes, *parts, strict=True):
            if len(mine[0]):
                _send(pipe, (what, mine))
                busy.append(pipe)
        # Every answer is fetched before one of them is complained about: none may stay behind.
        answers = [self._answer(pipe) for pipe in busy]
        for failed, result in answers:
            if failed:
                raise result
        return np.concatenate([result for _, result in answers])

    def _answer(self, pipe: Connection) -> tuple[bool, Any]:
        try:
            failed, result = pipe.recv()
        except (EOFError, ConnectionError):
            return True, OSError(
                "a simulator process died, killed from outside or by its graphics driver"
            )
        return failed, result

    def _start(self) -> None:
        if os.name != "posix":
            raise OSError(
                f"worker processes need Linux or macOS, this is {sys.platform}; workers=0"
            )
        self.processes = []
        for _ in range(self._num):
            ours, theirs = multiprocessing.Pipe()
            command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), *_folders()]
            process = subprocess.Popen(  # noqa: S603  our own words, no shell
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
            theirs.close()
            ours.send(self._make)
            self._pipes.append(ours)
            self.processes.append(process)
        self._stop = weakref.finalize(self, _stop, list(self._pipes), list(self.processes))


class Simulation(Protocol):
    """Many agents' world as two functions of their states: `Workers` is one."""

    def step(self, states: Floats, actions: Floats) -> Floats:
        """[N, S], [N, A] -> [N, S]."""

    def draw(self, states: Floats) -> Pixels:
        """[N, S] -> [N, 3, H, W]."""


class SimulatedSession:
    """N agents in their states, stepped and drawn by a simulation (`worldmodel.worlds.Session`).

    Args:
        simulation: who does it.
        states: [N, S], where the agents start.
        low: [A], lowest action; what lies outside is clipped.
        high: [A], highest action.
    """

    def __init__(self, simulation: Simulation, states: Floats, low: Floats, high: Floats) -> None:
        self._simulation, self._low, self._high = simulation, low, high
        self.states = np.array(states, np.float32)

    def step(self, actions: Floats) -> Floats:
        """Act once everywhere: [N, A] -> states [N, S].

        Raises: ValueError if the shape is another or an action is not finite.
        """
        wanted = (len(self.states), len(self._low))
        if actions.shape != wanted or not np.isfinite(actions).all():
            raise ValueError(f"actions must be finite {list(wanted)}, got {list(actions.shape)}")
        clipped = np.clip(actions, self._low, self._high).astype(np.float32)
        self.states = self._simulation.step(self.states, clipped)
        return self.states.copy()

    def render(self, agents: NDArray[np.int64] | None = None) -> Pixels:
        """Frames as they are now, of all agents or of those named: [n, 3, H, W]."""
        return self._simulation.draw(self.states if agents is None else self.states[agents])

    def close(self) -> None:
        """Nothing to give back: the simulation belongs to the world."""


def _send(pipe: Connection, message: Any) -> None:
    # Who is dead says so when it is asked for its answer.
    with suppress(ConnectionError):
        pipe.send(message)


def _each(simulator: Simulator, what: str, arrays: tuple[NDArray[Any], ...]) -> Any:
    if what == "renderer":
        return simulator.renderer()
    act = getattr(simulator, what)
    return np.stack([act(*row) for row in zip(*arrays, strict=True)])


def serve(pipe: Connection) -> None:
    """What a worker does all day: first it is told its simulator, then one call after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asked
    simulator: Simulator | None = None
    make: Callable[[], Simulator] = pipe.recv()
    while True:
        try:
            what, arrays = pipe.recv()
        except EOFError:
            os._exit(0)  # at once: graphics drivers complain when an interpreter is taken down
        try:
            simulator = simulator or make()
            answer: tuple[bool, Any] = (False, _each(simulator, what, arrays))
        except (ImportError, OSError, ValueError) as error:
            answer = (True, type(error)(str(error)))
        except Exception as error:
            answer = (True, OSError(f"a simulator failed: {type(error).__name__}: {error}"))
        pipe.send(answer)


def _stop(pipes: list[Connection], processes: list[subprocess.Popen[bytes]]) -> None:
    for pipe in pipes:
        pipe.close()  # which a worker takes as the end of its day
    for process in processes:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
