"""One command for everything: `nox`. Each session builds what it needs and says what it checks.

`nox -l` lists the sessions; `nox -s tests -- tests/sigreg -k floor` passes arguments on.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "build", "docs", "tests"]

ROOT = Path(__file__).resolve().parent
MICRO = ROOT / "benchmarks" / "micro"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PYTHONS = nox.project.python_versions(PROJECT)
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
EXTRAS = "worldmodel"
# Of the published worlds Push-T alone is in CI: each of the others brings half a gigabyte and draws
# slowly without a GPU. `nox -s control` tests them, each by itself.
TESTED_EXTRAS = f"{EXTRAS},minari,lerobot,cloud,export,dino,hub,push-t"
WORLD_EXTRAS = ("push-t", "reacher", "cube", "envs")
# Worlds of `nox -s control`: the extra of each, and its test file.
CONTROLLED = {
    "push-t": ("push-t", "push_t"),
    "reacher": ("reacher", "reacher"),
    "cube": ("cube", "cube"),
    "gymnasium:Swimmer-v5": ("envs", "gymnasium_worlds"),
}
EXTRA_LIMIT_MB = 300  # of [worldmodel], torch excluded
ESLINT = "eslint@10.15.0"  # of npm, for the page of `worldmodel view`


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, metadata, and tables that still match their results."""
    session.install(*CONSTRAINTS, *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "benchmarks/tables.py", "--check")
    if (npm := shutil.which("npm")) is None:
        session.warn("no npm on this machine; not run: eslint on the page of `worldmodel view`")
        return
    pages = ("worldmodel/apps/view/page", "tests/page")
    eslint = (npm, "exec", "--yes", f"--package={ESLINT}", "--", "eslint", "--max-warnings", "0")
    session.run(*eslint, *pages, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Strict mypy on the three packages."""
    extras = PROJECT["project"]["optional-dependencies"]
    # The worlds' packages have no types; they are imported by name.
    kept = (extras[name] for name in extras if name not in WORLD_EXTRAS)
    needed = [requirement for extra in kept for requirement in extra]
    base = (*CONSTRAINTS, *group("types"), *PROJECT["project"]["dependencies"])
    # mypy reads them and nothing runs them: no bytecode.
    session.install("--no-compile", *base, *needed)
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, on the wheel that users install, away from the source tree."""
    test_wheel(session)


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """The tests on every Python that pyproject.toml names (those installed here)."""
    test_wheel(session)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Malformed calls, words, files; full disks, kills: 5 minutes; `-- --minutes 60 --save`."""
    install_wheel(session, EXTRAS, *group("test"))
    folder = Path(session.create_tmp()) / "empty"
    folder.mkdir(exist_ok=True)
    with session.chdir(folder):
        words = session.posargs or ("--minutes", "5")
        session.run("python", str(ROOT / "tests" / "fuzz"), *words, env={"OMP_NUM_THREADS": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Microbenchmarks, minutes; compare commits or machines by --benchmark-json, -compare."""
    install_wheel(session, EXTRAS, *group("test"))
    ours = ("--benchmark-only", "--benchmark-columns=min,median,iqr,rounds")
    run_pytest(session, str(MICRO), *ours, *session.posargs)


@nox.session
def measure(session: nox.Session) -> None:
    """Run benchmarks/bench_*.py, or those named; results land in benchmarks/results/."""
    install_wheel(session, f"{EXTRAS},export,dino")
    for script in scripts("bench", session.posargs):
        session.run("python", str(script))


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the GPU tests and benchmarks/gpu_*.py; says so where there is no GPU."""
    found = scripts("gpu", session.posargs)
    if shutil.which("nvidia-smi") is None:
        todo = "".join(f"\n  python {script.relative_to(ROOT)}" for script in found)
        session.skip(f"no NVIDIA GPU on this machine; not run:\n  pytest -m gpu{todo}")
    # No constraints: a CUDA wheel of torch, whichever suits this machine's driver.
    install_wheel(session, TESTED_EXTRAS, *group("test"), constraints=())
    session.run("python", "-c", "import torch; print(torch.cuda.get_device_name())")
    run_pytest(session, str(ROOT / "tests"), "-m", "gpu")
    for script in found:
        session.run("python", str(script))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site with warnings as errors, and run the tutorials as notebooks."""
    install_wheel(session, EXTRAS, *group("docs"))
    target = ROOT / "docs" / "_build" / "html"
    session.run(
        "sphinx-build", "-W", "--keep-going", "-n", "-q", *session.posargs, "docs", str(target)
    )
    notebooks = str(target.with_name("notebooks"))
    session.run("python", "docs/notebooks.py", notebooks, "--execute")
    session.log(f"{target / 'index.html'}, {notebooks}")


@nox.session
def demo(session: nox.Session) -> None:
    """`worldmodel demo`: learn a world model from pixels and plan with it."""
    install_wheel(session, "worldmodel")
    session.run("worldmodel", "demo", *session.posargs)


@nox.session
@nox.parametrize("env", [*CONTROLLED], ids=[*CONTROLLED])
def control(session: nox.Session, env: str) -> None:
    """Collect, train and evaluate in one world, small: minutes on two cores. And its tests."""
    extra, name = CONTROLLED[env]
    install_wheel(session, f"{EXTRAS},{extra}", *group("test"))
    tests = ROOT / "tests" / "worldmodel"
    own = tests / f"test_{name}.py"
    run_pytest(session, str(tests / "test_worlds.py"), str(own), "-k", f"{env} or {own.stem}")
    work = Path(session.create_tmp()) / "control"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()

    def worldmodel(*words: object) -> None:
        session.run("worldmodel", *map(str, words))

    # Pictures of the others are slow without a GPU: fewer of them, and no film.
    few = env not in ("push-t", "reacher")
    episodes, others, films = (8, 4, 0) if few else (40, 20, 1)
    seen, unseen, run, pairs = (work / n for n in ("seen.h5", "unseen.h5", "run", "pairs.json"))
    collect = ("data", "collect", "--env", env, "--length", 60)
    worldmodel(*collect, "--episodes", episodes, "--size", 64, "--seed", 0, "--out", seen)
    worldmodel(*collect, "--episodes", others, "--size", 16, "--seed", 1, "--out", unseen)
    worldmodel("train", "--data", seen, "--world", env, "--steps", 150, "--out", run)
    worldmodel("manifest", "--env", env, "--data", unseen, "--pairs", 20, "--out", pairs)
    result = ("--out", work / "result", "--films", films)
    worldmodel("evaluate", run, "--manifest", pairs, *result, *session.posargs)


@nox.session
@nox.parametrize("names", ["old", "new"])
def parity(session: nox.Session, names: str) -> None:
    """Our LeWM against the official packages, with both generations of weight names."""
    install_wheel(session, "worldmodel")
    # They ask for training services and for environments that building a model does not need, and
    # torchvision's wheel is a CUDA build: benchmarks/parity.py lets it import beside any torch.
    session.install("--no-deps", "-r", "benchmarks/parity_official.txt")
    needed = ("-r", "benchmarks/parity.txt", "-r", f"benchmarks/parity_{names}.txt")
    session.install(*CONSTRAINTS, *needed)
    session.run("python", "benchmarks/parity.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel; check metadata, what they hold and pull in, and what that weighs."""
    session.install(*CONSTRAINTS, *group("build"))
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), str(ROOT), silent=True)
    (wheel,) = dist.glob("*.whl")
    check_contents(session, wheel)
    session.run("twine", "check", "--strict", *map(str, sorted(dist.iterdir())))

    torch = would_install(session, "torch")
    # By its name from an index, as users will: `pip install "sigreg[worldmodel]"`.
    index = Path(session.create_tmp()).resolve() / "index"
    (index / "sigreg").mkdir(parents=True, exist_ok=True)
    page = f'<a href="{wheel.resolve().as_uri()}">{wheel.name}</a>'
    (index / "sigreg" / "index.html").write_text(page, encoding="utf-8")
    ours = f"--extra-index-url={index.as_uri()}"
    base = would_install(session, "sigreg", ours)
    if unexpected := set(base) - set(torch) - {"sigreg"}:
        session.error(f"the base package must add nothing to torch, got {sorted(unexpected)}")
    extra = would_install(session, "sigreg[worldmodel]", ours)
    added = {name: extra[name] for name in extra if name not in base}
    target = Path(session.create_tmp()) / "extra"
    shutil.rmtree(target, ignore_errors=True)
    pins = [f"{name}=={version}" for name, version in sorted(added.items())]
    # Bytecode is made by the installation and is no part of what is brought in.
    session.install("--quiet", "--no-compile", "--no-deps", "--target", str(target), *pins)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 1e6
    session.log(f"beside torch, sigreg[worldmodel] adds {size:.0f} MB: {', '.join(pins)}")
    if size > EXTRA_LIMIT_MB:
        session.error(f"[worldmodel] must stay under {EXTRA_LIMIT_MB} MB, got {size:.0f} MB")


