"""A cloned policy does what the data did, and learns it on the built-in world."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from worldmodel import GCBC, Batch, CausalPredictor, ConvEncoder, gcbc_loss, presets
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import Training
from worldmodel.data import Windows


def small(action_dim: int = 10, history: int = 3) -> GCBC:
    """A policy of sixteen dims at 16 pixels."""
    trunk = CausalPredictor(16, depth=1, heads=2, history=history, dim_head=8, mlp_dim=32,
                            dropout=0.0, projector_dim=32)  # fmt: skip
    return GCBC(ConvEncoder(image_size=16, dim=16, projector_dim=32), trunk, action_dim)


def steered(model: GCBC) -> GCBC:
    """The same with gates away from zero: a new trunk is blind for its goal."""
    with torch.no_grad():
        for block in model.trunk.blocks:
            block.modulation.weight.normal_(0, 0.5)
    return model.eval()


def test_it_learns_to_go_where_the_goal_is() -> None:
    """Frames show a level; the action is +1 or −1, towards the goal's level: learned from both."""
    torch.manual_seed(0)
    model = small(action_dim=1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    sign = torch.ones(64)
    sign[32:] = -1
    level = 0.5 + 0.1 * sign[:, None] * torch.arange(4.0)
    frames = level.view(64, 4, 1, 1, 1).expand(-1, -1, 3, 16, 16).contiguous()
    batch = Batch(frames, sign.view(64, 1, 1).expand(-1, 4, 1))
    for _ in range(80):
        losses = gcbc_loss(model, batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    model.eval()
    start = torch.full((2, 1, 3, 16, 16), 0.5)
    goal = torch.stack([torch.full((3, 16, 16), v) for v in (0.8, 0.2)])
    up, down = model.act(start, goal).flatten().tolist()
    assert up > 0.5
    assert down < -0.5


def test_it_trains_on_the_built_in_world(two_room_windows: Callable[[int], Windows]) -> None:
    """Through the same loop as LeWM, its error falls below that of always the mean action, 1."""
    torch.manual_seed(0)
    model, errors = small(), []
    config = Recipe(steps=60, batch_size=64, learning_rate=3e-3, weight=0.0, num_proj=8)
    training = Training(
        model, two_room_windows(16), config, objective=gcbc_loss, regularizer=NoTerms()
    )
    errors += [float(losses.prediction) for losses in training.run()]
    assert sum(errors[-10:]) < 0.95 * sum(errors[:10])


class NoTerms(torch.nn.Module):
    """Regularizes nothing."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(())


def test_goals_lie_in_the_future_and_the_past_is_padded() -> None:
    """In a window of two frames t = 0 and g = 1 are the only choice: the loss is that error."""
    model = steered(small(action_dim=4))
    batch = Batch(torch.rand(5, 2, 3, 16, 16), torch.randn(5, 2, 4))
    found = gcbc_loss(model, batch)
    wanted = (model.act(batch.frames[:, :1], batch.frames[:, 1]) - batch.actions[:, 0]).square()
    torch.testing.assert_close(found.prediction, wanted.mean())
    assert found.embeddings.shape == (5, 4, 16)


def test_older_frames_than_the_history_are_not_looked_at() -> None:
    """A change before the last three frames changes nothing; a change of the goal does."""
    model = steered(small())
    frames, goal = torch.rand(2, 5, 3, 16, 16), torch.rand(2, 3, 16, 16)
    other = frames.clone()
    other[:, :2] = 0
    assert torch.equal(model.act(frames, goal), model.act(other, goal))
    assert not torch.equal(model.act(frames, goal), model.act(frames, 1 - goal))


def test_the_preset_has_the_published_trunk() -> None:
    """Six blocks over the last three frames, ViT-Tiny in front."""
    model = presets.gcbc(2, image_size=28)
    assert len(model.trunk.blocks) == 6
    assert model.trunk.history == 3
    assert model.head.out_features == 2


def test_mistakes_are_named() -> None:
    """Widths, windows, weights and modes that do not fit."""
    encoder = ConvEncoder(image_size=16, dim=8, projector_dim=16)
    with pytest.raises(ValueError, match="share one dim, got 8 and 16"):
        GCBC(encoder, small().trunk, 2)
    model, batch = small(), Batch(torch.rand(2, 1, 3, 16, 16), torch.zeros(2, 1, 10))
    with pytest.raises(ValueError, match=r"T >= 2"):
        gcbc_loss(model, batch)
    batch = Batch(torch.rand(2, 2, 3, 16, 16), torch.zeros(2, 2, 10))
    with pytest.raises(ValueError, match="weight must be 0 without a regularizer, got 1"):
        gcbc_loss(model, batch, None, 1.0)
    with pytest.raises(ValueError, match="eval mode"):
        model.act(batch.frames, batch.frames[:, 0])
