"""The predictor: causal in tokens and actions, with a position for each frame of its history."""

from __future__ import annotations

import pytest
import torch

from worldmodel import CausalPredictor


def awake(**settings: int) -> CausalPredictor:
    """A small predictor whose modulations are not zero, its batch statistics off their defaults."""
    sizes = {"dim": 8, "depth": 2, "heads": 2, "history": 4, "dim_head": 6, "mlp_dim": 12}
    predictor = CausalPredictor(**{**sizes, "projector_dim": 16, **settings})
    for block in predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
        torch.nn.init.normal_(block.modulation.bias, std=0.3)
    predictor(torch.randn(8, 4, 8), torch.randn(8, 4, 8))
    return predictor.eval()


def test_a_later_token_leaves_earlier_predictions_bit_identical() -> None:
    """Prediction t depends on embeddings and actions up to t, and on the action at t."""
    predictor, z, a = awake(), torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    before = predictor(z, a)
    for moved in (z, a):
        kept = moved.clone()
        moved[:, 2] += torch.randn(8)  # a constant would vanish in LayerNorm
        after = predictor(z, a)
        assert torch.equal(after[:, :2], before[:, :2])
        assert not torch.isclose(after[:, 2], before[:, 2]).all()
        moved.copy_(kept)


def test_a_shorter_history_gives_the_same_first_predictions() -> None:
    """Positions count from the oldest frame: cutting later tokens off changes nothing before."""
    predictor, z, a = awake(), torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    torch.testing.assert_close(predictor(z[:, :2], a[:, :2]), predictor(z, a)[:, :2])


def test_a_new_predictor_ignores_the_actions() -> None:
    """All gates start closed: a new predictor reads each embedding out by itself."""
    predictor = CausalPredictor(dim=8, depth=2, heads=2, history=4, dim_head=6, mlp_dim=12).eval()
    z = torch.randn(3, 4, 8)
    one = predictor(z, torch.randn(3, 4, 8))
    assert torch.equal(one, predictor(z, torch.randn(3, 4, 8)))
    torch.testing.assert_close(one, predictor.read_out(z + predictor.positions))


def test_positions_tell_tokens_apart() -> None:
    """The same embedding under the same action predicts otherwise at another place."""
    predictor = awake()
    z, a = torch.randn(1, 1, 8).expand(1, 4, 8), torch.randn(1, 1, 8).expand(1, 4, 8)
    out = predictor(z, a)
    assert not torch.isclose(out[:, 0], out[:, 1]).all()


def test_sequences_do_not_see_each_other() -> None:
    """Predictions of one sequence do not depend on the rest of the batch."""
    predictor, z, a = awake(), torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    torch.testing.assert_close(predictor(z, a)[1:2], predictor(z[1:2], a[1:2]))


def test_dropout_works_in_training_only() -> None:
    """The published dropout of 0.1 is on in training and off in evaluation."""
    predictor, z, a = awake(), torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    assert torch.equal(predictor(z, a), predictor(z, a))
    assert predictor.config["dropout"] == 0.1
    predictor.train()
    assert not torch.equal(predictor(z, a), predictor(z, a))


def test_shapes_that_disagree_are_refused() -> None:
    """The message holds the wanted width and both shapes: ranks, widths or lengths that differ."""
    predictor = awake()
    for z, a in (((2, 3, 8), (2, 2, 8)), ((3, 8), (3, 8)), ((2, 3, 7), (2, 3, 7))):
        with pytest.raises(ValueError, match=r"(embeddings|actions) must be "):
            predictor(torch.zeros(z), torch.zeros(a))


def test_more_frames_than_the_history_are_refused() -> None:
    """There is a position for each of `history` frames and no other."""
    predictor = awake()
    for length in (0, 5):
        x = torch.zeros(2, length, 8)
        rule = r"T of embeddings must be between 1 and history 4, got 5|without an empty axis"
        with pytest.raises(ValueError, match=rule):
            predictor(x, x)
