"""Ctrl-C, or a polite kill, between two steps and never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["kill_is_interrupt", "whole_steps"]


@contextmanager
def _handled(*numbers: signal.Signals, usual: Any, by: Any) -> Iterator[None]:
    """Another handler of signals; none outside the main thread, or where somebody else has one."""
    main = threading.current_thread() is threading.main_thread()
    mine = [number for number in numbers if main and signal.getsignal(number) is usual]
    for number in mine:
        signal.signal(number, by)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, usual)


@contextmanager
def whole_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called, which then raises it.

    A step cut in half leaves moved batch statistics and spent random numbers behind: a run resumed
    from there would not end where an uninterrupted one does.
    """
    held: list[int] = []

    def release() -> None:
        if held:
            raise KeyboardInterrupt

    both, usual = (signal.SIGINT, signal.SIGTERM), signal.default_int_handler
    with _handled(*both, usual=usual, by=lambda number, _: held.append(number)):
        yield release


@contextmanager
def kill_is_interrupt() -> Iterator[None]:
    """SIGTERM, with which Slurm and systemd end a job, means Ctrl-C."""
    with _handled(signal.SIGTERM, usual=signal.SIG_DFL, by=signal.default_int_handler):
        yield
