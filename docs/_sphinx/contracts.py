"""Docstrings of this project as reStructuredText.

Ours are plain text: a sentence, an indented formula, then sections (`Args:`, `Returns: …`). Bars,
stars and trailing underscores mean themselves there, and an indented block is shown as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


SECTION = re.compile(r"(?P<name>[A-Z][a-z]+):(?:\s+(?P<text>.*))?$")
NAMED = {"Args", "Attributes"}
ENTRY = re.compile(r"(?P<name>\*{0,2}[\w.]+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:\s+(?P<text>.*)$")
MARKUP = re.compile(r"(``[^`]+``|:[\w:]+:`[^`]+`|`[^`]+`_{0,2}|https?://[^\s,;)]+)")


def escape(text: str) -> str:
    """Plain prose for reStructuredText; what stands in backticks is left alone."""
    parts = MARKUP.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|*\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"_(?=\W|$)", r"\_", parts[i])
    return "".join(parts)


def width(line: str) -> int:
    """Columns before the first letter."""
    return len(line) - len(line.lstrip())


def convert(lines: list[str]) -> list[str]:
    """A docstring, dedented, as reStructuredText."""
    out: list[str] = []
    rest = list(lines)
    while rest:
        match = SECTION.match(rest[0])
        if match:
            body = list(take_section(rest))
            out += ["", *section(match["name"], match["text"] or "", body), ""]
        elif rest[0].startswith((" ", "\t")) and (not out or not out[-1].strip()):
            out += ["", ".. code-block:: text", ""]
            while rest and (not rest[0].strip() or width(rest[0])):
                out.append(f"    {rest.pop(0)}" if rest[0].strip() else rest.pop(0))
            out.append("")
        elif rest[0].startswith((">>>", ".. ")):
            while rest and rest[0].strip():
                out.append(rest.pop(0))
        else:
            out.append(escape(rest.pop(0)))
    return out


def take_section(rest: list[str]) -> Iterator[str]:
    """The lines below a section's head that belong to it: indented, or blank between such."""
    rest.pop(0)
    while rest:
        following = next((line for line in rest if line.strip()), "")
        if not width(following):
            return
        yield rest.pop(0)


def section(name: str, text: str, body: list[str]) -> list[str]:
    """A section as a field list; `Args` and `Attributes` list their names."""
    if name in NAMED:
        return [f":{name}:", *(f"    {line}".rstrip() for line in entries(body))]
    shown = [text, *(line.strip() for line in body)]
    return [f":{name}: {escape(' '.join(line for line in shown if line))}"]


def entries(body: list[str]) -> Iterator[str]:
    """`name: text` lines as a definition list."""
    margin = min((width(line) for line in body if line.strip()), default=0)
    for line in body:
        match = ENTRY.match(line[margin:])
        if match and width(line) == margin:
            yield ""
            yield f"``{match['name']}``"
            yield f"    {escape(match['text'])}"
        elif line.strip():
            yield f"    {escape(line.strip())}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""

    def process(_app: Sphinx, _what: str, _name: str, _obj: object, _options: object,
                lines: list[str]) -> None:  # fmt: skip
        lines[:] = convert(lines)

    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
