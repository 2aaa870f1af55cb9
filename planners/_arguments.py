"""Checks of arguments, one line each. An error names the argument, the rule and what came."""

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """An integer from low to high, as an int; NumPy's integers count, booleans do not."""
    rule = "" if low is None else f" of at least {low}" if high is None else f" in [{low}, {high}]"
    try:
        # `operator.index` refuses floats, even whole ones.
        index: Any = "" if isinstance(value, bool) else value
        found = operator.index(index)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an integer{rule}, got {shown(value)}") from None
    require(low is None or found < 2**63, f"{name} must be an integer below 2**63, got {found}")
    fits = (low is None or found >= low) and (high is None or found <= high)
    require(fits, f"{name} must be an integer{rule}, got {found}")
    return found


def number(name: str, value: Any, interval: str, *, optional: bool = False) -> None:
    """A real number in an interval such as "[0, 1)" or "(0, inf)"; never NaN."""
    if optional and value is None:
        return
    rule = f"{name} must be a number in {interval}, got {shown(value)}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(rule)
    x, (low, high) = float(value), map(float, interval[1:-1].split(","))
    above = x > low if interval[0] == "(" else x >= low
    require(above and (x < high if interval[-1] == ")" else x <= high), rule)


def numbers(owner: Any, **intervals: str) -> None:
    """Check several attributes of an object, each a real number in its interval."""
    for name, interval in intervals.items():
        number(name, getattr(owner, name), interval)


def row(name: str, value: Any) -> None:
    """A positive number, or a tuple with one per action dim."""
    for entry in value if isinstance(value, tuple) else (value,):
        number(name, entry, "(0, inf)")


def one_of(name: str, value: Any, options: Sequence[str]) -> None:
    words = " or ".join(f'"{option}"' for option in options)
    fits = isinstance(value, str) and value in options
    require(fits, f"{name} must be {words}, got {shown(value)}")


def placed(dtype: Any, device: Any) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {shown(dtype)}")
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a device of torch, got {shown(device)}") from error


def calls(name: str, value: Any, signature: str, *, optional: bool = False) -> None:
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be callable, {signature}, got {shown(value)}")


def instance(name: str, value: Any, kind: type, example: str, *, optional: bool = False) -> None:
    """An instance of a protocol or class; the class itself is refused."""
    if optional and value is None:
        return
    if isinstance(value, type) or not isinstance(value, kind):
        raise TypeError(f"{name} must be an instance such as {example}, got {shown(value)}")


def floats(name: str, value: Any, shape: str, **sizes: int) -> None:
    """A float tensor of a shape such as "B H A", no axis empty; `sizes` fixes some letters."""
    letters = shape.split()
    wanted = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
    rule = f"{name} must be a float tensor [{wanted}], got {shown(value)}"
    if not isinstance(value, Tensor):
        raise TypeError(rule)
    fits = len(letters) == value.ndim and all(
        size > 0 and size == sizes.get(letter, size)
        for letter, size in zip(letters, value.shape, strict=True)
    )
    require(fits and value.is_floating_point(), rule)


def shown(value: Any) -> str:
    """A value in one short line, for an error."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{type(value).__name__} {line[:50]} …"
