"""The layer: what it scores, and which directions it uses when."""

import torch

from sigreg import SIGReg


def test_gaussian_batches_score_the_noise_floor() -> None:
    """Over many steps the loss of fresh Gaussian batches averages 1.0525, whatever N is."""
    generator = torch.Generator().manual_seed(0)
    layer = SIGReg(num_proj=64)
    losses = [layer(torch.randn(8, 32, 24, generator=generator)) for _ in range(200)]
    assert abs(torch.stack(losses).mean().item() - 1.0525) < 0.01


def test_training_draws_fresh_directions_and_evaluation_does_not() -> None:
    """Two training calls differ, two evaluation calls are equal bit for bit."""
    layer, x = SIGReg(num_proj=16), torch.randn(32, 8)
    assert layer(x) != layer(x)
    assert layer.step == 2
    layer.eval()
    assert layer(x) == layer(x)
    assert layer.step == 2


def test_a_restart_continues_the_sequence_of_directions() -> None:
    """A layer loaded from a state dict gives the losses the saved one would have given."""
    x, first, second = torch.randn(32, 8), SIGReg(num_proj=16), SIGReg(num_proj=16)
    first(x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
