"""Optional dependencies: an error says what to install."""

import importlib
from typing import Any


def install(extra: str) -> str:
    """The command that installs an extra, from the index and from a clone."""
    return f'pip install "sigreg[{extra}]"  (in a clone: pip install ".[{extra}]")'


def need(module: str, extra: str, purpose: str) -> Any:
    """Import an optional module; the ImportError names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{purpose} needs {package}: {install(extra)}") from error
