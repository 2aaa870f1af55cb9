"""The device and the precision that a setting means on this machine."""

from __future__ import annotations

import torch

__all__ = ["device_of", "precision_of"]


def device_of(name: str) -> str:
    """The device of a setting, "auto" a GPU if there is one; ValueError if torch cannot use it."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # There and back: "meta" makes tensors and holds none.
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, ImportError, ValueError) as error:
        why = f"got {name!r} ({str(error).splitlines()[0]})"
        raise ValueError(f"--device must be a device torch can use, {why}") from None
    return name


def precision_of(name: str, device: str) -> str:
    """The precision that a setting means on a device; "auto" is bfloat16 on a GPU that has it."""
    low = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return name if name != "auto" else "bfloat16" if low else "float32"
