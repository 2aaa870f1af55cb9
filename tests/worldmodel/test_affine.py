"""The affine predictor is affine in the embedding, whatever the action."""

from __future__ import annotations

import pytest
import torch

from worldmodel import AffinePredictor
from worldmodel.contract import roll_out


@pytest.fixture
def predictor() -> AffinePredictor:
    """Eight dims, rank 3; its action counts."""
    torch.manual_seed(0)
    predictor = AffinePredictor(8, rank=3, history=4, hidden_dim=16)
    torch.nn.init.normal_(predictor.steer.weight, std=0.5)
    return predictor


def test_mixtures_of_embeddings_stay_mixtures(predictor: AffinePredictor) -> None:
    """Five steps ahead, the prediction from a mixture is the mixture of the predictions."""
    a, b, actions = torch.randn(2, 1, 8), torch.randn(2, 1, 8), torch.randn(2, 5, 8)
    mixed = predictor.rollout(0.3 * a + 0.7 * b, actions)
    apart = 0.3 * predictor.rollout(a, actions) + 0.7 * predictor.rollout(b, actions)
    torch.testing.assert_close(mixed, apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed, predictor.rollout(0.3 * a + 0.7 * b, actions + 1))


@pytest.mark.parametrize("known", [1, 3])
def test_its_rollout_is_step_by_step(predictor: AffinePredictor, known: int) -> None:
    """The rollout equals `forward` again and again, of whatever window."""
    z, actions = torch.randn(2, known, 8), torch.randn(2, known + 5, 8)
    found = predictor.rollout(z, actions)
    for h in range(6):
        window = torch.cat([z, found[:, :h]], dim=1)[:, -4:]
        step = predictor(window, actions[:, : known + h][:, -4:])[:, -1]
        torch.testing.assert_close(found[:, h], step)
    torch.testing.assert_close(roll_out(predictor, z, actions), found)


def test_a_new_one_predicts_that_nothing_happens() -> None:
    """It starts as the identity; widths that disagree are named."""
    z = torch.randn(2, 3, 8)
    assert torch.equal(AffinePredictor(8)(z, torch.randn(2, 3, 8)), z)
    with pytest.raises(ValueError, match=r"actions must be .* to match embeddings"):
        AffinePredictor(8)(z, torch.randn(2, 2, 8))
