"""Malformed library calls: one argument at a time is spoiled, and what comes is classified."""

from __future__ import annotations

import contextlib
import dis
import inspect
import io
import math
import random
import re
import signal
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import nn

PACKAGES = ("sigreg", "planners", "worldmodel")
# Work that takes seconds and begins behind all checks: reaching it is enough.
HEAVY = ("torch.export.export", "torch.onnx.export", "torch.compile")
LIMIT = 20  # seconds; more is a hang


class Outcome(NamedTuple):
    """What became of one malformed call."""

    call: str
    argument: str
    spoiled: str  #: in words
    verdict: str  #: clear, other name, obscure, nan, accepted, legitimate, hang
    told: str = ""  #: the error


class Reached(BaseException):
    """The heavy work behind all checks would begin."""


class Hang(BaseException):
    """A call took longer than `LIMIT`."""


def spoiled(value: Any, hint: Any) -> Iterator[tuple[str, Any, bool]]:
    """Other values for an argument: in words, the value, and whether it is surely wrong."""
    optional = type(None) in typing.get_args(hint)
    if value is not None and not optional:
        yield "None", None, True
    yield "object()", object(), True
    if isinstance(value, torch.Tensor):
        yield from _tensors(value)
    elif isinstance(value, np.ndarray):
        yield from _arrays(value)
    elif isinstance(value, (bool, int, float, str)):
        yield from _scalars(value)
    elif isinstance(value, Path):
        yield "an absent path", value / "absent" / "too", False
        yield "3", 3, True
        yield "a path with NUL", "\0", True
    elif isinstance(value, Mapping):
        yield "{}", {}, False
        yield "[]", [], False
        yield "{'x': 1}", {"x": 1}, False
    elif isinstance(value, Sequence):
        yield "()", (), False
        yield "(object(),)", (object(),), True
        yield "'x'", "x", False
        yield "NaNs", tuple(math.nan for _ in value), False
        yield "one more", (*value, *value[-1:]), False
        yield "3.5", 3.5, False
    elif isinstance(value, (torch.dtype, torch.device)):
        yield "'nonsense'", "nonsense", True
        yield "int64", torch.int64, False
    elif callable(value) and not isinstance(value, (type, nn.Module)):
        yield "3", 3, True
    else:
        yield "3", 3, True
        yield "'nonsense'", "nonsense", True
        yield "its class", type(value), True


def _scalars(value: Any) -> Iterator[tuple[str, Any, bool]]:
    if isinstance(value, bool):
        yield "'yes'", "yes", True
        yield "2.5", 2.5, True
    elif isinstance(value, str):
        yield "'nonsense'", "nonsense", False
        yield "3", 3, True
        yield "''", "", False
    else:
        yield from _numbers(value)


def _numbers(value: float) -> Iterator[tuple[str, Any, bool]]:
    whole = isinstance(value, int)
    for wrong in (-1, 0, 1.5, math.nan, math.inf, -math.inf, 10**30, -(2**63) - 1):
        if wrong != value:
            yield repr(wrong), wrong, whole and not isinstance(wrong, int)
    yield "'3'", "3", True
    yield "a tensor [2]", torch.ones(2), False
    yield "3j", 3j, True
    yield "[1]", [1], False


def _tensors(x: torch.Tensor) -> Iterator[tuple[str, Any, bool]]:
    for axis in range(x.ndim):
        yield f"axis {axis} longer", torch.cat([x, x.narrow(axis, 0, 1)], axis), False
        yield f"axis {axis} shorter", x.narrow(axis, 0, x.shape[axis] - 1), False
        yield f"axis {axis} empty", x.narrow(axis, 0, 0), False
        yield f"without axis {axis}", x.select(axis, 0), False
    yield "one more axis", x[None], False
    yield "a scalar", x.new_ones(()), False
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.uint8, torch.float32):
        if dtype != x.dtype:
            yield str(dtype), x.to(dtype), dtype == torch.complex64
    if x.is_floating_point():
        yield "NaN", torch.full_like(x, math.nan), False
        yield "inf", torch.full_like(x, math.inf), False
    elif x.dtype == torch.int64:
        yield "negative", -x - 1, False
        yield "too large", x + 10**6, False
    yield "a list", x.tolist(), False
    yield "an array", x.numpy(), False
    yield "'nonsense'", "nonsense", True


