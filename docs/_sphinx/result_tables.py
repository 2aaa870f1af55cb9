"""Tables of measurements, renewed and with their curves as Sphinx reads a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import tables

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def fill(_app: Sphinx, name: str, source: list[str]) -> None:
    """Replace every requested table by the newest result; results.md adds those no page shows."""
    text = tables.fill(source[0], curves=True)
    if name == "results":
        shown = {
            n
            for page in tables.FILLED[1:]
            for n in re.findall(tables.REQUEST, page.read_text("utf-8"))
        }
        others = sorted({path.stem for path in tables.RESULTS.glob("*.json")} - shown)
        text += "".join(f"\n\n## {other}\n\n{tables.table(other)}\n" for other in others)
    source[0] = text


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
