"""Seeds, signals, hypothesis settings, and GPU tests that say why they are skipped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest
import torch

# A failing example must fail everywhere: derandomised, and no deadline on a loaded machine.
hypothesis.settings.register_profile(
    "project", deadline=None, derandomize=True, max_examples=25, database=None, print_blob=True
)
hypothesis.settings.load_profile("project")

# A shell that starts a job in the background lets it ignore Ctrl-C; tests of Ctrl-C must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _alike() -> Iterator[None]:
    """Every test starts from the same generator and as many threads, whatever ran before it."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests aloud where there is no GPU."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; `nox -s gpu` runs it where there is one")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail tests that do not say what is true."""
    if not (getattr(item, "obj", None) or item).__doc__:
        pytest.fail("every test needs a one-sentence docstring", pytrace=False)


def pytest_report_header() -> str:
    """Which code is under test, and on what."""
    import sigreg

    interpreter = "interpreter" if os.environ.get("TRITON_INTERPRET") else "compiler"
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"sigreg: {sigreg.__file__}; torch {torch.__version__}; {cuda}; triton {interpreter}"
