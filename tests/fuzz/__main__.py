"""`python tests/fuzz --minutes 5 [--seed 0] [--only calls,words,files,kills] [--save FILE]`.

A table of what malformed calls, words, files and kills came to; ends 1 on anything that must not
be. Everything happens in a temporary folder, within about the minutes that are given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fuzz import bases, calls, files, kills, words
from fuzz.calls import Outcome
from fuzz.children import command

GOOD = ("clear", "other name", "legitimate")
LEAST = 0.97  # of library calls
KINDS = ("calls", "words", "files", "kills")


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
        (*train, "--out", inputs / "begun", "--checkpoint-every", 1),
        ("manifest", "--env", "two-room", "--pairs", 4, "--out", inputs / "pairs.json"),
        ("evaluate", inputs / "run", "--manifest", inputs / "pairs.json", "--out", folder / "e",
         "--films", 0, "--device", "cpu", "--samples", 8, "--iterations", 2),
    )  # fmt: skip
    for line in script:
        ended = command([str(word) for word in line], told).wait(120)
        if ended.status != 0:
            raise RuntimeError(f"{line} ended {ended.status}: {ended.said[-500:]}")
    (inputs / "begun" / "report.json").unlink()  # as if it had been interrupted
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
    parser.add_argument("--names", default="", help="library calls whose name matches")
    parser.add_argument("--log", type=Path, help="every outcome, a line each")
    parser.add_argument("--save", action="store_true", help="into benchmarks/results/fuzz.json")
    told = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [kind for kind in KINDS if kind in told.only.split(",")]
    seconds = 60 * told.minutes / len(chosen)
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
                bases.make_bases(folder), seed=told.seed, share=min(1.0, seconds / 400),
                names=told.names,
            ),
            "words": lambda: words.fuzz_words(
                inputs, seed=told.seed, share=min(1.0, seconds / 600)
            ),
            "files": lambda: files.fuzz_files(inputs, seed=told.seed, count=10**6),
            "kills": lambda: kills.fuzz_kills(inputs, seed=told.seed, seconds=seconds),
        }  # fmt: skip
        for kind in chosen:
            counts = tables[kind] = Counter()
            for one in bounded(runs[kind](), seconds if kind != "calls" else 4 * seconds):
                counts[one.verdict.partition(":")[0]] += 1
                log.write(f"{kind} | " + " | ".join(one) + "\n")
                log.flush()
                if one.verdict not in GOOD:
                    wrong.append(one)
            sys.stdout.write(f"{kind:<6} {sum(counts.values()):>6}  {dict(counts)}\n")
            sys.stdout.flush()
        os.chdir("/")
    failed = []
    for kind, counts in tables.items():
        total = max(sum(counts.values()), 1)
        good = sum(counts[name] for name in GOOD) / total
        if good < (LEAST if kind == "calls" else 1.0) or counts["hang"] or counts["traceback"]:
            failed.append(f"{kind}: {good:.1%} clear or legitimate")
    for one in [o for o in wrong if o.verdict not in ("obscure", "accepted", "nan")][:40]:
        sys.stdout.write(f"  {' | '.join(one)}\n")
    if told.save:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
        import harness

        rows = [{"kind": kind, **counts} for kind, counts in tables.items()]
        question = "What do malformed calls, words and files, and kills come to?"
        harness.save("fuzz", question, rows, extra={"minutes": told.minutes, "seed": told.seed})
    sys.stdout.write("\n".join([*failed, ""]) if failed else "all is clear or legitimate\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
