"""Optional dependencies: one error that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["need"]


def need(module: str, extra: str, purpose: str) -> Any:
    """Import an optional module.

    Raises: ImportError naming the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module.partition('.')[0]}: pip install 'sigreg[{extra}]'"
        ) from error
