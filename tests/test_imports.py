"""The import arrows of the library, read from its syntax trees, and what an import costs."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = ("sigreg", "planners", "worldmodel")
# Third-party modules a package may import as it loads.
AT_IMPORT = {
    "sigreg": {"torch"},
    "planners": {"torch"},
    "worldmodel": {
        "torch",
        "numpy",
        "PIL",
        "safetensors",
        "tqdm",
        "pydantic",
        "pydantic_settings",
        "yaml",
        "filelock",
    },
}
# Modules whose whole purpose is one heavier dependency; nothing imports them but where they act.
HOMES = {
    "triton": "sigreg._kernels.ecf_triton",
    "torch.distributed": "sigreg._distributed",
    "wandb": "worldmodel.apps.train.reports",
    "tensorboardX": "worldmodel.apps.train.reports",
}
# Lower floors first. A module imports its own floor or lower ones; the unnamed stay unconstrained.
FLOORS = {
    "sigreg": (
        "_arguments _distributed",
        "quadrature directions",
        "reference",
        "_kernels",
        "functional",
        "module",
        "check",
    ),
    "planners": ("noise", "contract", "optimize", "mpc"),
    "worldmodel": (
        "records contract",
        "layers goals",
        "rollout",
        "encoder predictor patches",
        "model",
        "loss heads",
        "presets",
    ),
}


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a full module path."""

    by: str
    line: int
    target: str
    at_import: bool
    for_types: bool = False

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.target}"


