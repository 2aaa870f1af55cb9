"""Records: tensors, numbers, None, and mappings, tuples and dataclasses of records."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

RecordT = TypeVar("RecordT")


def _parts(record: Any) -> dict[str, Any] | None:
    """The parts of a record by name; None for a tensor or a number."""
    if isinstance(record, Mapping):
        return dict(record)
    if isinstance(record, tuple):
        names = getattr(record, "_fields", map(str, range(len(record))))
        return dict(zip(names, record, strict=True))
    if is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in fields(record)}
    return None


def walk(visit: Callable[..., Any], record: RecordT, *others: Any, name: str = "") -> RecordT:
    """Replace each leaf x by visit(name, x, *leaves of the others at its place, None if absent)."""
    parts, kind = _parts(record), type(record)
    if parts is None:
        return visit(name, record, *others)
    like = [_parts(other) or {} for other in others]
    new: Any = {
        key: walk(visit, part, *(o.get(key) for o in like), name=f"{name}.{key}".strip("."))
        for key, part in parts.items()
    }
    if isinstance(record, Mapping):
        return new
    if kind is tuple:
        return tuple(new.values())  # type: ignore[return-value]
    return kind(**new) if isinstance(record, tuple) else replace(record, **new)  # type: ignore[type-var]


def choose(mask: Tensor, yes: Any, no: RecordT) -> RecordT:
    """`yes` for the problems of the mask [B], `no` for the others; other leaves come from `no`."""

    def visit(_: str, n: Any, y: Any) -> Any:
        if not isinstance(n, Tensor) or not isinstance(y, Tensor) or not n.ndim:
            return n
        return torch.where(mask.view(-1, *[1] * (n.ndim - 1)), y, n)

    return walk(visit, no, yes)


def take_apart(record: Any) -> dict[str, Tensor]:
    """The tensors and integers of a record by name, on the CPU."""
    found: dict[str, Tensor] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Tensor) or type(value) is int:
            found[name] = torch.as_tensor(value, device="cpu").contiguous()

    walk(visit, record)
    return found


def put_together(like: RecordT, tensors: Mapping[str, Tensor], device: torch.device) -> RecordT:
    """A record like `like`, filled with the result of `take_apart`; None accepts anything."""

    def visit(name: str, value: Any) -> Any:
        if isinstance(value, Tensor) or (value is None and name in tensors):
            return tensors[name].to(device)
        if value is None:
            head = f"{name}."
            inside = {k[len(head) :]: x for k, x in tensors.items() if k.startswith(head)}
            return {key: x.to(device) for key, x in inside.items()} or None
        return int(tensors[name]) if type(value) is int else value

    return walk(visit, like)
