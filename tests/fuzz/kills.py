"""Kills at random moments: what was begun goes on with --resume and ends as if nothing had been."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py

from fuzz.calls import Outcome
from fuzz.children import Child, Ended, command, verdict
from fuzz.words import _MODEL, TRAIN


class Job(NamedTuple):
    """A command that can be continued."""

    words: tuple[str, ...]  #: {} is the folder of inputs, OUT the output
    ranks: int = 1


_LONG = (
    "--steps",
    "60",
    "--checkpoint-every",
    "20",
    "--report-every",
    "7",
    "--held-out-windows",
    "4",
)
_TRAIN = ("train", "--data", "{}/data.h5", "--out", "OUT", *TRAIN[2:], *_LONG, *_MODEL)
JOBS = {
    "train": Job(_TRAIN),
    "train, 2 workers": Job((*_TRAIN, "--workers", "2")),
    "train, 2 ranks": Job(_TRAIN, ranks=2),
    "collect": Job(("data", "collect", "--episodes", "80", "--length", "30", "--size", "32",
                    "--out", "OUT")),
    "evaluate": Job(("evaluate", "{}/run", "--manifest", "{}/pairs.json", "--out", "OUT",
                     "--films", "0", "--device", "cpu", "--samples", "8", "--iterations", "2")),
    "demo": Job(("demo", "--out", "OUT", "--steps", "20", "--device", "cpu")),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def begin(job: Job, inputs: Path, out: Path, *more: str) -> list[Child]:
    """Begin a job on all of its ranks."""
    words = [w.replace("{}", str(inputs)).replace("OUT", str(out)) for w in (*job.words, *more)]
    told = [out.with_name(f"{out.name}.{rank}.txt") for rank in range(job.ranks)]
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


def wait(children: list[Child], limit: float) -> list[Ended]:
    """The ends of all, each within the limit."""
    return [child.wait(limit) for child in children]


def result(out: Path) -> dict[str, object]:
    """What decides whether two outputs are equal: weights, tables without clocks, episodes."""
    if out.is_file():
        with h5py.File(out) as file:
            return {name: file[name][()].tobytes() for name in file}
    found: dict[str, object] = {}
    for name in ("model.safetensors", "held_out.csv", "episodes.json"):
        if (out / name).exists():
            found[name] = (out / name).read_bytes()
    if (out / "curves.csv").exists():
        lines = (out / "curves.csv").read_text(encoding="utf-8").splitlines()
        found["curves.csv"] = [line.rpartition(",")[0] for line in lines]
    if (out / "result.json").exists():
        import json

        kept = json.loads((out / "result.json").read_text(encoding="utf-8"))
        outcomes = kept["outcomes"]
        found["result.json"] = [kept["success_rate"], kept["final_distance"], outcomes]
    return found


def fuzz_kills(
    inputs: Path, *, seed: int, seconds: float, names: tuple[str, ...] = tuple(JOBS)
) -> Iterator[Outcome]:
    """Kill each job in turn, at random moments, as long as there is time; at least once each."""
    drawn, end = random.Random(seed), time.monotonic() + seconds
    wholes: dict[str, tuple[float, dict[str, object]]] = {}
    turn = 0
    while turn < len(names) or time.monotonic() < end:
        name = names[turn % len(names)]
        turn += 1
        job = JOBS[name]
        if name not in wholes:
            whole = inputs.parent / "whole"
            _clear(whole)
            began = time.monotonic()
            ends = wait(begin(job, inputs, whole), 240)
            if any(e.status for e in ends):
                yield Outcome(name, "", "not killed", verdict(ends[0]), ends[0].said[-200:])
                continue
            wholes[name] = time.monotonic() - began, result(whole)
        lasts, expected = wholes[name]
        yield _one(name, job, inputs, drawn, lasts, expected)


def _one(
    name: str, job: Job, inputs: Path, drawn: random.Random, lasts: float,
    expected: dict[str, object],
) -> Outcome:  # fmt: skip
    out = inputs.parent / "killed"
    _clear(out)
    which, group, when = drawn.choice(SIGNALS), drawn.random() < 0.5, drawn.random() * lasts
    children = begin(job, inputs, out)
    time.sleep(when)
    drawn.choice(children).kill(which, group=group)
    ends = wait(children, 40)
    # The one that was killed at once had no words; those that can speak must end clearly.
    what = f"{which.name}{' to the group' if group else ''} after {when:.1f} of {lasts:.1f} s"
    for ended in ends:
        said = verdict(ended)
        if said in ("traceback", "hang", "bug"):
            return Outcome(name, "", what, said, ended.said[-300:])
    finished = all(ended.status == 0 for ended in ends)
    begun = (out / "train.json").exists() or out.exists()
    if not finished:
        # A start that was killed before it wrote anything is begun again.
        ends = wait(begin(job, inputs, out, *(["--resume"] if begun else [])), 240)
        refused = "needs a run folder" in ends[0].said
        if refused:
            ends = wait(begin(job, inputs, out), 240)
        if any(ended.status for ended in ends):
            told = next(e for e in ends if e.status)
            return Outcome(name, "", what, f"lost: {verdict(told)}", told.said[-300:])
    found = result(out)
    unequal = [key for key in expected if found.get(key) != expected[key]]
    return Outcome(name, "", what, "unequal" if unequal else "legitimate", ", ".join(unequal))


def _clear(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for path in out.parent.glob(f"{out.name}*"):
        if path.is_file():
            path.unlink()
