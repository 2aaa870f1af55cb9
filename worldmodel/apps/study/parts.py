"""What the parts of a study are given.

A part is a function of `Study` to a record. What cannot be measured raises `UnavailableError` with
the reason, and the other parts go on.
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
    """Embeddings as the study's own fits see them.

    Attributes:
        mean: [D].
        basis: [D, K], the leading directions of a wide embedding; None leaves it as it is.
    """

    mean: Tensor
    basis: Tensor | None

    def __call__(self, z: Tensor) -> Tensor:
        """[..., D] -> [..., K]."""
        return z if self.basis is None else (z - self.mean) @ self.basis


class Study(NamedTuple):
    """What every part is given.

    Attributes:
        run: Run.
        material: StudyMaterial.
        lens: Lens.
        variance: of a coordinate of the test embeddings, on average; the unit of latent errors.
        seed: of every fit and every interval.
        steps: of the decoder's training.
    """

    run: Run
    material: StudyMaterial
    lens: Lens
    variance: float
    seed: int
    steps: int


def lens_of(sequences: Sequences) -> Lens:
    """Directions of largest variance, where there are more coordinates than can be fitted."""
    z = sequences.z.flatten(0, 1)
    mean = z.mean(0)
    keep = min(_WIDE, max(len(z) // 4, 2))
    if z.shape[1] <= _WIDE:
        return Lens(mean, None)
    # Rows are fewer than coordinates: the small side's eigenvectors give the large side's.
    x = (z - mean).double()
    values, vectors = torch.linalg.eigh(x @ x.T)
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    basis = (x.T @ vectors) / values.clamp_min(1e-12).sqrt()
    return Lens(mean, basis.to(z.dtype))


def both_sides(study: Study, why: str) -> tuple[Sequences, Sequences]:
    """Episodes to fit on and others to test on; without the first there is `why` not."""
    if study.material.fit is None:
        raise UnavailableError(f"{why}, got one in all")
    return study.material.fit, study.material.test
