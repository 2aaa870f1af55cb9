"""Rules of `checked`: shapes by letters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel._arguments import checked


@checked(ways="N N", path="T>=3 D")
def measured(ways: Tensor, path: Tensor) -> int:
    """Rows of the one and points of the other."""
    return len(ways) + len(path)


@pytest.mark.parametrize(
    ("ways", "path", "message"),
    [
        ((3, 2), (3, 1), r"ways must be .*\[N, N\], got .*\[3, 2\]"),
        ((3,), (3, 1), r"ways must be .*\[N, N\], got .*\[3\]"),
        ((2, 2), (2, 1), r"path must be .*\[T >= 3, D\], got .*\[2, 1\]"),
        ((2, 2), (3, 0), "path must be .* without an empty axis"),
    ],
)
def test_shapes_by_letters(ways: tuple[int, ...], path: tuple[int, ...], message: str) -> None:
    """Axes of one letter agree, also within a tensor, and an axis may have a least size."""
    assert measured(torch.zeros(4, 4), torch.zeros(3, 1)) == 7
    with pytest.raises(ValueError, match=message):
        measured(torch.zeros(ways), torch.zeros(path))
