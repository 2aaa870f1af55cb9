"""What the parts of a study are given.

A part is a function of `Study` to a record. What cannot be measured raises `UnavailableError` with
the reason, and the other parts continue.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.apps.runs import Run
from worldmodel.apps.study.material import Sequences, StudyMaterial

__all__ = ["Lens", "Study", "UnavailableError", "both_sides", "lens_of"]

_WIDE = 256  # embeddings wider than this are studied through their principal components


class UnavailableError(ValueError):
    """A part of the study has nothing to measure; the message says why."""


class Lens(NamedTuple):
    """Embeddings as the study's own fits see them: a wide one along its leading directions."""

    mean: Tensor  # [D]
    basis: Tensor | None  # [D, K]; None leaves embeddings as they are

    def __call__(self, z: Tensor) -> Tensor:
        """[..., D] -> [..., K]."""
        return z if self.basis is None else (z - self.mean) @ self.basis


class Study(NamedTuple):
    """What every part is given."""

    run: Run
    material: StudyMaterial
    lens: Lens
    variance: float  # of a coordinate of the test embeddings, on average; the unit of errors
    seed: int  # of every fit and every interval
    steps: int  # of the decoder's training


def lens_of(sequences: Sequences) -> Lens:
    """Directions of largest variance, where there are more coordinates than can be fitted."""
    z = sequences.z.flatten(0, 1)
    mean = z.mean(0)
    if z.shape[1] <= _WIDE:
        return Lens(mean, None)
    keep = min(_WIDE, max(len(z) // 4, 2))
    directions = torch.linalg.svd((z - mean).double(), full_matrices=False).Vh[:keep]
    return Lens(mean, directions.T.to(z.dtype))


def both_sides(study: Study, why: str) -> tuple[Sequences, Sequences]:
    """Episodes to fit on and others to test on; without the first there is `why` not."""
    if study.material.fit is None:
        raise UnavailableError(f"{why}, got one in all")
    return study.material.fit, study.material.test
