"""Seeds: integers of every kind, by one rule."""

import operator
from typing import SupportsIndex

import torch


def as_seed(seed: SupportsIndex) -> int:
    """An integer of any kind and size, NumPy's too, as an int that every generator takes.

    Those of 64 bits keep their value; others that are 2^64 apart mean the same.

    Raises: TypeError if it is none.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed must be an integer, got {seed!r}") from None
    return (number + 2**63) % 2**64 - 2**63


def generator(seed: SupportsIndex, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on a device, at the seed."""
    return torch.Generator(device).manual_seed(as_seed(seed))
