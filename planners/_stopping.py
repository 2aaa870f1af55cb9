"""When a search is over before its last iteration, asked without making the device wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from planners._arguments import number
from planners._record import choose

Stopped = Literal["iterations", "converged", "deadline"]
LOOK = 5  # iterations from one look at the plan to the next


class Stopping:
    """Looks at a search from outside: has its plan settled, is the time over?

    Settled is a problem whose method looks no further than `stop` around its plan (`State.spread`)
    while no entry of the plan has moved by more since the last look. It keeps the state it has
    then, so that nobody's plan depends on how long the others search.

    On a GPU the host reads the answer of the look before the last one, `LOOK` iterations back: the
    device never runs out of work. The clock compares the time with the marks that the device has
    passed, and waits for the first of them alone.

    `marks` makes marks in the device's queue (None: as `start` [B, H, A] needs them), `now` is a
    clock in seconds.
    """

    def __init__(
        self,
        stop: float | None,
        deadline: float | None,
        start: Tensor,
        *,
        marks: Callable[[], Any] | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        number("stop", stop, "(0, inf)", optional=True)
        number("deadline", deadline, "(0, inf)", optional=True)
        self._stop, self._deadline = stop, deadline
        self._now = now or time.perf_counter
        self._began = self._now()
        self._marks = torch.cuda.Event if marks is None and start.is_cuda else marks
        self._queue: deque[Any] = deque()
        self._passed, self._at, self._pace = 0, self._began, 0.0
        self._plan = start
        self._settled = torch.zeros_like(start[:, 0, 0], dtype=torch.bool)
        self._kept: Any = None
        self._answer: tuple[Any, Tensor] | None = None

    def over(self, done: int, plan: Callable[[], Tensor], kept: Callable[[], Any]) -> Stopped:
        """What ends the search after `done` iterations; "iterations" if it goes on.

        `plan` gives [B, H, A] as it would be returned now, `kept` the state and what else is to
        stay where a problem has settled, of the same shapes each time.
        """
        if self._stop is not None and done % LOOK == 0 and self._look(plan(), kept(), self._stop):
            return "converged"
        late = self._deadline is not None and self._late(done, self._began + self._deadline)
        return "deadline" if late else "iterations"

    def result(self, kept: Any) -> Any:
        """What is returned: where a problem has settled, what it had then."""
        return kept if self._kept is None else choose(self._settled, self._kept, kept)

    def _look(self, plan: Tensor, kept: Any, stop: float) -> bool:
        quiet = kept[0].spread <= stop
        if isinstance(quiet, Tensor):
            quiet = quiet.reshape(len(plan), -1).all(1)
        self._kept = self.result(kept)
        moved = (plan - self._plan).abs().flatten(1).amax(1)
        self._settled = self._settled | ((moved <= stop) & quiet)
        self._plan = plan
        answer = self._settled.all()
        if self._marks is None:
            return bool(answer)
        copied = torch.empty((), dtype=torch.bool, device="cpu", pin_memory=answer.is_cuda)
        copied.copy_(answer, non_blocking=True)
        before, self._answer = self._answer, (self._mark(), copied)
        if before is None:
            return False
        before[0].synchronize()
        return bool(before[1])

    def _late(self, done: int, limit: float) -> bool:
        """Whether the work that is queued and one more iteration would end after the limit."""
        passed = done
        if self._marks is not None:
            self._queue.append(self._mark())
            if not self._passed and done > 1:
                self._queue[0].synchronize()
            passed = self._passed
            while self._queue and self._queue[0].query():
                self._queue.popleft()
                passed += 1
        now = self._now()
        if passed > self._passed:
            self._pace = (now - self._at) / (passed - self._passed)
            self._passed, self._at = passed, now
        # What is queued began to run at the last mark that was passed.
        return now > limit or self._at + (done + 1 - passed) * self._pace > limit

    def _mark(self) -> Any:
        assert self._marks is not None
        mark = self._marks()
        mark.record()
        return mark
