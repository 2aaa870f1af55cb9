"""Every check of an argument. An error names the argument, the rule and what came."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def count(name: str, value: Any, at_least: int = 1) -> None:
    rule = f"{name} must be a whole number of at least {at_least}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(rule)
    if not isinstance(value, Integral) or int(value) < at_least:
        raise ValueError(rule)
    if int(value) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {value}")


def integer(name: str, value: Any) -> None:
    """Any integer, or an integer tensor []."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if isinstance(value, Tensor):
        whole = value.ndim == 0 and value.dtype in (torch.int64, torch.int32)
    if not whole:
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} must be an integer, got {got}")


def device(name: str, value: Any) -> None:
    try:
        torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} must be a device of torch, got {value!r}") from error


def number(name: str, value: Any, interval: str = "[0, inf)") -> None:
    """A number in an interval that excludes its upper end."""
    rule = f"{name} must be in {interval}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(rule)
    low, high = map(float, interval[1:-1].split(", "))
    if not low <= float(value) < high or (interval[0] == "(" and value == low):
        raise ValueError(rule)


def kind(name: str, value: Any, kind: type | Callable[..., Any]) -> None:
    """An instance of a class; or a callable, where `kind` is `callable`."""
    if not (isinstance(value, kind) if isinstance(kind, type) else kind(value)):
        raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}")


def choice(name: str, value: str, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def samples(z: Tensor, name: str = "z", *, axes: str = "N, D", at_least: int = 1) -> None:
    """A floating tensor [..., N, D] that holds enough samples."""
    if not isinstance(z, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(z).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {z.dtype}")
    if z.ndim < 2 or z.shape[-2] < at_least or z.shape[-1] == 0 or 0 in z.shape[:-2]:
        raise ValueError(
            f"{name} must be [..., {axes}] with N at least {at_least} and no other axis empty, "
            f"got {list(z.shape)}"
        )


def directions(directions: Tensor, z: Tensor) -> None:
    kind("directions", directions, Tensor)
    if not directions.is_floating_point():
        raise TypeError(f"directions must be floating point, got {directions.dtype}")
    dim = z.shape[-1]
    if directions.ndim != 2 or directions.shape[1] != dim or directions.shape[0] == 0:
        raise ValueError(
            f"directions must be [M, {dim}] to match z [..., {dim}], got {list(directions.shape)}"
        )


def shares(mask: Tensor | None, sample_weight: Tensor | None, z: Tensor) -> None:
    """A mask and sample weights that match the samples of z [..., N, D]."""
    for name, given in (("mask", mask), ("sample_weight", sample_weight)):
        if given is not None:
            kind(name, given, Tensor)
        if given is not None and given.shape != z.shape[:-1]:
            raise ValueError(
                f"{name} must be {list(z.shape[:-1])} to match z {list(z.shape)}, "
                f"got {list(given.shape)}"
            )
    if mask is not None and mask.is_floating_point():
        raise TypeError(f"mask must be boolean, got {mask.dtype}: samples count or do not")
    if sample_weight is not None and not sample_weight.is_floating_point():
        raise TypeError(f"sample_weight must be floating point, got {sample_weight.dtype}")
    if sample_weight is not None and sample_weight.requires_grad:
        raise ValueError("sample_weight must not require a gradient: the loss has none for it")