class Collector(ast.NodeVisitor):
    """Import statements of a file, and attribute paths that begin at `torch`."""

    def __init__(self, module: str, *, is_package: bool) -> None:
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: list[Import] = []
        self.depth = 0
        self.for_types = False

    def add(self, node: ast.AST, target: str) -> None:
        line: int = node.lineno  # type: ignore[attr-defined]
        self.found.append(Import(self.module, line, target, self.depth == 0, self.for_types))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self.package.split(".")
            kept = parents[: len(parents) - node.level + 1]
            base = ".".join([*kept, *([base] if base else [])])
        for alias in node.names:
            self.add(node, f"{base}.{alias.name}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        # `torch.distributed.x` needs no import statement of its own.
        path = ast.unparse(node)
        if path in HOMES and path.startswith("torch."):
            self.add(node, path)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.for_types = True
            self.inside(node.body)
            self.for_types = False
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.inside(ast.iter_child_nodes(node))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.inside(ast.iter_child_nodes(node))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.inside(ast.iter_child_nodes(node))

    def inside(self, nodes: Iterator[ast.AST] | list[ast.stmt]) -> None:
        self.depth += 1
        for node in nodes:
            self.visit(node)
        self.depth -= 1


def source_files(package: str) -> dict[str, Path]:
    """Module name → file, for the package that Python would import."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (root,) = map(Path, spec.submodule_search_locations)
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def collect(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Every import in a source text."""
    collector = Collector(module, is_package=is_package)
    collector.visit(ast.parse(source))
    return collector.found


FILES = {package: source_files(package) for package in PACKAGES}
MODULES = {module for files in FILES.values() for module in files}
PACKAGE_FILES = {m for files in FILES.values() for m, f in files.items() if f.name == "__init__.py"}
IMPORTS = [
    found
    for files in FILES.values()
    for module, path in files.items()
    for found in collect(path.read_text(), module, is_package=path.name == "__init__.py")
]


def inside(target: str, *packages: str) -> bool:
    """Whether a dotted path is one of the packages or lies in it."""
    return any(target == package or target.startswith(f"{package}.") for package in packages)


def is_app(module: str) -> bool:
    """The top floor: apps, and the file that makes `python -m worldmodel` start them."""
    return inside(module, "worldmodel.apps", "worldmodel.__main__")


def broken_arrows(imports: list[Import]) -> list[str]:
    """Imports that point the wrong way between our packages."""
    broken = []
    for found in imports:
        package = found.by.partition(".")[0]
        others = [other for other in PACKAGES if other != package]
        if package == "worldmodel" and is_app(found.by):
            continue
        if inside(found.target, *others) or inside(found.target, "worldmodel.apps"):
            broken.append(str(found))
    return broken


def heavy_at_import(imports: list[Import]) -> list[str]:
    """Third-party modules loaded with a package although it promises not to need them."""
    heavy = []
    for found in imports:
        package, top = found.by.partition(".")[0], found.target.partition(".")[0]
        allowed = AT_IMPORT[package] | set(sys.stdlib_module_names) | set(PACKAGES)
        at_home = top in HOMES and inside(found.by, HOMES[top])
        if found.at_import and top not in allowed and not at_home:
            heavy.append(str(found))
    return heavy


def away_from_home(imports: list[Import]) -> list[str]:
    """Uses of triton and torch.distributed outside the one file that holds each."""
    return [
        str(found)
        for found in imports
        for name, home in HOMES.items()
        if inside(found.target, name) and not inside(found.by, home) and not is_app(found.by)
        # A name in an annotation loads nothing.
        if not found.for_types
    ]


def resolve(target: str) -> str | None:
    """The module of ours behind an import target (`a.b.name` may be a module or a name in it)."""
    while target and target not in MODULES:
        target = target.rpartition(".")[0]
    return target or None


def floor(module: str) -> int | None:
    """Position of a module in its package's floors, if it is named there."""
    package, _, rest = module.partition(".")
    for number, names in enumerate(FLOORS[package]):
        if rest.partition(".")[0] in names.split():
            return number
    return None


def climbing(imports: list[Import]) -> list[str]:
    """Imports from a lower floor of a package to a higher one."""
    up = []
    for found in imports:
        target = resolve(found.target)
        if target is None or target.partition(".")[0] != found.by.partition(".")[0]:
            continue
        below, above = floor(found.by), floor(target)
        if below is not None and above is not None and above > below:
            up.append(str(found))
    return up


def test_the_collector_sees_every_kind_of_import() -> None:
    """Relative, aliased, nested, type-only and attribute imports are all found and placed."""
    source = (
        "import a.b as c\nfrom . import d\nfrom ..e import f\n"
        "if TYPE_CHECKING:\n    import g\n"
        "def h():\n    import triton\n    torch.distributed.barrier()\n"
        "try:\n    import i\nexcept ImportError:\n    pass\n"
    )
    found = [(i.target, i.at_import) for i in collect(source, "sigreg.x.y")]
    assert found == [
        ("a.b", True),
        ("sigreg.x.d", True),
        ("sigreg.e.f", True),
        ("g", False),
        ("triton", False),
        ("torch.distributed", False),
        ("i", True),
    ]


@pytest.mark.parametrize(
    ("by", "source", "rule"),
    [
        ("sigreg.module", "def f():\n    import worldmodel", broken_arrows),
        ("planners.sampling", "from sigreg import SIGReg", broken_arrows),
        ("worldmodel.loss", "from sigreg import SIGReg", broken_arrows),
        ("worldmodel.worlds.two_room", "from worldmodel.apps import demo", broken_arrows),
        ("sigreg.diagnostics", "import scipy", heavy_at_import),
        ("worldmodel.data.hdf5", "import h5py", heavy_at_import),
        ("sigreg.module", "import triton", heavy_at_import),
        ("sigreg.module", "def f():\n    import triton", away_from_home),
        ("planners.mpc", "def f():\n    return torch.distributed.get_rank()", away_from_home),
        ("sigreg.reference", "from sigreg.functional import sigreg_loss", climbing),
    ],
)
def test_a_wrong_arrow_is_found(by: str, source: str, rule: object) -> None:
    """Each rule rejects the import it was written against."""
    if rule is climbing and "sigreg.functional" not in MODULES:
        pytest.skip("sigreg.functional is not there yet")
    assert callable(rule)
    assert len(rule(collect(source, by))) == 1


def test_sigreg_and_planners_stand_alone_and_nothing_imports_the_apps() -> None:
    """sigreg and planners import none of our packages, worldmodel's parts neither of those two."""
    assert broken_arrows(IMPORTS) == []


def test_packages_load_with_what_they_promise() -> None:
    """At import time sigreg and planners need torch alone, worldmodel its light extra."""
    assert heavy_at_import(IMPORTS) == []


def test_triton_and_process_groups_have_one_home_each() -> None:
    """Only the Triton kernel imports triton; only one file talks to other ranks."""
    assert away_from_home(IMPORTS) == []


def test_floors_are_never_climbed() -> None:
    """Inside a package imports run from records to presets, never back."""
    assert climbing(IMPORTS) == []


def circles(imports: list[Import], packages: set[str]) -> dict[str, set[str]]:
    """Files that import each other, however many files lie between, and what leads around.

    Imports inside functions and for types alone count too: whoever reads the one file must have
    read the other. A package's face collects names from below, so an import from it is an import
    from where the name is written.
    """
    written = {
        f"{found.by}.{found.target.rpartition('.')[2]}": found.target
        for found in imports
        if found.by in packages
    }
    graph: dict[str, set[str]] = {}
    for found in imports:
        target = found.target
        for _ in packages:
            target = written.get(target, target)
        module = resolve(target)
        if found.by not in packages and module and module != found.by:
            graph.setdefault(found.by, set()).add(module)
    # Who imports nothing of what is left, or is imported by nobody of it, is on no circle.
    while True:
        needed = set().union(*graph.values()) if graph else set()
        kept = {by: needs & graph.keys() for by, needs in graph.items() if by in needed}
        kept = {by: needs for by, needs in kept.items() if needs}
        if kept == graph:
            return graph
        graph = kept


def test_no_file_is_on_a_circle_of_imports() -> None:
    """Not at load time, not inside functions, not for types: every file has those it builds on."""
    assert circles(IMPORTS, PACKAGE_FILES) == {}


def test_a_circle_is_found_however_it_is_closed() -> None:
    """In a function, for types, or through a package's face; a straight line is none."""
    face = collect("from worldmodel.data.windows import loader", "worldmodel.data", is_package=True)
    there = collect("from worldmodel.data.episodes import Episodes", "worldmodel.data.windows")
    packages = {"worldmodel.data"}
    assert circles([*face, *there], packages) == {}
    for back in (
        "def f():\n    from worldmodel.data.windows import loader",
        "if TYPE_CHECKING:\n    from worldmodel.data.windows import loader",
        "from worldmodel.data import loader",
    ):
        found = circles([*face, *there, *collect(back, "worldmodel.data.episodes")], packages)
        assert found.keys() == {"worldmodel.data.windows", "worldmodel.data.episodes"}


def unnamed_encodings(source: str) -> list[int]:
    """Lines that read or write text in whatever encoding the machine has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        words = {keyword.arg for keyword in node.keywords}
        values = [a.value for a in node.args if isinstance(a, ast.Constant)]
        modes = [v for v in values if isinstance(v, str) and set(v) <= set("rwaxbt+")]
        of_text = name in ("read_text", "write_text") or (
            # Other libraries' `open` takes a path or nothing.
            name == "open"
            and (bool(modes) or "newline" in words or isinstance(node.func, ast.Name))
            and not any("b" in mode for mode in modes)
            and "format" not in words  # of a film
        )
        if of_text and "encoding" not in words:
            found.append(node.lineno)
    return found


def test_every_text_file_is_utf8() -> None:
    """Whatever the machine's locale: each reading and writing of text names the encoding."""
    source = "p.read_text()\np.open('a')\nopen(p)\np.open(newline='')"
    assert unnamed_encodings(source) == [1, 2, 3, 4]
    assert unnamed_encodings("p.open('rb')\nImage.open(p)\np.read_text(encoding='utf-8')") == []
    bad = {
        f"{module}:{line}"
        for files in FILES.values()
        for module, path in files.items()
        for line in unnamed_encodings(path.read_text(encoding="utf-8"))
    }
    assert bad == set()


def run_python(code: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["sigreg", "planners"])
def test_import_brings_in_nothing_but_torch(package: str) -> None:
    """In a fresh process the import adds only the package itself and standard-library modules."""
    tops = run_python(
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        f"import {package}\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert set(tops) - set(sys.stdlib_module_names) - {"torch"} == {package}


@pytest.mark.parametrize(("package", "limit"), [("sigreg", 0.05), ("planners", 0.1)])
def test_import_is_quick(package: str, limit: float) -> None:
    """A cold import adds less than 50 ms (planners, which fills a table, 100 ms) to torch's own."""
    # The process's own time: on a loaded machine the clock on the wall tells of the others.
    code = (
        "import time, torch\n"
        "start = time.process_time()\n"
        f"import {package}\n"
        "print(time.process_time() - start)"
    )
    seconds: list[float] = []
    while len(seconds) < 5 and min(seconds, default=1.0) >= limit:
        seconds.append(float(run_python(code)))
    assert min(seconds) < limit, f"import {package} took {seconds} s after torch"


@pytest.mark.skipif(
    "SIGREG_TESTS_ON_WHEEL" not in os.environ, reason="set by nox, which installs the wheel"
)
@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_is_under_test(package: str) -> None:
    """Under nox the package comes from site-packages, with py.typed, in subprocesses too."""
    files = {FILES[package][package]}
    files.add(Path(run_python(f"import {package}; print({package}.__file__)")))
    (path,) = files
    assert "site-packages" in path.parts
    assert (path.parent / "py.typed").exists()
