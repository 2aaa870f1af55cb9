"""Public names: complete, documented as contracts, each with a page."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = ("sigreg", "planners", "worldmodel")
ROOT = Path(__file__).resolve().parent.parent
PUBLIC = [
    (package, name) for package in PACKAGES for name in importlib.import_module(package).__all__
]


def load(path: Path) -> ModuleType:
    """A script of this repository as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_files(package: str) -> dict[str, Path]:
    """Module name → file, for every file without a leading underscore on its path."""
    (root,) = importlib.import_module(package).__path__
    files = {}
    for path in Path(root).rglob("*.py"):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            files[".".join(parts)] = path
    return files


MODULES = [module for package in PACKAGES for module in sorted(module_files(package))]


def defined_names(tree: ast.Module) -> set[str]:
    """Public names that a module's own statements bind, imports left out."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_what_it_imports_and_nothing_else(package: str) -> None:
    """A package's __init__ holds a docstring, imports of its own names, and a sorted __all__.

    A lazy one shows its imports to type checkers, and loads each name from the same module.
    """
    path = Path(str(importlib.import_module(package).__file__))
    docstring, *body = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    imported: list[str] = []
    lazy = [node for node in body if isinstance(node, ast.If)]
    for node in [*body, *(inner for outer in lazy for inner in outer.body)]:
        if is_lazy(node):
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            if node.module != "__future__":
                assert node.module.partition(".")[0] == package
                imported += [alias.asname or alias.name for alias in node.names]
        else:
            assert isinstance(node, (ast.Assign, ast.AnnAssign)), ast.unparse(node)
            assert ast.unparse(node).startswith("__all__"), ast.unparse(node)
    exported = importlib.import_module(package).__all__
    assert sorted(exported) == sorted(imported)
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_lists_its_public_names(module: str) -> None:
    """A module says what it offers: one __all__, every name of which it defines or imports.

    The apps offer commands; what a module of theirs holds is public without an underscore.
    """
    package = module.partition(".")[0]
    tree = ast.parse(module_files(package)[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module} needs a docstring"
    values = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and node.value is not None
        and ast.unparse(node).startswith("__all__")
    ]
    is_app = f"{module}.".startswith("worldmodel.apps.")
    if module == "worldmodel.__main__" or (is_app and not values):
        return
    assert len(values) == 1, f"{module} needs one __all__"
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(values[0]) <= defined_names(tree) | imported


@pytest.mark.parametrize("package", ["worldmodel", "worldmodel.data", "worldmodel.worlds"])
def test_a_lazy_package_gives_what_its_types_promise(package: str) -> None:
    """Every name that a type checker sees is the same object at run time, and no other exists."""
    module = importlib.import_module(package)
    (block,) = [n for n in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
                if isinstance(n, ast.If)]  # fmt: skip
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        home = importlib.import_module(node.module)
        for alias in node.names:
            assert getattr(module, alias.name) is getattr(home, alias.name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - looking is the test


def is_lazy(node: ast.stmt) -> bool:
    """Whether a statement is one of those that make a package lazy."""
    text = ast.unparse(node)
    return text.startswith(
        ("if TYPE_CHECKING:", "from typing import TYPE_CHECKING", "__getattr__ = lazily(")
    ) or text.endswith("import lazily")


def is_alias(value: object) -> bool:
    """Whether a public value is a type alias, which can hold no docstring."""
    return typing.get_origin(value) is not None


def raises(definition: ast.AST) -> bool:
    """Whether a caller meets an exception raised by these very lines."""
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(definition))


def source_tree(value: Callable[..., object]) -> ast.AST:
    """The syntax tree of a function, or of a class's constructor."""
    if inspect.isclass(value):
        steps = [vars(value)[n] for n in ("__init__", "__post_init__") if n in vars(value)]
        steps = [step for step in steps if is_written(step)]
        return ast.Module([source_tree(step) for step in steps], [])  # type: ignore[misc]
    return ast.parse(inspect.cleandoc("\n" + inspect.getsource(value)))


