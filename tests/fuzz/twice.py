"""The same command begun twice: one goes on, the other is told in a line who holds the output."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from fuzz.calls import Outcome
from fuzz.children import Child, learn, verdict
from fuzz.kills import JOBS, Job, begin, new, result, unequal, wait

NAMES = ("collect", "evaluate", "train", "demo")


def fuzz_twice(inputs: Path, *, seed: int) -> Iterator[Outcome]:
    """Two processes at one output: the second at once, and at random moments of the first."""
    drawn = random.Random(seed)
    for name in NAMES:
        job, half = JOBS[name], inputs.parent / f"half-{name}"
        if name == "train":
            # Begun before, and continued by both.
            ends = wait(begin(job, inputs, half, "--minutes", "1e-9"))
            job = job._replace(words=(*job.words, *job.again))
        whole, began = new(inputs, "whole"), time.monotonic()
        _copy(half, whole)
        ends = wait(begin(job, inputs, whole), 600)
        learn(inputs.parent)
        if any(ended.status for ended in ends):
            raise RuntimeError(f"{name} ended {ends[0].status}: {ends[0].said[-500:]}")
        lasts, wanted = time.monotonic() - began, result(whole)
        for delay in (0.0, 0.0, *(drawn.random() * 0.8 * lasts for _ in range(4))):
            out = new(inputs, "out")
            _copy(half, out)
            found = _one(job, inputs, out, delay)
            other = unequal(result(out), wanted) if found[0] in ("clear", "other name") else ()
            said = f"unequal: {', '.join(other)}" if other else found[0]
            yield Outcome(
                name, "", f"the second after {delay:.1f} of {lasts:.1f} s", said, found[1]
            )


def _one(job: Job, inputs: Path, out: Path, delay: float) -> tuple[str, str]:
    (first,) = begin(job, inputs, out)
    time.sleep(delay)
    (second,) = begin(job, inputs, out, who="second")
    both: tuple[Child, Child] = (first, second)
    ends = [child.wait(10 * Child.limit) for child in both]
    ill = [ended for ended in ends if ended.status]
    if len(ill) != 1:
        return f"{2 - len(ill)} went on", " / ".join(ended.said[-150:] for ended in ends)
    holder = both[[bool(ended.status) for ended in ends].index(False)]
    return verdict(ill[0], f"process {holder.pid} "), ill[0].said[-200:]


def _copy(half: Path, out: Path) -> None:
    if half.exists():
        shutil.copytree(half, out)
