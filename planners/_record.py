"""Records of tensors, whatever they are made of: pick by problem, take apart, put together.

A record is a tensor, a number, None, a mapping, a tuple, or a frozen record of records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["choose", "put_together", "take_apart", "walk"]

RecordT = TypeVar("RecordT")


def _parts(record: Any) -> dict[str, Any] | None:
    """What a record is made of, by name; None for a tensor or a number."""
    if isinstance(record, Mapping):
        return dict(record)
    if isinstance(record, tuple):
        names = getattr(record, "_fields", range(len(record)))
        return dict(zip(map(str, names), record, strict=True))
    if is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in fields(record)}
    return None


def walk(visit: Callable[..., Any], record: RecordT, *others: Any, name: str = "") -> RecordT:
    """The same record with each tensor or number x replaced by visit(name, x, *its likes).

    The structure is that of `record`; where another lacks a part, None stands for it.
    """
    parts = _parts(record)
    if parts is None:
        made: RecordT = visit(name, record, *others)
        return made
    like = [_parts(other) or {} for other in others]
    new = {
        key: walk(visit, part, *(o.get(key) for o in like), name=f"{name}.{key}" if name else key)
        for key, part in parts.items()
    }
    if isinstance(record, Mapping):
        return new  # type: ignore[return-value]
    if isinstance(record, tuple):
        kind: Any = type(record)
        return tuple(new.values()) if kind is tuple else kind(**new)  # type: ignore[return-value]
    return replace(record, **new)  # type: ignore[type-var]


def choose(mask: Tensor, yes: RecordT, no: RecordT) -> RecordT:
    """`yes` for the problems of the mask [B], `no` for the others; numbers are those of `no`."""

    def visit(_: str, a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not (a.ndim and b.ndim):
            return a if b is None else b
        rows = mask.view(-1, *[1] * (max(a.ndim, b.ndim) - 1))
        return torch.where(rows, a, b)

    return walk(visit, yes, no)


def take_apart(record: Any) -> dict[str, Tensor]:
    """Its tensors by name, on the CPU; an integer as a tensor too."""
    found: dict[str, Tensor] = {}

    def visit(name: str, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            found[name] = torch.tensor(value, device="cpu")
        elif isinstance(value, Tensor):
            found[name] = value.detach().cpu().contiguous()
        return value

    walk(visit, record)
    return found


def put_together(like: RecordT, tensors: Mapping[str, Tensor]) -> RecordT:
    """A record of the structure and devices of `like` from what `take_apart` gave."""

    def visit(name: str, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(tensors[name])
        return tensors[name].to(value) if isinstance(value, Tensor) else value

    return walk(visit, like)
