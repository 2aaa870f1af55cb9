"""The two-term loss: its formula, its gradient through both sides, what the regularizer sees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sigreg import SIGReg
from worldmodel import (
    ActionEncoder,
    Batch,
    CausalPredictor,
    ConvEncoder,
    WorldModel,
    jepa_loss,
    predictor_loss,
    presets,
)


@pytest.fixture
def model() -> WorldModel:
    """A small model in evaluation mode, so that its parts are functions of each frame alone."""
    return WorldModel(
        encoder=ConvEncoder(image_size=16, patch_size=4, width=4, dim=8, projector_dim=16),
        action_encoder=ActionEncoder(action_dim=4, dim=8),
        predictor=CausalPredictor(
            dim=8, depth=1, heads=2, history=3, dim_head=6, mlp_dim=12, projector_dim=16
        ),
    ).eval()


@pytest.fixture
def batch() -> Batch:
    """Six windows of four frames."""
    return Batch(torch.rand(6, 4, 3, 16, 16), torch.randn(6, 4, 4))


def energy(z: Tensor) -> Tensor:
    """A regularizer simple enough to do by hand."""
    return z.square().mean()


def test_the_loss_equals_its_formula(model: WorldModel, batch: Batch) -> None:
    """Total is the mean squared next-embedding error plus weight × regularizer."""
    losses = jepa_loss(model, batch, energy, weight=0.3)
    z = model.encode(batch.frames)
    z = z.detach()
    guess = model.predict(z[:, :3], batch.actions[:, :3]).detach()
    prediction = sum(
        float((guess[b, t, d] - z[b, t + 1, d]) ** 2)
        for b in range(6) for t in range(3) for d in range(8)
    ) / (6 * 3 * 8)  # fmt: skip
    assert float(losses.prediction) == pytest.approx(prediction, rel=1e-5)
    assert float(losses.regularization) == pytest.approx(float(z.square().mean()), rel=1e-5)
    assert float(losses.total.detach()) == pytest.approx(
        prediction + 0.3 * float(z.square().mean()), rel=1e-5
    )
    torch.testing.assert_close(losses.embeddings, z)


def test_gradient_reaches_the_encoder_from_both_sides(model: WorldModel, batch: Batch) -> None:
    """The gradient is that of the plain expression: neither the input nor the target is cut off."""
    embed = model.encode

    def gradient(cut: str) -> Tensor:
        model.zero_grad()
        z = embed(batch.frames)
        source = z.detach() if cut == "source" else z
        target = z.detach() if cut == "target" else z
        guess = model.predict(source[:, :-1], batch.actions[:, :-1])
        (guess - target[:, 1:]).square().mean().backward()
        assert model.encoder.embed.weight.grad is not None
        return model.encoder.embed.weight.grad.clone()

    model.zero_grad()
    jepa_loss(model, batch, energy, weight=0.0).total.backward()
    assert model.encoder.embed.weight.grad is not None
    found = model.encoder.embed.weight.grad.clone()
    torch.testing.assert_close(found, gradient("none"))
    for side in ("source", "target"):
        assert not torch.allclose(found, gradient(side), rtol=1e-2)


def test_the_regularizer_sees_each_time_step_alone(model: WorldModel, batch: Batch) -> None:
    """It gets [T, B, D], all T frames, with gradient."""
    seen: list[Tensor] = []

    def record(z: Tensor) -> Tensor:
        seen.append(z)
        return z.sum()

    losses = jepa_loss(model, batch, record, weight=1.0)
    assert seen[0].shape == (4, 6, 8)
    assert seen[0].requires_grad
    assert torch.equal(seen[0].detach().transpose(0, 1), losses.embeddings)


def test_sigreg_of_the_loss_is_the_mean_over_time_steps(model: WorldModel, batch: Batch) -> None:
    """SIGReg in the loss is the mean of SIGReg on the batch of each time step."""
    losses = jepa_loss(model, batch, SIGReg(num_proj=16, seed=1))
    each = [SIGReg(num_proj=16, seed=1)(losses.embeddings[:, t]) for t in range(4)]
    torch.testing.assert_close(losses.regularization, torch.stack(each).mean())


def test_only_the_total_carries_gradient(model: WorldModel, batch: Batch) -> None:
    """The terms kept for the record hold no graph."""
    losses = jepa_loss(model, batch, energy)
    assert losses.total.requires_grad
    assert not any(t.requires_grad for t in losses[1:4])


def test_the_last_action_of_a_window_does_not_count(model: WorldModel, batch: Batch) -> None:
    """It leads out of the window, so the loss is the same whatever it was."""
    other = batch.actions.clone()
    other[:, -1] += 10.0
    one, two = (jepa_loss(model, Batch(batch.frames, a), energy) for a in (batch.actions, other))
    assert torch.equal(one.total, two.total)


def test_every_parameter_learns(model: WorldModel, batch: Batch) -> None:
    """Once the gates are open, no parameter is left without a gradient."""
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
    model.train()
    jepa_loss(model, batch, SIGReg(num_proj=16)).total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_frames_that_are_no_windows_are_refused(model: WorldModel, batch: Batch) -> None:
    """An empty batch, single frames and missing dimensions are named with their shape."""
    for frames in (batch.frames[:0], batch.frames[:, :1]):
        B, T = frames.shape[:2]
        with pytest.raises(ValueError, match=rf"T >= 2, \.\.\.\], got \[{B}, {T}, "):
            jepa_loss(model, Batch(frames, batch.actions), energy)
    with pytest.raises(ValueError, match=r"frames must be \[B, T, \.\.\.\].*got \[6, 4\]"):
        jepa_loss(model, Batch(batch.frames[..., 0, 0, 0], batch.actions), energy)


def test_actions_that_do_not_match_the_frames_are_refused(model: WorldModel, batch: Batch) -> None:
    """One action block per frame; the message holds both shapes."""
    for actions in (batch.actions[:, :3], batch.actions[:5], batch.actions[..., 0]):
        with pytest.raises(ValueError, match=r"actions must be \[B, T, A\] with \[B, T\] = \[6, 4"):
            jepa_loss(model, Batch(batch.frames, actions), energy)


def test_a_window_longer_than_the_history_is_refused(model: WorldModel) -> None:
    """History 3 trains on windows of at most four frames."""
    long = Batch(torch.rand(2, 5, 3, 16, 16), torch.randn(2, 5, 4))
    with pytest.raises(ValueError, match="T of embeddings must be between 1 and history 3, got 4"):
        jepa_loss(model, long, energy)


def test_observations_by_name_are_trained_on_as_pictures_are() -> None:
    """The gradient reaches the encoder of every observation; batches that disagree are refused."""
    model = presets.small(4, dim=8, observations={"pixels": 16, "proprio": 5})
    seen = {"pixels": torch.rand(4, 3, 3, 16, 16), "proprio": torch.randn(4, 3, 5)}
    jepa_loss(model, Batch(seen, torch.randn(4, 3, 4)), energy, 0.1).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    shorter = seen | {"proprio": seen["proprio"][:, :2]}
    with pytest.raises(ValueError, match="agree in B and T"):
        jepa_loss(model, Batch(shorter, torch.randn(4, 3, 4)), energy)


def test_a_predictors_loss_is_in_the_metric(model: WorldModel, batch: Batch) -> None:
    """Errors of one step and of the rollout, of embeddings in other units."""
    units = torch.tensor([0.0, 10.0, *6 * [1.0]])
    z = model.encode(batch.frames).detach()
    losses = predictor_loss(model, Batch(z, batch.actions), lambda z: z * units, weight=0.5)
    losses.total.backward()
    for part in (model.predictor, model.action_encoder):
        assert all(p.grad is not None for p in part.parameters())
    with pytest.raises(ValueError, match=r"must be embeddings \[B, T, 8\], got \[6, 4, 3"):
        predictor_loss(model, batch, lambda z: z * units)
    model.eval()
    with torch.no_grad():
        losses = predictor_loss(model, Batch(z, batch.actions), lambda z: z * units, weight=0.5)
        step = model.predict(z[:, :3], batch.actions[:, :3])
        path = model.rollout(z[:, :1], batch.actions[:, :3])
    one, far = (((x - z[:, 1:]) * units).square().mean() for x in (step, path))
    torch.testing.assert_close(losses.prediction, one)
    torch.testing.assert_close(losses.terms["rollout"], far)
    torch.testing.assert_close(losses.total, one + 0.5 * far)
    assert losses.regularization == 0