def test_wheel(session: nox.Session) -> None:
    """Install the wheel and run the tests, or those that the arguments name."""
    install_wheel(session, TESTED_EXTRAS, *group("test"))
    # A path among the arguments is meant from the root, where nox was called.
    given = [str(ROOT / a) if (ROOT / a.split("::")[0]).exists() else a for a in session.posargs]
    named = any(argument.startswith(str(ROOT)) for argument in given)
    # Each microbenchmark runs once, so that none is found broken by the one who needs it.
    both = [str(ROOT / "tests"), str(MICRO)]
    # A process of one thread per core; `-- -n 0` for one process. A GPU is shared with nobody.
    workers = "auto" if shutil.which("nvidia-smi") is None else "0"
    spread = ("-n", workers, "--maxprocesses", "8", "--dist", "worksteal")
    alone = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    run_pytest(session, "--benchmark-disable", *spread, *given, *([] if named else both), **alone)


def run_pytest(session: nox.Session, *arguments: str, **variables: str) -> None:
    """Run pytest from an empty folder, so that only the wheel can be imported."""
    env = {"SIGREG_TESTS_ON_WHEEL": "1", **variables}
    if shutil.which("nvidia-smi") is None:
        env["TRITON_INTERPRET"] = "1"
    config = ("-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-p", "no:cacheprovider")
    folder = Path(session.create_tmp()) / "empty"
    folder.mkdir(exist_ok=True)
    with session.chdir(folder):
        session.run("pytest", *config, *arguments, env=env)


