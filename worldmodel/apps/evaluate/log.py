"""Outcomes on disk while an evaluation goes on: a line a pair, only ever added to.

Each rank has a file of its own. Its first line says what the outcomes are of; a last line that a
kill cut off counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from worldmodel.apps.evaluate.result import Key, Tried
from worldmodel.apps.parsing import Record, parse_record

__all__ = ["Log", "Mark"]


class Mark(Record):
    """What outcomes are of: digests of the manifest and of the model's weights."""

    manifest: str
    weights: str | None


class Log:
    """Outcomes in a folder: `tried` holds them by key, those of other ranks and commands too.

    Args:
        folder: where they lie.
        mark: what they must be of.
        rank: whose file is written.
    Raises: ValueError naming a file that is damaged, or what it is of if that is something else.
    """

    def __init__(self, folder: Path, mark: Mark, rank: int = 0) -> None:
        self.path, self.mark = folder / f"outcomes-{rank}.jsonl", mark
        self.tried: dict[Key, Tried] = {}
        for path in sorted(folder.glob("outcomes-*.jsonl")):
            complaint = f"{path} is damaged, take it away to try its pairs again"
            if path.is_symlink():
                raise ValueError(f"{complaint}: it is a link")
            *lines, rest = path.read_bytes().split(b"\n")
            if rest and path == self.path:
                os.truncate(path, path.stat().st_size - len(rest))
            for found in [parse_record(line, Mark, complaint) for line in lines[:1]]:
                for name, value in mark:
                    if getattr(found, name) != value:
                        raise ValueError(
                            f"--out must not hold another evaluation yet, {folder} has other {name}"
                        )
            for one in (parse_record(line, Tried, complaint) for line in lines[1:]):
                self.tried[one.key] = one

    def write(self, some: Sequence[Tried]) -> None:
        """Add outcomes; what is written survives the process."""
        with self.path.open("ab") as file:
            records = [self.mark, *some] if file.tell() == 0 else some
            file.write(b"".join(one.model_dump_json().encode() + b"\n" for one in records))
        self.tried |= {one.key: one for one in some}
