"""SIGReg by size, backend and dtype beside the published formula, and its directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sigreg import SIGReg, random_directions, trapezoid_rule
from sigreg.reference import ecf_sums, epps_pulley

SHAPES = {"4x128x192": (4, 128, 192), "1x256x64": (1, 256, 64), "8x512x512": (8, 512, 512)}


def published(z: Tensor) -> Tensor:
    """The released formula, eager, with its own fresh directions."""
    a = torch.randn(z.shape[-1], 1024)
    rule, n = trapezoid_rule(), z.shape[-2]
    cos, sin = ecf_sums(z @ (a / a.norm(dim=0)), rule.t)
    return epps_pulley(cos / n, sin / n, n, rule).mean()


def step(z: Tensor, loss: Any) -> None:
    """Loss and gradient."""
    z.grad = None
    loss(z).backward()


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        (shape, side)
        for shape in SHAPES
        for side in ("published", "reference", "cpu", "cpu, bfloat16 batch")
        # Seconds a call and gigabytes: `nox -s measure -- sigreg` has this ratio.
        if shape != "8x512x512" or side.startswith("cpu")
    ],
)
def test_forward_and_backward(benchmark: Any, shape: str, side: str) -> None:
    """One loss and its gradient, directions drawn anew."""
    benchmark.group = f"SIGReg, forward + backward, {shape}"
    dtype = torch.bfloat16 if "bfloat16" in side else torch.float32
    z = torch.randn(SHAPES[shape], dtype=dtype, requires_grad=True)
    loss = published if side == "published" else SIGReg(backend=side.partition(",")[0])
    benchmark(step, z, loss)


@pytest.mark.benchmark(group="directions, 1024 of 192")
@pytest.mark.parametrize("sampler", ["gaussian", "orthogonal", "torch.randn, normalised"])
def test_directions(benchmark: Any, sampler: str) -> None:
    """Directions of one step, beside torch's own normals."""
    if sampler.startswith("torch"):
        benchmark(lambda: torch.nn.functional.normalize(torch.randn(1024, 192), dim=1))
    else:
        benchmark(lambda: random_directions(1024, 192, seed=0, step=1, sampler=sampler))
