"""Hostile files: flipped bytes, cut ends, other schemas, and payloads that must not run."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.calls import Outcome
from fuzz.children import command, learn, verdict

DEEP: Any = json.loads("[" * 400 + "]" * 400)
OTHERS: tuple[Any, ...] = ([], {}, "x", -1, 1.5, None, True, 10**9, 10**30, float("inf"), DEEP,
                           "<script>alert(1)</script>", "../../etc/passwd")  # fmt: skip
_SHORT = ("--films", "0", "--device", "cpu", "--samples", "8", "--iterations", "2")
# One step more: the last would be followed by charts.
_RESUME = ("train", "--resume", "--out", "{}/begun", "--minutes", "1e-9")
# A file below the inputs, and the commands that read it; {} is a copy of the inputs.
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "data.h5": (("data", "inspect", "{}/data.h5", "--sheet", "{}/s.png"),
                ("data", "convert", "{}/data.h5", "{}/c.h5")),
    "run/config.json": (("manifest", "--env", "two-room", "--data", "{}/data.h5", "--pairs", "2",
                         "--offset", "2", "--unseen-by", "{}/run", "--out", "{}/m.json"),),
    "run/model.safetensors": (("evaluate", "{}/run", "--manifest", "{}/pairs.json", "--out",
                               "{}/e", *_SHORT),),
    "run/episodes.json": (("manifest", "--env", "two-room", "--data", "{}/data.h5", "--pairs", "2",
                           "--offset", "2", "--unseen-by", "{}/run", "--out", "{}/m.json"),),
    "begun/train.json": (_RESUME,),
    "begun/checkpoints/step-000000001.safetensors": (_RESUME,),
    "begun/curves.csv": (_RESUME,),
    "begun/held_out.csv": (_RESUME,),
    "pairs.json": (("evaluate", "{}/run", "--manifest", "{}/pairs.json", "--out", "{}/e",
                    *_SHORT),),
    "result.json": (("compare", "{}/result.json", "{}/other.json", "--out", "{}/cmp.json"),),
    "settings.yaml": (("train", "--config", "{}/settings.yaml", "--data", "{}/data.h5", "--out",
                       "{}/new", "--steps", "1", "--batch-size", "4"),),
}  # fmt: skip


class Payload:
    """What unpickling would run: it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (_touch, (str(self.mark),))


def _touch(path: str) -> None:
    Path(path).touch()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON document; of a list the first entry."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(
        value, list) else ()  # fmt: skip
    for key, one in entries:
        yield from places(one, (*path, key))


def changed(document: Any, path: tuple[Any, ...], to: Any) -> Any:
    """The document with another value at a place; with `...`, without the place."""
    if not path:
        return to
    copy = json.loads(json.dumps(document))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return copy


def spoiled(content: bytes, name: str, drawn: random.Random, mark: Path) -> tuple[str, bytes]:
    """One hostile version of a file, and what was done in words."""
    kind = drawn.random()
    if name.endswith((".json", ".yaml")) and kind < 0.7:
        document = json.loads(content)
        path = drawn.choice(list(places(document)))
        to = drawn.choice([*OTHERS, *([...] if path else [])])
        shown = "gone" if to is ... else repr(to)[:30]
        return f"{'.'.join(map(str, path))} is {shown}", json.dumps(
            changed(document, path, to)
        ).encode()
    if kind < 0.75:
        return "a pickle", pickle.dumps(Payload(mark))
    if kind < 0.85:
        cut = drawn.randrange(len(content))
        return f"cut at {cut}", content[:cut]
    if kind < 0.88:
        return "empty", b""
    at = drawn.randrange(min(len(content), 4096) if drawn.random() < 0.6 else len(content))
    to = drawn.randrange(256)
    return f"byte {at} is {to}", content[:at] + bytes([to]) + content[at + 1 :]


def fuzz_files(inputs: Path, *, seed: int, count: int) -> Iterator[Outcome]:
    """`count` hostile files, each read by the commands that read it."""
    drawn = random.Random(seed)
    work, told, mark = (inputs.parent / name for name in ("hostile", "told.txt", "payload-ran"))
    names = list(READERS)
    for i in range(count):
        name = names[i % len(names)]
        if not (inputs / name).exists():
            continue
        what, content = spoiled((inputs / name).read_bytes(), name, drawn, mark)
        for words in READERS[name]:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(inputs, work, symlinks=True)
            (work / name).write_bytes(content)
            ended = command([word.replace("{}", str(work)) for word in words], told).wait()
            learn(inputs.parent)
            found = verdict(ended)
            if mark.exists():
                found = "payload"
                mark.unlink()
            if any(b"<script>alert(1)" in page.read_bytes() for page in work.rglob("*.html")):
                found = "payload"
            lines = ended.said.strip().splitlines()
            yield Outcome(" ".join(words[:2]), name, what, found, lines[-1][:200] if lines else "")
