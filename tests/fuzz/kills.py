"""Kills at random moments: the same command continues, and ends as an undisturbed one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from fuzz.calls import Outcome
from fuzz.children import Child, Ended, command, learn, verdict
from fuzz.words import _MODEL, TRAIN


class Job(NamedTuple):
    """A command that can be continued."""

    words: tuple[str, ...]  #: {} is the folder of inputs, OUT the output
    again: tuple[str, ...] = ()  #: what is added to go on
    mark: str = ""  #: the file of OUT without which nothing was begun; none: add it always
    ranks: int = 1


_TRAIN = ("train", "--data", "{}/data.h5", "--out", "OUT", *TRAIN[2:], *_MODEL, "--steps", "24",
          "--checkpoint-every", "6", "--report-every", "7", "--held-out-windows", "4")  # fmt: skip
_RESUME = ("--resume",)
JOBS = {
    "train": Job(_TRAIN, _RESUME, "train.json"),
    "train, 2 workers": Job((*_TRAIN, "--workers", "2"), _RESUME, "train.json"),
    "train, 2 ranks": Job(_TRAIN, _RESUME, "train.json", ranks=2),
    "collect": Job(("data", "collect", "--episodes", "60", "--length", "20", "--size", "16",
                    "--out", "OUT"), _RESUME),
    "evaluate": Job(("evaluate", "{}/run", "--manifest", "{}/pairs.json", "--out", "OUT",
                     "--films", "0", "--device", "cpu", "--samples", "8", "--iterations", "2",
                     "--batch-size", "1")),
    "demo": Job(("demo", "--out", "OUT", "--device", "cpu", "--steps", "20", "--episodes", "8",
                 "--held-out", "8", "--length", "20", "--pairs", "3", "--offset", "4", "--budget",
                 "5", "--image-size", "16", "--dim", "8", "--batch-size", "4", "--num-proj", "4"),
                _RESUME, "demo.json"),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_DONE = ("needs an unfinished run", "must not hold a result yet")
_PASSING = ("planning_seconds", "wall_seconds", "commit")  # when and from where


def begin(job: Job, inputs: Path, out: Path, *more: str, who: str = "") -> list[Child]:
    """Begin a job on all of its ranks; `who` tells their words from those of others."""
    words = [w.replace("{}", str(inputs)).replace("OUT", str(out)) for w in (*job.words, *more)]
    told = [inputs.parent / f"{out.name}{who}.{rank}.txt" for rank in range(job.ranks)]
    if job.ranks == 1:
        return [command(words, told[0])]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(job.ranks), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        command(words, told[r], {**common, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(job.ranks)
    ]


def wait(children: list[Child], limit: float | None = None) -> list[Ended]:
    """The ends of all; some seconds after one failed the others are told to, as a launcher does."""
    end = time.monotonic() + (limit or Child.limit)
    failed = end
    while [child for child in children if not child.ended(0.01)] and time.monotonic() < end:
        now = time.monotonic()
        if failed == end and any(child.status for child in children):
            failed = now
        elif now > failed + 3:
            for child in children:
                child.kill(signal.SIGTERM, group=True)
            failed = end + 1
    return [child.wait(0.01) for child in children]


def result(out: Path) -> dict[str, Any]:
    """What decides whether two outputs are equal: weights, tables and figures without clocks."""
    if out.is_file():
        with h5py.File(out) as file:
            return {name: file[name][()].tobytes() for name in file}
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    # Where it was stopped decides which checkpoints are left, and the clock TensorBoard's names.
    parts = ("checkpoints", "tensorboard")
    found: dict[str, Any] = {"files": {n for n in names if not n.startswith(parts)}}
    for name in names & {"model.safetensors", "held_out.csv", "episodes.json"}:
        found[name] = (out / name).read_bytes()
    if "curves.csv" in names:
        lines = (out / "curves.csv").read_text(encoding="utf-8").splitlines()
        found["curves.csv"] = [line.rpartition(",")[0] for line in lines]
    for name in names & {"result.json", "report.json"}:
        kept = json.loads((out / name).read_text(encoding="utf-8"))
        for part in (kept, kept.get("fingerprint", {})):
            for key in _PASSING:
                part.pop(key, None)
        found[name] = kept
    return found


def unequal(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of what differs between two outputs."""
    files = set(found.pop("files", ())) ^ set(wanted.get("files", ()))
    other = {k for k in {*found, *wanted} - {"files"} if found.get(k) != wanted.get(k)}
    return sorted(files | other)


