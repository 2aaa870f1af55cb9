"""A decoder paints what the embedding knows, and the mean where it knows nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.study import Decoder, fit_decoder


def halves(num: int) -> tuple[Tensor, Tensor]:
    """Embeddings ±1 (and a second coordinate of noise), and pictures lit left or right."""
    side = torch.randint(2, (num,)) * 2 - 1
    pictures = torch.full((num, 3, 16, 16), 40, dtype=torch.uint8)
    pictures[side > 0, :, :, 8:] = 220
    pictures[side < 0, :, :, :8] = 220
    return torch.stack([side.float(), torch.randn(num)], dim=1), pictures


def test_a_new_decoder_paints_the_mean() -> None:
    """Before training, every embedding is the mean picture."""
    mean = torch.rand(3, 32, 32)
    decoder = Decoder(mean, torch.zeros(4), torch.ones(4))
    torch.testing.assert_close(decoder(torch.randn(5, 4)), mean.expand(5, -1, -1, -1))


def test_what_the_embedding_knows_is_painted() -> None:
    """Two pictures told apart by one coordinate are painted as they are, on new embeddings too."""
    (z, pictures), (new_z, wanted) = halves(64), halves(32)
    decoder = fit_decoder(z, pictures, steps=60)
    with torch.no_grad():
        error = (decoder(new_z) - wanted.float() / 255).square().mean()
    blind = (wanted.float() / 255 - decoder.mean).square().mean()
    assert error < 0.1 * blind


def test_what_it_does_not_know_is_the_mean() -> None:
    """Collapsed embeddings are painted as the mean picture, up to what brightness favours."""
    _, pictures = halves(64)
    decoder = fit_decoder(torch.ones(64, 2), pictures, steps=30)
    with torch.no_grad():
        painted = decoder(torch.ones(1, 2))[0]
    assert float((painted - decoder.mean).abs().max()) < 0.15


def test_fitting_is_a_function_of_its_seed() -> None:
    """Equal seeds paint equally, and the global generator is left alone."""
    z, pictures = halves(16)
    before = torch.get_rng_state()
    one, two = (fit_decoder(z, pictures, steps=3, seed=4) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.paint(z), two.paint(z))


def test_other_sizes_are_refused() -> None:
    """Sides are multiples of 16, and every embedding has its picture."""
    with pytest.raises(ValueError, match=r"S a multiple of 16, got \[3, 20, 20\]"):
        Decoder(torch.zeros(3, 20, 20), torch.zeros(2), torch.ones(2))
    with pytest.raises(TypeError, match=r"pictures must be uint8 in 0…255, got torch.float32"):
        fit_decoder(torch.zeros(4, 2), torch.rand(4, 3, 16, 16))
    with pytest.raises(ValueError, match=r"pictures must be .* to match z"):
        fit_decoder(torch.zeros(3, 2), torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
