"""Ctrl-C, or a polite kill, between two steps and never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["kill_is_interrupt", "whole_steps"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def whole_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called, which then raises it.

    A step cut in half leaves moved batch statistics and spent random numbers behind: a run resumed
    from there would not end where an uninterrupted one does. Outside the main thread, or where
    somebody else handles the signal, nothing changes.
    """
    mine = [
        number
        for number in _SIGNALS
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is signal.default_int_handler
    ]
    held: list[int] = []

    def release() -> None:
        if held:
            raise KeyboardInterrupt

    for number in mine:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield release
    finally:
        for number in mine:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def kill_is_interrupt() -> Iterator[None]:
    """SIGTERM, with which Slurm and systemd end a job, means Ctrl-C.

    Outside the main thread, or where somebody else handles the signal, nothing changes.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
