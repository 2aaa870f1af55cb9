"""Presets: the published sizes, part by part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worldmodel import presets


def size(part: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in part.parameters())


def without_head(part: nn.Module) -> int:
    """Number of parameters before the projection head."""
    return size(part) - size(part.projector)


def test_lewm_has_the_published_size_part_by_part() -> None:
    """18,034,478 parameters: encoder, predictor, action encoder and two heads."""
    with torch.device("meta"):
        model = presets.lewm(action_dim=10)
    assert without_head(model.encoder) == 5_501_376
    assert without_head(model.predictor) == 10_791_360
    assert size(model.action_encoder) == 156_206
    assert size(model.encoder.projector) == size(model.predictor.projector) == 792_768
    assert size(model) == 18_034_478


def test_lewm_for_cube_differs_in_the_action_mix_alone() -> None:
    """25 action dims cost 150 parameters more than ten."""
    with torch.device("meta"):
        assert size(presets.lewm(action_dim=25)) == 18_034_628


def test_lewm_follows_image_size_and_history() -> None:
    """Only the positions grow: 192 numbers a patch and 192 a frame."""
    with torch.device("meta"):
        model = presets.lewm(image_size=112, history=4)
    assert size(model) == 18_034_478 - 192 * (16**2 - 8**2) + 192


@pytest.mark.parametrize("dim", [32, 64])
def test_small_runs_end_to_end(dim: int) -> None:
    """Frames of 64 px and blocks of ten numbers come out as predictions of the asked width."""
    model = presets.small(dim=dim).eval()
    z = model.encode(torch.zeros(1, 3, 3, 64, 64, dtype=torch.uint8))
    assert model.predict(z, torch.zeros(1, 3, 10)).shape == (1, 3, dim)