def install_wheel(
    session: nox.Session, extras: str, *also: str, constraints: tuple[str, ...] = CONSTRAINTS
) -> None:
    """Build the wheel and install it with its extras: what is tested is what is shipped."""
    folder = Path(session.create_tmp()) / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    pip = ("python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    session.run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    session.install(*constraints, f"{wheel}[{extras}]", *also)
    # pip keeps an installed version that bears the same number.
    session.install("--force-reinstall", "--no-deps", str(wheel))


def check_contents(session: nox.Session, wheel: Path) -> None:
    """The wheel holds the packages, their py.typed, the page and the licence, nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            session.error(f"{wheel.name} must hold {package}/py.typed")
    if "worldmodel/apps/view/page/index.html" not in names:
        session.error(f"{wheel.name} must hold the page of `worldmodel view`")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        session.error(f"{wheel.name} must hold the licence")
    tops = {name.split("/")[0] for name in names}
    foreign = {top for top in tops if top not in PACKAGES and not top.endswith(".dist-info")}
    if foreign:
        session.error(f"{wheel.name} must hold {PACKAGES} alone, got {sorted(foreign)}")


def would_install(session: nox.Session, *requirement: str) -> dict[str, str]:
    """Names and versions that pip would install for a requirement in an empty environment."""
    report = Path(session.create_tmp()) / "report.json"
    pip = ("python", "-m", "pip", "--quiet", "--disable-pip-version-check")
    options = ("--dry-run", "--ignore-installed", "--report", str(report))
    session.run(*pip, "install", *options, *CONSTRAINTS, *requirement)
    installs = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in installs}


def group(name: str) -> list[str]:
    """One dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


def scripts(kind: str, names: list[str]) -> list[Path]:
    """benchmarks/<kind>_*.py, or those whose name holds one of the given words."""
    found = sorted((ROOT / "benchmarks").glob(f"{kind}_*.py"))
    return [path for path in found if not names or any(name in path.name for name in names)]
