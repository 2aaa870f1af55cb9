"""`python tests/fuzz --minutes 5 [--seed 0] [--only calls,words,...] [--kills 200] [--save]`.

A table of what malformed calls, words and files, full disks, commands begun twice and kills came
to; ends 1 on anything that must not be. Everything happens in a temporary folder, within about the
minutes that are given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fuzz import bases, calls, disks, files, kills, twice, words
from fuzz.calls import Outcome
from fuzz.children import LIMIT, Child, command, learn

GOOD = ("clear", "other name", "legitimate")
# Every kind, what it spoils in the words of the table, and the share that must be good.
KINDS = {
    "calls": ("one argument of a library call", 0.97),
    "words": ("one option of a command", 1.0),
    "files": ("one file that a command reads", 1.0),
    "disks": ("the disk: full, then with room", 1.0),
    "twice": ("the same command, begun twice at once", 1.0),
    "kills": ("a kill, then the same command", 1.0),
}


def prepare(folder: Path) -> Path:
    """Inputs that commands read: episodes, a finished run, one that was begun, a task, a result."""
    inputs = folder / "inputs"
    inputs.mkdir()
    data, told = inputs / "data.h5", folder / "told.txt"
    model = words._MODEL
    train = ("train", "--data", data, *words.TRAIN, *model)
    script: tuple[tuple[object, ...], ...] = (
        ("data", "collect", "--episodes", 8, "--length", 20, "--size", 16, "--out", data),
        (*train, "--out", inputs / "run"),
        # Behind the first of its steps.
        ("train", "--data", data, *words.TRAIN[2:], *model, "--steps", 9, "--minutes", "1e-9",
         "--out", inputs / "begun"),
        ("manifest", "--env", "two-room", "--pairs", 4, "--offset", 5, "--budget", 10, "--out",
         inputs / "pairs.json"),
        ("evaluate", inputs / "run", "--manifest", inputs / "pairs.json", "--out", folder / "e",
         "--films", 0, "--device", "cpu", "--samples", 8, "--iterations", 2),
    )  # fmt: skip
    for line in script:
        began = time.monotonic()
        ended = command([str(word) for word in line], told).wait(600)
        learn(folder)
        # A command takes half a second on a quiet machine, more on a slow or busy one.
        Child.limit = max(Child.limit, LIMIT * 2 * (time.monotonic() - began))
        if ended.status != 0:
            raise RuntimeError(f"{line} ended {ended.status}: {ended.said[-500:]}")
    for name in ("result.json", "other.json"):
        (inputs / name).write_bytes((folder / "e" / "result.json").read_bytes())
    (inputs / "settings.yaml").write_text(
        json.dumps({"steps": 2, "seed": 1, "model": {}}), encoding="utf-8"
    )
    (inputs / "link").symlink_to(data)
    return inputs


def bounded(outcomes: Iterator[Outcome], seconds: float) -> Iterator[Outcome]:
    """Outcomes until the time is over."""
    end = time.monotonic() + seconds
    for one in outcomes:
        yield one
        if time.monotonic() > end:
            return


def main() -> int:
    """Run the kinds that are asked for, print the table, say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--kills", type=int, default=0, help="as many kills, however long it takes")
    parser.add_argument("--names", default="", help="library calls whose name matches")
    parser.add_argument("--log", type=Path, help="every outcome, a line each")
    parser.add_argument("--save", action="store_true", help="rows of benchmarks/results/fuzz.json")
    told = parser.parse_args()
    sys.argv[0] = str(Path(sys.argv[0]).resolve())
    torch.set_num_threads(1)
    chosen = [kind for kind in KINDS if kind in told.only.split(",")]
    seconds, seed = 60 * told.minutes / len(chosen), told.seed
    tables: dict[str, Counter[str]] = {}
    wrong: list[Outcome] = []
    log = (told.log or Path(os.devnull)).resolve().open("w", encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.chdir(folder)
        inputs = prepare(folder) if set(chosen) - {"calls"} else folder
        # A quarter of an hour of two slow cores sees all calls: a shorter run, a share of them.
        runs: dict[str, Callable[[], Iterator[Outcome]]] = {
            "calls": lambda: calls.fuzz_calls(
                bases.make_bases(folder), seed=seed, share=min(1.0, seconds / 400),
                names=told.names,
            ),
            "words": lambda: words.fuzz_words(inputs, seed=seed, share=min(1.0, seconds / 600)),
            "files": lambda: files.fuzz_files(inputs, seed=seed, count=10**6),
            "disks": lambda: disks.fuzz_disks(inputs, seed=seed),
            "twice": lambda: twice.fuzz_twice(inputs, seed=seed),
            "kills": lambda: kills.fuzz_kills(
                inputs, seed=seed, seconds=seconds, count=told.kills
            ),
        }  # fmt: skip
        for kind in chosen:
            counts = tables[kind] = Counter()
            least = {"calls": 4 * seconds, "kills": 1e9}.get(kind, seconds)
            for one in bounded(runs[kind](), least):
                counts[one.verdict.partition(":")[0]] += 1
                log.write(" | ".join([kind, *(" ".join(part.split()) for part in one)]) + "\n")
                log.flush()
                if one.verdict not in GOOD:
                    wrong.append(one)
            sys.stdout.write(f"{kind:<6} {sum(counts.values()):>6}  {dict(counts)}\n")
            sys.stdout.flush()
        os.chdir("/")
    failed = []
    for kind, counts in tables.items():
        if not counts:
            continue  # it said why
        good = sum(counts[name] for name in GOOD) / sum(counts.values())
        if good < KINDS[kind][1] or counts["hang"] or counts["traceback"]:
            failed.append(f"{kind}: {good:.1%} clear or legitimate")
    for one in [o for o in wrong if o.verdict not in ("obscure", "accepted", "nan")][:40]:
        sys.stdout.write(f"  {' | '.join(' '.join(part.split()) for part in one)}\n")
    if told.save:
        save(tables, seed)
    sys.stdout.write("\n".join([*failed, ""]) if failed else "all is clear or legitimate\n")
    return bool(failed)


def save(tables: Mapping[str, Counter[str]], seed: int) -> None:
    """Keep what these kinds came to, beside the earlier rows of the others.

    Several seeds at one commit are counted together; another commit begins anew.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import harness

    path, rows, commit = harness.RESULTS / "fuzz.json", {}, harness._commit()
    if path.exists():
        rows = {row["kind"]: row for row in json.loads(path.read_text())["results"]}
    for kind, counts in tables.items():
        if rows.get(kind, {}).get("commit") != commit:
            rows[kind] = {"kind": kind, "commit": commit, "seeds": {}}
        rows[kind]["seeds"][str(seed)] = counts
    found = []
    for kind in filter(rows.__contains__, KINDS):
        ill = sum(map(Counter, rows[kind]["seeds"].values()), Counter())
        total = sum(ill.values())
        told = [ill.pop(name, 0) for name in GOOD]
        bad = ", ".join(f"{ill[name]} {name}" for name in sorted(ill)) or "none"
        share = f"{100 * sum(told) / max(total, 1):.2f} %"
        must = f"{'≥ ' if KINDS[kind][1] < 1 else ''}{100 * KINDS[kind][1]:.0f} %"
        found.append([KINDS[kind][0], total, *told, bad, share, must, rows[kind]["commit"]])
    heads = ("spoiled", "tried", "error that names it", "error by another name", "no error needed",
             "anything else", "good", "must", "commit")  # fmt: skip
    question = (
        "What do malformed calls, words and files, full disks, a second process and kills do?"
    )
    kept = [rows[kind] for kind in KINDS if kind in rows]
    note = "Each kind was run by itself, at the commit of its row."
    harness.save("fuzz", question, kept, columns=heads, rows=found, note=note)


if __name__ == "__main__":
    sys.exit(main())
