"""The compiled kernel: what it leaves in its cache, and what it says where it cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid_rule
from sigreg._kernels import ecf_cpp

from .backends import NO_COMPILER

needs_a_compiler = pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and a process that has loaded nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ecf_cpp.library.cache_clear()
    yield tmp_path / "sigreg"
    ecf_cpp.library.cache_clear()


@needs_a_compiler
def test_it_is_compiled_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call compiles one file a dtype; later processes load it without a compiler."""
    SIGReg(backend="cpp")(torch.randn(20, 3))
    (compiled,) = empty_cache.iterdir()
    written = compiled.stat().st_mtime_ns
    ecf_cpp.library.cache_clear()
    monkeypatch.setattr("shutil.which", None)
    monkeypatch.setattr("subprocess.run", None)
    SIGReg(backend="cpp")(torch.randn(20, 3))
    assert list(empty_cache.iterdir()) == [compiled]
    assert compiled.stat().st_mtime_ns == written


def test_nothing_is_compiled_unasked(empty_cache: Path) -> None:
    """Neither the default nor "cpu" compiles anything."""
    for backend in ("auto", "cpu"):
        SIGReg(backend=backend)(torch.randn(20, 3))
    assert not empty_cache.exists()


@needs_a_compiler
def test_another_processor_compiles_anew(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache shared by two machines never gives one what was compiled for the other."""
    ecf_cpp.library(torch.float32)
    ecf_cpp.library.cache_clear()
    monkeypatch.setattr(ecf_cpp, "_processor", lambda: "another one")
    ecf_cpp.library(torch.float32)
    assert len(list(empty_cache.iterdir())) == 2


def test_without_a_compiler(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, or one that fails, is an error that says what to do; nothing stands in."""
    z, a = torch.randn(20, 3), torch.eye(3)
    for name, message in (
        ("no-such-compiler", r"needs a C\+\+ compiler: set CXX"),
        ("false", "fail"),
    ):
        monkeypatch.setenv("CXX", name)
        with pytest.raises(RuntimeError, match=f"backend='cpp'.* {message}"):
            sigreg_loss(z, a, trapezoid_rule(), backend="cpp")
    monkeypatch.delenv("CXX")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler: set CXX"):
        sigreg_loss(z, a, trapezoid_rule(), backend="cpp")
    assert not list(empty_cache.iterdir())


@needs_a_compiler
@pytest.mark.parametrize("shape", [(2, 60, 33), (1, 300, 7)], ids=str)
def test_threads_change_no_bit(shape: tuple[int, ...]) -> None:
    """One thread and four give the same loss and gradient, in every bit."""
    a = random_directions(130, shape[-1], seed=0, step=0)
    z = torch.randn(shape, requires_grad=True)
    found = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        loss = sigreg_loss(z, a, trapezoid_rule(), backend="cpp", chunk=64)
        found.append((loss, torch.autograd.grad(loss, z)[0]))
    assert all(torch.equal(one, four) for one, four in zip(*found, strict=True))


@needs_a_compiler
def test_sines_of_any_angle() -> None:
    """Half a sine of a knot errs by 2⁻²¹ at most, from angle 0 to 10⁹."""
    angle = torch.cat([torch.linspace(-40, 40, 4001), 10 ** torch.linspace(1, 9, 1000)])
    z = (4 * angle)[:, None, None].requires_grad_()  # batches of one sample
    rule = trapezoid_rule(2, 0.25)._replace(weight=torch.ones(2), target=torch.ones(2))
    loss = sigreg_loss(z, torch.ones(1, 1), rule, backend="cpp") * len(angle)
    (gradient,) = torch.autograd.grad(loss, z)
    # The derivative of |e^{iz/4} − 1|².
    exact = (z.detach().double() / 4).sin() / 2
    assert float((gradient - exact).abs().max()) < 2**-21


@needs_a_compiler
def test_the_workers_are_torchs_own() -> None:
    """Where torch runs on GNU's or LLVM's OpenMP, its pool serves the kernel: no thread is new."""
    if not torch.backends.openmp.is_available():
        pytest.skip("torch was built without OpenMP")
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("no /proc")
    torch.set_num_threads(2)
    z = torch.randn(4, 200, 64)
    (z @ z.mT).cos()  # torch's pool exists from here on
    before = set(tasks.iterdir())
    SIGReg(backend="cpp")(z)
    # Of a larger pool that was there, some may be gone by now.
    assert set(tasks.iterdir()) <= before
