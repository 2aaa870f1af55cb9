"""A prefix predictor answers for every step at once, from the first embedding alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sigreg import SIGReg
from worldmodel import Batch, PrefixPredictor, WorldModel, jepa_loss, load, presets, save


@pytest.fixture
def model() -> WorldModel:
    """Sixteen dims, five actions at once; its blocks have left the identity."""
    torch.manual_seed(0)
    parts = presets.small(4, image_size=16, dim=16)
    predictor = PrefixPredictor(
        16, history=5, prefix_depth=2, heads=2, depth=2, mlp_dim=32, projector_dim=32
    )
    for name, weight in predictor.named_parameters():
        if "modulation" in name or "fusion" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return WorldModel(parts.encoder, parts.action_encoder, predictor).eval()


def test_only_the_first_embedding_and_earlier_actions_count(model: WorldModel) -> None:
    """Later embeddings change nothing; a later action leaves earlier answers bit-identical."""
    z, actions = torch.randn(2, 5, 16), torch.randn(2, 5, 4)
    found = model.predict(z, actions)
    other = z.clone()
    other[:, 1:] += 1
    assert torch.equal(model.predict(other, actions), found)
    later = actions.clone()
    later[:, 3] += 1
    changed = model.predict(z, later)
    assert torch.equal(changed[:, :3], found[:, :3])
    assert (changed[:, 3:] != found[:, 3:]).any(-1).all()


def test_a_short_plan_is_one_answer_from_the_newest_embedding(model: WorldModel) -> None:
    """Up to `history` steps the rollout is `predict` from the last known; beyond, from its end."""
    z, actions = torch.randn(2, 3, 16), torch.randn(2, 2 + 7, 4)
    with torch.no_grad():
        found = model.rollout(z, actions)
        first = model.predict(z[:, -1:].expand(-1, 5, -1), actions[:, 2:7])
        rest = model.predict(first[:, -1:].expand(-1, 2, -1), actions[:, 7:])
        torch.testing.assert_close(found, torch.cat([first, rest], dim=1))
        imagined = model.imagine(rows=3)._rollout(
            z, model.action_encoder(actions[:, :2]), model.action_encoder(actions[:, None, 2:])
        )
        torch.testing.assert_close(imagined[:, 0], found)


def test_it_trains_by_the_usual_loss_and_survives_the_disk(
    model: WorldModel, tmp_path: Path
) -> None:
    """Windows of H + 1 frames reach every weight; the folder gives the same answers back."""
    batch = Batch(torch.rand(4, 6, 3, 16, 16), torch.randn(4, 6, 4))
    model.train()
    jepa_loss(model, batch, SIGReg(num_proj=8)).total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    model.eval()
    save(model, tmp_path)
    z, actions = torch.randn(1, 1, 16), torch.randn(1, 5, 4)
    assert torch.equal(load(tmp_path).rollout(z, actions), model.rollout(z, actions))


def test_longer_windows_are_refused(model: WorldModel) -> None:
    """More actions than `history`, other widths and heads that do not divide are named."""
    with pytest.raises(ValueError, match="between 1 and history 5, got 6"):
        model.predict(torch.randn(1, 6, 16), torch.randn(1, 6, 4))
    with pytest.raises(ValueError, match=r"embeddings must be .* \[B, T, 16\], got"):
        model.predict(torch.randn(1, 2, 15), torch.randn(1, 2, 4))
    with pytest.raises(ValueError, match="multiple of heads 3, got 16"):
        PrefixPredictor(16, heads=3)
