"""One page per public module, written before Sphinx looks for pages."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGES = ("sigreg", "planners", "worldmodel")


def is_public(module: str) -> bool:
    """No leading underscore anywhere on the path."""
    return not any(part.startswith("_") for part in module.split("."))


def children(package: ModuleType) -> list[str]:
    """The public modules one floor below a package."""
    found = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    return [info.name for info in found if is_public(info.name)]


def module_page(module: str) -> str:
    """A Markdown page that lets autodoc speak."""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def summary(value: object) -> str:
    """A docstring's first line, to stand behind a name; an alias such as planners.Cost has none."""
    text = value.__doc__ if isinstance(value, (type, FunctionType, ModuleType)) else None
    return f": {text.strip().splitlines()[0]}" if text else ""


def package_page(package: ModuleType) -> str:
    """A package's public names, each linked to the module that explains it, and its modules."""
    name = package.__name__
    lines = [f"# {name}", "", str(package.__doc__).strip(), ""]
    here: list[str] = []
    # A lazy package names its imports for type checkers alone.
    for node in ast.walk(ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in (alias for alias in node.names if alias.name in package.__all__):
            value = getattr(package, alias.name)
            # `from worldmodel import presets` exports a module, which is its own page.
            role = "mod" if isinstance(value, ModuleType) else "obj"
            shown = f"{name}.{alias.name}"
            home = f"{node.module}.{alias.name}"
            if not is_public(str(node.module)):
                # A private module has no page: its public names are explained on this one.
                kind = "class" if isinstance(value, type) else "function"
                here += ["```{eval-rst}", f".. auto{kind}:: {shown}", "```", ""]
                home = shown
            lines.append(f"- {{py:{role}}}`{shown} <{home}>`{summary(value)}")
    return "\n".join(
        [*lines, "", *here, "```{toctree}", ":maxdepth: 1", "", *children(package), "```", ""]
    )


def render(module: str) -> dict[str, str]:
    """Module → its page, for a module and everything public below it."""
    loaded = importlib.import_module(module)
    if not hasattr(loaded, "__path__"):
        return {module: module_page(module)}
    pages = {module: package_page(loaded)}
    for child in children(loaded):
        pages |= render(child)
    return pages


def write_pages(folder: Path) -> dict[str, Path]:
    """Write every page into a folder; pages already right keep their time stamp.

    Returns: module → its page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for package in PACKAGES:
        for module, text in render(package).items():
            pages[module] = folder / f"{module}.md"
            if not pages[module].exists() or pages[module].read_text() != text:
                pages[module].write_text(text)
    for left_over in set(folder.glob("*.md")) - set(pages.values()):
        left_over.unlink()
    return pages


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir, "api", "generated")))
    return {"parallel_read_safe": True}
