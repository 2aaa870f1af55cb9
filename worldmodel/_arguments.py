"""Arguments are checked by their type hints, and by a short rule where a hint is not enough.

An error names argument, rule and what came: `depth must be an integer of at least 1, got 0`.
"""

import collections.abc
import functools
import inspect
import math
import operator
import os
from collections.abc import Callable
from numbers import Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

_CallT = TypeVar("_CallT", bound=Callable[..., Any])
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_OF = {"any": "", "int": " of integers", "float": " of floats"}
_Sizes = dict[str, tuple[int, str]]  # of each axis, and the argument that has it
_Broken = tuple[type[Exception], str] | None  # what to raise, and the rule; None where it holds


def checked(**rules: str) -> Callable[[_CallT], _CallT]:
    """Check the arguments of a function, or of a class's constructor, before it runs.

    An int is an integer of any kind and at least 1 (a seed 0), a float is finite. A NumPy array is
    accepted wherever a tensor is. `rules` add more by name: "[0, 1)" for a number; "N D" for a
    float tensor, "int N" and "any * N" for integers and for any type behind any number of axes,
    "array N" for a list too, "T>=3" for an axis of at least 3. No axis is empty, axes of the same
    letter agree, and a longer word is an attribute of `self`. "any" checks nothing.

    Raises: TypeError for another type, ValueError for another number or shape.
    """
    words = {word for rule in rules.values() for word in rule.split() if word.isidentifier()}
    own = [w for w in words if len(w) > 1 and w not in ("int", "any", "array")]

    def around(target: _CallT) -> _CallT:
        call: Any = vars(target)["__init__"] if isinstance(target, type) else target
        signature, hints = inspect.signature(call), functools.cache(lambda: get_type_hints(call))

        @functools.wraps(call)
        def checking(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return call(*args, **kwargs)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return call(*args, **kwargs)  # Python's own error names the argument.
            sizes: _Sizes = {word: (getattr(args[0], word), "self") for word in own}
            _check(bound.arguments, hints(), rules, sizes)
            return call(*bound.args, **bound.kwargs)

        if not isinstance(target, type):
            return checking  # type: ignore[return-value]
        target.__init__ = checking  # type: ignore[misc]
        return target

    return around


def _check(
    arguments: dict[str, Any], hints: dict[str, Any], rules: dict[str, str], sizes: _Sizes
) -> None:
    """Raise for the first wrong argument; convert NumPy's integers and arrays."""
    for name, value in arguments.items():
        rule = rules.get(name, "[0, inf)" if name == "seed" else "")
        if rule == "any":
            continue
        if isinstance(value, np.integer):
            arguments[name] = int(value)
        hint = hints.get(name, Any)
        if rule.startswith("array ") and isinstance(value, list):
            arguments[name] = value = torch.as_tensor(value, device="cpu")
        elif isinstance(value, np.ndarray) and _takes_tensors(hint):
            arguments[name] = value = _as_tensor(value)
        if broken := _broken(hint, value, name, rule, sizes):
            raise broken[0](f"{name} must be {broken[1]}, got {shown(value)}")


def _takes_tensors(hint: Any) -> bool:
    """Whether the hint accepts a tensor, but no array."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return Tensor in kinds and np.ndarray not in kinds


def _as_tensor(value: Any) -> Any:
    """An array of numbers as a tensor on the CPU, doubles as floats; other arrays unchanged."""
    if value.dtype.kind not in "biuf":
        return value
    if value.dtype == np.float64:  # NumPy's default dtype, but no model's
        value = value.astype(np.float32)
    return torch.as_tensor(np.require(value, requirements=["C", "W"]), device="cpu")


def shown(value: Any) -> str:
    """A value in one short line, for an error."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} {list(value.shape)}"
    line = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    line = " ".join(line.split())
    return line if len(line) <= 60 else f"{type(value).__name__} {line[:50]} …"


def _broken(hint: Any, value: Any, name: str, rule: str, sizes: _Sizes) -> _Broken:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        each = [_broken(one, value, name, rule, sizes) for one in inner]
        told = [one for one in each if one is not None]
        if len(told) < len(each):
            return None
        near = next((one for one in told if one[0] is ValueError), None)
        return near or (TypeError, " or ".join(text for _, text in told))
    if origin is Literal:
        words = ", ".join(f'"{word}"' for word in inner[:-1]) + f' or "{inner[-1]}"'
        return None if isinstance(value, str) and value in inner else (ValueError, words)
    if hint in (int, float):
        return _broken_number(hint is int, value, rule)
    kind = origin or hint
    if kind in (Tensor, np.ndarray):
        return _broken_shape(kind, value, name, rule, sizes)
    vague = getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", 0)
    if kind is Any or vague or not isinstance(kind, type):
        return None
    text = isinstance(value, (str, os.PathLike))
    fits = isinstance(value, (bool, np.bool_) if kind is bool else kind)
    if not fits or (text and kind is collections.abc.Sequence):
        return TypeError, "None" if kind is type(None) else f"a {kind.__name__}"
    if text and "\0" in os.fspath(value):
        return ValueError, "text without NUL"
    if inner[:1] in ((int,), (float,)) and kind is not type:
        parts = [_broken(inner[0], one, name, "", sizes) for one in value]
        return next(((one[0], f"each {one[1]}") for one in parts if one is not None), None)
    return None


def _broken_number(whole: bool, value: Any, rule: str) -> _Broken:
    low, high = rule[1:-1].split(", ") if rule else ("1" if whole else "-inf", "inf")
    limits = f" of at least {low}" if rule[:1] != "(" and high == "inf" else f" in {rule}"
    text = ("an integer" if whole else "a finite number") + (limits if rule or whole else "")
    try:
        index: Any = operator.index(value) if whole else value
    except (TypeError, RuntimeError):
        index = None
    if isinstance(value, bool) or not isinstance(index, Real):
        return TypeError, text
    x: Any = index
    if abs(x) >= 2**63:
        return ValueError, f"{text}, below 2**63"
    above = x > float(low) if rule[:1] == "(" else x >= float(low)
    below = x < float(high) if rule[-1:] == ")" else x <= float(high)
    return None if math.isfinite(x) and above and below else (ValueError, text)


def _broken_shape(wanted: Any, value: Any, name: str, rule: str, sizes: _Sizes) -> _Broken:
    kind, *axes = rule.split() if rule[:4] in ("int ", "any ") else ("float", *rule.split())
    least = {axis: int(size or 1) for axis, _, size in (a.partition(">=") for a in axes)}
    axes = [a.partition(">=")[0] for a in axes if a != "array"]
    names = {axis: f"{axis} >= {size}" if size > 1 else axis for axis, size in least.items()}
    shape = ", ".join(str(sizes[a][0]) if a in sizes else names[a] for a in axes)
    what = "a tensor" if wanted is Tensor else "an array"
    text = f"{what}{_OF[kind]} [{shape.replace('*', '...')}]" if axes else what
    if not isinstance(value, wanted):
        return TypeError, text
    if not axes:
        return None
    if isinstance(value, Tensor):
        dtypes = {"float": value.is_floating_point(), "int": value.dtype in _INTEGERS}
    else:
        dtypes = {"float": value.dtype.kind in "fiu", "int": value.dtype.kind in "iu"}
    if not dtypes.get(kind, True):
        return TypeError, text
    last = [axis for axis in axes if axis != "*"]
    found = list(value.shape[max(value.ndim - len(last), 0) :] if "*" in axes else value.shape)
    fits, others = len(found) == len(last), set[str]()
    for axis, size in zip(last, found, strict=False):
        like, who = (int(axis), name) if axis.isdigit() else sizes.setdefault(axis, (size, name))
        fits = fits and size >= least[axis] and size == like
        others |= {who} if size != like else set()
    match = " and ".join(sorted(others - {name, "self"}))
    text += " without an empty axis" if 0 in found else f" to match {match}" if match else ""
    return None if fits else (ValueError, text)
