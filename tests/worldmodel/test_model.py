"""WorldModel: a one-step rollout is a prediction, and the future leaves the past alone."""

from __future__ import annotations

import pytest
import torch

from worldmodel import ActionEncoder, CausalPredictor, ConvEncoder, WorldModel


@pytest.fixture
def model() -> WorldModel:
    """History 3, modulations that are not zero, batch statistics off their defaults."""
    model = WorldModel(
        encoder=ConvEncoder(image_size=16, patch_size=4, width=4, dim=8, projector_dim=16),
        action_encoder=ActionEncoder(action_dim=4, dim=8),
        predictor=CausalPredictor(
            dim=8, depth=2, heads=2, history=3, dim_head=6, mlp_dim=12, projector_dim=16
        ),
    )
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
        torch.nn.init.normal_(block.modulation.bias, std=0.3)
    model.encode(torch.rand(8, 2, 3, 16, 16))
    model.predict(torch.randn(8, 3, 8), torch.randn(8, 3, 4))
    return model.eval()


def test_a_one_step_rollout_equals_predict(model: WorldModel) -> None:
    """One step is the last prediction of the known embeddings, for every length of history."""
    for known in (1, 2, 3):
        z, actions = torch.randn(5, known, 8), torch.randn(5, known, 4)
        assert torch.equal(model.rollout(z, actions), model.predict(z, actions)[:, -1:])


def test_a_rollout_feeds_its_predictions_back(model: WorldModel) -> None:
    """Step h predicts from the last three embeddings, known or predicted, and their actions."""
    z, actions = torch.randn(5, 2, 8), torch.randn(5, 6, 4)
    path = list(z.unbind(1))
    for end in range(2, 7):
        start = max(0, end - 3)
        window = torch.stack(path[start:end], dim=1)
        path.append(model.predict(window, actions[:, start:end])[:, -1])
    torch.testing.assert_close(model.rollout(z, actions), torch.stack(path[2:], dim=1))


def test_a_later_action_leaves_earlier_predictions_bit_identical(model: WorldModel) -> None:
    """Changing plan action h moves prediction h and nothing before it."""
    z, actions = torch.randn(5, 1, 8), torch.randn(5, 5, 4)
    before = model.rollout(z, actions)
    for h in range(5):
        other = actions.clone()
        other[:, h] += 1.0
        after = model.rollout(z, other)
        assert torch.equal(after[:, :h], before[:, :h])
        assert not torch.isclose(after[:, h], before[:, h]).all()


def test_only_the_history_is_looked_at(model: WorldModel) -> None:
    """An embedding older than the history, and its action, change nothing."""
    z, actions = torch.randn(5, 4, 8), torch.randn(5, 6, 4)
    assert torch.equal(model.rollout(z, actions), model.rollout(z[:, 1:], actions[:, 1:]))


def test_nothing_is_written_into_an_argument(model: WorldModel) -> None:
    """Frames, embeddings and actions come back as they went in, and twice gives the same."""
    frames, z, actions = torch.rand(2, 3, 3, 16, 16), torch.randn(2, 3, 8), torch.randn(2, 5, 4)
    copies = [t.clone() for t in (frames, z, actions)]
    first = (model.encode(frames), model.rollout(z, actions))
    second = (model.encode(frames), model.rollout(z, actions))
    assert all(torch.equal(a, b) for a, b in zip((frames, z, actions), copies, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_parts_of_different_widths_are_refused() -> None:
    """Both widths are named: of the embeddings, and of the encoded actions."""
    predictor = CausalPredictor(dim=8, depth=1, heads=1)
    with pytest.raises(ValueError, match=r"must share one dim, got 12 and 8"):
        WorldModel(ConvEncoder(image_size=16, dim=12), ActionEncoder(4, 8), predictor)
    with pytest.raises(ValueError, match=r"dim 8, the predictor\'s action_width, got 12"):
        WorldModel(ConvEncoder(image_size=16, dim=8), ActionEncoder(4, 12), predictor)


def test_too_few_actions_are_refused(model: WorldModel) -> None:
    """A rollout needs the actions between the known embeddings and at least one to try."""
    with pytest.raises(ValueError, match=r"with T = 3 and H >= 1, got \[2, 2, 4\]"):
        model.rollout(torch.randn(2, 3, 8), torch.randn(2, 2, 4))


def test_actions_of_another_width_are_refused(model: WorldModel) -> None:
    """The width comes from the action encoder and is named."""
    with pytest.raises(ValueError, match=r"actions must be .*\[\.\.\., 4\], got .*\[2, 1, 5\]"):
        model.predict(torch.randn(2, 1, 8), torch.randn(2, 1, 5))
