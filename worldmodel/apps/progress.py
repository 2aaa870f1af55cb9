"""Progress of a command: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def say(text: str) -> None:
    """Print one line, above a bar if there is one."""
    # With tqdm's lock, an interrupt here would become another error inside tqdm.
    tqdm.write(text, file=sys.stdout, nolock=True)
    sys.stdout.flush()


class Progress:
    """Counts from `start` to `total`, and shows rate, time left and values: a bar, or ten lines.

    `unit` is the name of a step. A `quiet` one prints nothing; all ranks but the first use it.
    """

    def __init__(
        self, title: str, total: int, *, start: int = 0, unit: str = "step", quiet: bool = False
    ) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.done, self.began, self.first = start, time.monotonic(), start
        self.stride = max((total - start) // 10, 1)
        self.next = start + self.stride
        self.bar: Any = None
        if sys.stderr.isatty() and not quiet:
            self.bar = tqdm(total=total, initial=start, desc=title, unit=unit, smoothing=0.1)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def over(self, things: Iterable[T]) -> Iterator[T]:
        """Yield each of `things`, and count it when the next one is asked for."""
        for thing in things:
            yield thing
            self.update()

    def update(self, steps: int = 1, **values: float) -> None:
        """Count `steps` more and show the values."""
        self.done += steps
        if self.bar is not None:
            self.bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
            self.bar.update(steps)
        elif not self.quiet and (self.done >= self.next or self.done == self.total):
            self.next = self.done + self.stride
            rate = (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            shown = "".join(f"  {k} {v:.3g}" for k, v in values.items())
            count = f"{self.title}  {self.done}/{self.total} {self.unit}s{shown}"
            say(f"{count}  {rate:.1f}/s  {left:.0f} s left")
