"""The tutorials as Jupyter notebooks: `python docs/notebooks.py FOLDER [--execute]`.

A notebook is made of its page: every Python block is a cell to run, all else is text.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGES = sorted(DOCS.glob("tutorial-*.md"))
_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> dict[str, Any]:
    """A page of Markdown as a notebook of format 4.5."""
    cells = list[dict[str, Any]]()
    for n, part in enumerate(_CODE.split(page)):
        if not (text := part.strip("\n")):
            continue
        cell: dict[str, Any] = {"cell_type": "markdown", "id": f"cell-{n}", "metadata": {}}
        if n % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(cell | {"source": text})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip


def main() -> int:
    """Write every tutorial into a folder, with what its cells print if they are executed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--execute", action="store_true", help="needs nbclient and ipykernel")
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        made: Any = notebook(page.read_text(encoding="utf-8"))
        if told.execute:
            import nbclient
            import nbformat

            made = nbformat.from_dict(made)
            nbformat.validate(made)
            nbclient.NotebookClient(
                made, resources={"metadata": {"path": str(DOCS.parent)}}
            ).execute()
        path = told.folder / f"{page.stem}.ipynb"
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
