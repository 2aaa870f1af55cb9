"""Every docs/examples/*.py is run before the site is built, and its page shows what it printed.

An example is a script with a docstring: its first line is the page's title, the rest the text.
PNG and GIF files that it writes into its working folder appear below its output. A run is kept
until the script changes; a script that fails, fails the build.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.errors import ExtensionError

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def run(script: Path, folder: Path) -> str:
    """The script's output, from an empty folder of its own, or from the last run of this text."""
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    stamp, output = folder / "sha256", folder / "output.txt"
    if stamp.exists() and stamp.read_text() == digest:
        return output.read_text()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    if done.returncode:
        raise ExtensionError(f"{script.name} failed:\n{done.stdout}\n{done.stderr}")
    output.write_text(done.stdout)
    stamp.write_text(digest)
    return done.stdout


def page(script: Path, output: str, pictures: list[str]) -> str:
    """Title and text from the docstring, the code, its output, its pictures."""
    title, _, text = (
        ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    ).partition("\n")
    lines = [f"# {title.rstrip('.')}", "", text.strip(), ""]
    lines += [f"```{{literalinclude}} ../{script.name}", ":language: python", "```", ""]
    if output.strip():
        lines += ["It prints", "", "```text", output.rstrip(), "```", ""]
    lines += [f"![{Path(picture).stem}]({picture})\n" for picture in pictures]
    return "\n".join(lines)


def write_pages(source: Path) -> None:
    """Run every example and write its page beside it."""
    target = source / "examples" / "generated"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for script in sorted((source / "examples").glob("*.py")):
        folder = source / "_build" / "examples" / script.stem
        output = run(script, folder)
        pictures = []
        for picture in sorted([*folder.glob("*.png"), *folder.glob("*.gif")]):
            pictures.append(f"{script.stem}_{picture.name}")
            shutil.copy(picture, target / pictures[-1])
        (target / f"{script.stem}.md").write_text(page(script, output, pictures))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir)))
    return {"parallel_read_safe": True}