def fuzz_kills(inputs: Path, *, seed: int, seconds: float, count: int = 0) -> Iterator[Outcome]:
    """Kill each job in turn, at random moments: `count` times, or as long as there is time."""
    drawn, end = random.Random(seed), time.monotonic() + seconds
    wholes: dict[str, tuple[float, dict[str, Any]]] = {}
    turn, names = 0, [*JOBS, *(n for n in JOBS if n != "demo")]  # the slowest is rare
    while names and (turn < (count or len(names)) or (not count and time.monotonic() < end)):
        name = names[turn % len(names)]
        turn += 1
        job = JOBS[name]
        if name not in wholes:
            whole, began = new(inputs, "whole"), time.monotonic()
            ends = wait(begin(job, inputs, whole), 600)
            learn(inputs.parent)
            if any(e.status for e in ends):
                yield Outcome(name, "", "not killed", verdict(ends[0]), ends[0].said[-200:])
                names.remove(name)
                continue
            wholes[name] = time.monotonic() - began, result(whole)
        yield _one(name, job, inputs, drawn, *wholes[name])


def _one(
    name: str, job: Job, inputs: Path, drawn: random.Random, lasts: float, wanted: dict[str, Any]
) -> Outcome:
    out = new(inputs, "killed")
    which, group, when = drawn.choice(SIGNALS), drawn.random() < 0.5, drawn.random() * lasts
    limit = max(Child.limit, 10 * lasts)
    children = begin(job, inputs, out)
    time.sleep(when)
    for child in children if group else [drawn.choice(children)]:
        # Of one process and those that load its data, one.
        child.kill(which, group=group, among=drawn)
    ends = wait(children, limit)
    what = f"{which.name}{' to the group' if group else ''} after {when:.1f} of {lasts:.1f} s"
    for ended in ends:
        # The one that was killed at once had no words; those that can speak must end clearly.
        quiet = ended.status in (0, 130, -which) and "Traceback" not in ended.said
        if not quiet and (said := verdict(ended)) != "clear":
            return Outcome(name, "", what, said, ended.said[-300:])
    if any(ended.status for ended in ends):
        # What was killed before it wrote anything is begun again.
        again = job.again if not job.mark or (out / job.mark).is_file() else ()
        ends = _resumed(job, inputs, out, again, limit)
        done = all(any(w in e.said for w in _DONE) for e in ends if e.status)
        if any(ended.status for ended in ends) and not done:
            told = next(e for e in ends if e.status)
            return Outcome(name, "", what, f"lost: {verdict(told)}", told.said[-300:])
    other = unequal(result(out), wanted)
    return Outcome(name, "", what, "unequal" if other else "legitimate", ", ".join(other))


def _resumed(
    job: Job, inputs: Path, out: Path, again: tuple[str, ...], limit: float
) -> list[Ended]:
    """The ends of the command that goes on, once the last process of the killed one is gone."""
    end = time.monotonic() + limit
    while True:
        ends = wait(begin(job, inputs, out, *again), limit)
        held = any("is being written by" in ended.said for ended in ends)
        if not held or time.monotonic() > end:
            return ends
        time.sleep(0.5)


def new(inputs: Path, name: str) -> Path:
    """An output of this name, with nothing there."""
    out = inputs.parent / name
    shutil.rmtree(out, ignore_errors=True)
    for path in out.parent.glob(f"{name}*"):
        if path.is_file():
            path.unlink()
    return out
