"""Tables in README and docs, made from benchmarks/results/*.json and from nothing else.

A Markdown file asks for a table by a comment, and what follows it up to the end comment is ours:

    <!-- table: sigreg_cpu -->
    <!-- end table -->

`python benchmarks/tables.py` fills README.md and docs/ in; `--check` fails if one is out of date.
Sphinx fills them once more as it reads them, and draws the curves that Markdown cannot hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FILLED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CURVES = ("sigreg_curves",)  # drawn above their table on the site
# Where a name does not say it.
COMMANDS = {
    **{
        f"gpu_{w.replace('-', '_')}": f"benchmarks/gpu_worlds.py {w}"
        for w in ("push-t", "reacher", "cube")
    },
    "fuzz": "tests/fuzz --save",
    "platform": "benchmarks/platform_check.py",
    "sigreg_wall": "benchmarks/bench_sigreg.py wall",
}
REQUEST = re.compile(r"<!-- table: ([\w.-]+) -->\n(?:.*?)<!-- end table -->", re.DOTALL)


def fill(text: str, results: Path = RESULTS, *, curves: bool = False) -> str:
    """The text with every requested table renewed, and curves drawn above those that have some."""

    def renew(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- table: {name} -->\n{table(name, results, curves=curves)}\n<!-- end table -->"

    return REQUEST.sub(renew, text)


def table(name: str, results: Path = RESULTS, *, curves: bool = False) -> str:
    """One result as Markdown, with where it comes from; a plain line if it was never run."""
    path = results / f"{name}.json"
    if not path.exists():
        return f"*Not run yet: `python {script(name)}` writes `benchmarks/results/{name}.json`.*"
    record = json.loads(path.read_text())
    parts = [f"*{record['question']}*"]
    if curves and name in CURVES:
        from plots import cost_curves

        parts.append(f"<div>\n{cost_curves(record['results'])}\n</div>")
    if "table" in record:
        parts.append(markdown(record["table"]["columns"], record["table"]["rows"]))
    parts.append(provenance(record))
    return "\n\n".join(parts)


def script(name: str) -> str:
    """Which command writes a result: the script with the longest name that this one begins with."""
    found = [path for path in Path(__file__).parent.glob("*.py")
             if name.startswith(path.stem.removeprefix("bench_"))]  # fmt: skip
    stem = max((path.stem for path in found), key=len, default=f"bench_{name}")
    return COMMANDS.get(name, f"benchmarks/{stem}.py")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; columns of numbers are set to the right."""
    right = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = [columns, ["---:" if r else "---" for r in right], *rows]
    return "\n".join(f"| {' | '.join(cell(value) for value in line)} |" for line in lines)


def cell(value: object) -> str:
    """A cell's text; a bar inside it must not end it."""
    return "" if value is None else str(value).replace("|", "\\|")


def provenance(record: Mapping[str, object]) -> str:
    """The line under a table: command, commit, date, machine, versions, note."""
    versions, machine = record["versions"], record["machine"]
    assert isinstance(versions, dict)
    assert isinstance(machine, dict)
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    flags = " ".join(machine["flags"])
    day = str(record["created"])[:10]
    line = f"`{record['command']}` at {record['commit']}, {day}, torch {versions['torch']}, {where}"
    line += f" ({flags})." if flags and not machine["gpu"] else "."
    line += " Real-time priority." if machine.get("real_time") else ""
    note = record.get("note")
    return f"<sub>{line}{f' {note}' if note else ''}</sub>"


def main(arguments: Sequence[str]) -> int:
    """Fill the files in, or with --check only say which are out of date."""
    stale = 0
    for path in FILLED:
        old = path.read_text()
        new = fill(old)
        if new == old:
            continue
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is out of date: run `python benchmarks/tables.py`")
            stale += 1
        else:
            path.write_text(new)
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
