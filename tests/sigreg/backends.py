"""Which kernels can run here: on a CPU, under Triton's interpreter, on a GPU."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest
import torch

CUDA = torch.cuda.is_available()
if importlib.util.find_spec("triton") is None:
    WHY_NOT = "triton is not installed"
elif not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    WHY_NOT = "no GPU, and TRITON_INTERPRET=1 is not set (nox sets it)"
else:
    WHY_NOT = ""
NO_COMPILER = not any(map(shutil.which, ("c++", "g++", "clang++")))
BACKENDS = [
    "cpu",
    pytest.param("cpp", marks=pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler")),
    pytest.param(
        "triton",
        marks=[
            pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
            *([pytest.mark.gpu] if CUDA else []),
        ],
    ),
]
ON_CPU = ("cpu", "reference") if NO_COMPILER else ("cpu", "cpp", "reference")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def device_of(backend: str) -> str:
    """Where a backend's tensors live here."""
    return "cuda" if backend == "triton" and CUDA else "cpu"
