"""Ctrl-C between two steps, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["whole_steps"]


@contextmanager
def whole_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called, which then raises it.

    A step cut in half leaves moved batch statistics and spent random numbers behind: a run resumed
    from there would not end where an uninterrupted one does. Outside the main thread, or where
    somebody else handles the signal, nothing changes.
    """
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    held: list[int] = []

    def release() -> None:
        if held:
            raise KeyboardInterrupt

    if not mine:
        yield release
        return
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield release
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
