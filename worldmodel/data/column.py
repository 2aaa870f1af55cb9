"""One column of a data set, as it is stored."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Column"]


class Column(NamedTuple):
    """What `worldmodel data inspect` lists.

    Attributes:
        name: inside the data set.
        shape: rows first where the format tells.
        dtype: of an entry.
        storage: chunks, compression or file kind, in words.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: str