def is_written(function: Callable[..., object]) -> bool:
    """Whether a function stands in a file; a dataclass writes its own in memory."""
    return Path(inspect.unwrap(function).__code__.co_filename).exists()


def documented(name: str, text: str) -> bool:
    """Whether a docstring has an entry `name:`, alone or among others (`low, high: …`)."""
    return (
        re.search(rf"^\s+(?:\*{{0,2}}\w+, )*\*{{0,2}}{name}(?:, \w+)*(?: \(.*\))?:", text, re.M)
        is not None
    )


def described(name: str, source: str) -> bool:
    """Whether a field of a record has a `#:` comment, behind it or in the lines above."""
    field = rf"^    {name}: "
    return re.search(rf"{field}.*  #: |^    #: .*\n{field}", source, re.M) is not None


def missing_parts(value: object) -> list[str]:
    """What a public docstring lacks to be a contract; a record's fields have comments instead."""
    text = inspect.getdoc(value) or ""
    if not text:
        return ["a docstring"]
    if inspect.ismodule(value):
        return [
            f"{name}: {part}"
            for name in value.__all__
            for part in missing_parts(getattr(value, name))
        ]
    assert callable(value)
    missing = []
    if getattr(value, "_is_protocol", False):
        return []
    if not issubclass_safe(value, Exception):
        parameters = inspect.signature(value).parameters
        fields = inspect.getsource(value) if inspect.isclass(value) else ""
        missing += [
            f"{name}:"
            for name in parameters
            if not documented(name, text) and not described(name, fields)
        ]
    if inspect.isfunction(value) and value.__annotations__.get("return") not in (None, "None"):
        missing += [] if re.search(r"^(Returns|Yields):", text, re.M) else ["Returns:"]
    if raises(source_tree(value)):
        missing += [] if re.search(r"^Raises:", text, re.M) else ["Raises:"]
    return missing


def issubclass_safe(value: object, parent: type) -> bool:
    """Whether a value is a class below another."""
    return inspect.isclass(value) and issubclass(value, parent)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_a_public_docstring_is_a_contract(package: str, name: str) -> None:
    """A public name's docstring has every argument, what it returns and what it raises."""
    value = getattr(importlib.import_module(package), name)
    if is_alias(value):
        return
    missing = missing_parts(value)
    assert missing == [], f"the docstring of {package}.{name} lacks {missing}"


def test_a_contract_with_a_gap_is_noticed() -> None:
    """The check sees an argument, a return value or an error that the docstring leaves out."""

    def half(a: int, b: int) -> int:
        if a < b:
            raise ValueError("a must not be below b")
        return a + b

    half.__doc__ = "Add.\n\nArgs:\n    a: the first.\n"

    assert missing_parts(half) == ["b:", "Returns:", "Raises:"]


def test_every_public_module_has_a_page(tmp_path: Path) -> None:
    """The generated reference has one page for every file without a leading underscore."""
    api = load(ROOT / "docs" / "_sphinx" / "api_pages.py")
    pages = api.write_pages(tmp_path)
    assert sorted(pages) == sorted(set(MODULES) - {"worldmodel.__main__"})
    assert {path.stem for path in tmp_path.glob("*.md")} == set(pages)
    for package, name in PUBLIC:
        assert f"{package}.{name}" in pages[package].read_text()


def test_docstrings_become_what_they_say() -> None:
    """A formula stays as it stands, prose is escaped, sections become fields."""
    contracts = load(ROOT / "docs" / "_sphinx" / "contracts.py")
    text = (
        "One |line| of a_ and `b_|c`.\n\n    |x|² = a_m\n\n"
        "Args:\n    z: [N],\n        long.\nReturns: []."
    )
    shown = "\n".join(line for line in contracts.convert(text.splitlines()) if line.strip())
    assert shown == (
        "One \\|line\\| of a\\_ and `b_|c`.\n.. code-block:: text\n        |x|² = a_m\n"
        ":Args:\n    ``z``\n        [N],\n        long.\n:Returns: []."
    )
