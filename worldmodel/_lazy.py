"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562), so that importing a package does not import torch.

    Args:
        package: full name of the package whose names these are.
        homes: names, separated by spaces, by the module that defines them; an empty string of
            names means the module itself.
    Returns: a function from a name to its object; it raises AttributeError for other names.
    """
    table = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in table:
            value = getattr(importlib.import_module(f"{package}.{table[name]}"), name)
        elif homes.get(name) == "":
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return get
