"""Weights against the model that asks for them: every tensor, no other, each of its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

__all__ = ["check_tensors"]


def check_tensors(
    state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], source: Path
) -> None:
    """Compare names and shapes.

    Raises: ValueError naming `source` and the first tensors that are missing, too many or of
        another shape.
    """
    if missing := sorted(shapes.keys() - state.keys()):
        raise ValueError(f"{source} lacks {len(missing)} of {len(shapes)} tensors: {_few(missing)}")
    if unknown := sorted(state.keys() - shapes.keys()):
        raise ValueError(f"{source} has {len(unknown)} tensors too many: {_few(unknown)}")
    wrong = [
        f"{name} must be {list(shape)}, got {list(state[name].shape)}"
        for name, shape in shapes.items()
        if list(state[name].shape) != list(shape)
    ]
    if wrong:
        raise ValueError(
            f"{source} holds weights of another width than its config.json asks for: {_few(wrong)}"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