def _arrays(x: np.ndarray[Any, Any]) -> Iterator[tuple[str, Any, bool]]:
    for axis in range(x.ndim):
        yield f"axis {axis} longer", np.concatenate([x, x.take([0], axis)], axis), False
        yield f"axis {axis} empty", x.take([], axis), False
        yield f"without axis {axis}", x.take(0, axis), False
    yield "one more axis", x[None], False
    yield "complex", x.astype(complex), True
    yield "words", x.astype(str), True
    yield "objects", np.full(x.shape, None), True
    yield "'nonsense'", "nonsense", True


def hints_of(call: Callable[..., Any]) -> dict[str, Any]:
    """Type hints of a callable's arguments; nothing where they cannot be resolved."""
    target = call
    if inspect.isclass(call):
        target = call.__init__ if "__init__" in vars(call) else call
    elif isinstance(call, nn.Module):
        target = call.forward
    elif not (inspect.isfunction(call) or inspect.ismethod(call)):
        target = type(call).__call__
    with contextlib.suppress(Exception):
        return typing.get_type_hints(target)
    return {}


def is_ours(error: BaseException) -> bool:
    """Whether our own code raised it on purpose."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    return package in PACKAGES and dis.opname[code.co_code[trace.tb_lasti]] in (
        "RAISE_VARARGS", "RERAISE",
    )  # fmt: skip


def has_nan(value: Any) -> bool:
    """Whether NaN is anywhere in what came back."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool(np.isnan(value).any())
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Mapping):
        return any(map(has_nan, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(has_nan, value))
    return False


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` out of a block that takes longer."""

    def late(_: int, __: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def quiet(call: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The call without its words; positional where the name is not a keyword."""
    with (
        contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(), limited(LIMIT),
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        try:
            with ExitStack() as patches:
                for target in HEAVY:
                    patches.enter_context(mock.patch(target, side_effect=Reached))
                return call(**arguments)
        except Reached:
            return None


def judge(
    call: Callable[..., Any],
    arguments: Mapping[str, Any],
    argument: str,
    *,
    wrong: bool,
    spoils: str,
) -> tuple[str, str]:
    """Verdict on a call with one spoiled argument, and the error that it told."""
    try:
        found = quiet(call, arguments)
    except Hang:
        return "hang", ""
    except Exception as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, OSError) and str(arguments[argument]) in str(error):
            return "clear", told
        if not is_ours(error):
            return "obscure", told
        named = re.search(rf"\b{argument}\b", str(error)) or isinstance(error, ImportError)
        return "clear" if named else "other name", told
    if spoils not in ("NaN", "inf", "NaNs") and has_nan(found):
        return "nan", ""
    return ("accepted" if wrong else "legitimate"), ""


def fuzz_calls(
    bases: Mapping[str, Callable[[], tuple[Callable[..., Any], dict[str, Any]]]],
    *,
    seed: int,
    share: float = 1.0,
    names: str = "",
) -> Iterator[Outcome]:
    """Every spoiled argument of every call, or a random share of them."""
    drawn = random.Random(seed)
    for name, make in bases.items():
        if not re.search(names, name):
            continue
        try:
            call, arguments = make()
        except ImportError:
            continue  # of an extra that is not installed
        hints = hints_of(call)
        for argument in arguments:
            count = sum(1 for _ in spoiled(arguments[argument], hints.get(argument)))
            for i in range(count):
                if drawn.random() >= share:
                    continue
                # Made anew: a call may change what it is given.
                call, now = make()
                spoils, value, wrong = list(spoiled(now[argument], hints.get(argument)))[i]
                now[argument] = value
                verdict, told = judge(call, now, argument, wrong=wrong, spoils=spoils)
                yield Outcome(name, argument, spoils, verdict, told)
