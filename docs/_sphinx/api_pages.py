"""One page per public module, written before Sphinx looks for pages."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


PACKAGES = ("sigreg", "planners", "worldmodel")


def public_modules(package: str) -> list[str]:
    """The package and its modules, but for those with a leading underscore anywhere."""
    path = importlib.import_module(package).__path__
    names = [info.name for info in pkgutil.walk_packages(path, f"{package}.")]
    return [package, *(n for n in names if not any(p.startswith("_") for p in n.split(".")))]


def page(module: str) -> str:
    """A Markdown page that lets autodoc speak."""
    return (
        f"# {module}\n\n```{{eval-rst}}\n"
        f".. currentmodule:: {module}\n\n.. automodule:: {module}\n```\n"
    )


def package_page(package: str) -> str:
    """A package's public names, each linked to the module that explains it."""
    loaded = importlib.import_module(package)
    lines = [f"# {package}", "", str(loaded.__doc__).strip(), ""]
    for name in loaded.__all__:
        # An alias such as planners.Cost knows no module of its own.
        home = getattr(getattr(loaded, name), "__module__", None) or package
        target = f"{home}.{name}" if home.startswith(f"{package}.") else f"{package}.{name}"
        lines.append(f"- {{py:obj}}`{package}.{name} <{target}>`")
    modules = [module for module in public_modules(package) if module != package]
    return "\n".join([*lines, "", "```{toctree}", ":maxdepth: 1", "", *modules, "```", ""])


def write_pages(folder: Path) -> dict[str, Path]:
    """Write every page into a folder; pages already right keep their time stamp.

    Returns: module → its page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for package in PACKAGES:
        for module in public_modules(package):
            text = package_page(package) if module == package else page(module)
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
