"""What words on the command line must be."""

from __future__ import annotations

import argparse

import torch

__all__ = ["device", "fraction", "natural", "positive", "seed", "weight"]


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def device(text: str) -> str:
    """A device that torch can use here."""
    try:
        # There and back: "meta" makes tensors and holds none.
        torch.zeros(1, device=text).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"must be a device torch can use, got {text!r} ({reason})"
        ) from None
    return text


def seed(text: str) -> int:
    """A whole number below 2^31, room for a seed per purpose."""
    value = natural(text)
    if value >= 2**31:
        raise argparse.ArgumentTypeError(f"must be below 2^31, got {text}")
    return value


def weight(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be finite and not negative, got {text}")
    return value
