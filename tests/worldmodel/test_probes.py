"""Probes find what is there and nothing else; principal components of a known covariance."""

from __future__ import annotations

import pytest
import torch

from worldmodel.study import principal_components, probe_guesses, score_guesses


def split(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First two thirds and the rest."""
    return x[:400], x[400:]


def explained(
    z: tuple[torch.Tensor, torch.Tensor], y: tuple[torch.Tensor, torch.Tensor], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """R² of the line and of the network on the second parts, fitted on the first."""
    guesses = probe_guesses(z[0], y[0], z[1], seed=seed)
    episode, scale = torch.zeros(len(y[1]), dtype=torch.int64), y[0].std(0)
    linear, network = (
        torch.tensor([s.r2.value for s in score_guesses(guess, y[1], episode, scale)])
        for guess in (guesses.linear, guesses.mlp)
    )
    return linear, network


def test_a_linear_map_is_read_off_exactly() -> None:
    """Quantities linear in the embedding have a linear R² of 1, whatever units they come in."""
    z = torch.randn(600, 5) * torch.tensor([1e-2, 1.0, 5.0, 100.0, 0.3]) + 7
    linear, network = explained(split(z), split(1000 * z @ torch.randn(5, 2) - 3))
    torch.testing.assert_close(linear, torch.ones(2), atol=1e-4, rtol=0)
    assert (network > 0.99).all()


def test_noise_explains_nothing() -> None:
    """Embeddings that are independent of the quantities have an R² of about 0, or below."""
    linear, network = explained(split(torch.randn(600, 5)), split(torch.randn(600, 2)))
    assert (linear.abs() < 0.1).all()
    assert (network < 0.1).all()


def test_a_curved_map_needs_the_network() -> None:
    """The square of a symmetric variable is invisible to a line and plain to a network."""
    z = torch.randn(1200, 1)
    linear, network = explained((z[:800], z[800:]), (z[:800] ** 2, z[800:] ** 2))
    assert float(linear) < 0.1
    assert float(network) > 0.95


def test_collapsed_embeddings_predict_the_mean() -> None:
    """One embedding for everything predicts the training mean: R² is −(its bias)² / variance."""
    (train_y, test_y) = split(torch.randn(600, 2))
    linear, network = explained((torch.ones(400, 5), torch.ones(200, 5)), (train_y, test_y))
    expected = -(train_y.mean(0) - test_y.mean(0)).square() / test_y.var(0, correction=0)
    torch.testing.assert_close(linear, expected)
    torch.testing.assert_close(network, expected, atol=1e-3, rtol=0)


def test_a_probe_is_a_function_of_its_seed() -> None:
    """The same seed gives the same network, and the global generator is left alone."""
    (train_z, test_z), (train_y, _) = split(torch.randn(600, 3)), split(torch.randn(600, 1))
    before = torch.get_rng_state()
    first, again, other = (
        probe_guesses(train_z, train_y, test_z, seed=seed).mlp for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_that_disagree_or_are_too_few_are_refused() -> None:
    """The messages hold the shapes, and the number of rows a probe needs."""
    z, y = torch.zeros(10, 4), torch.zeros(10, 2)
    with pytest.raises(ValueError, match=r"train_y must be .* to match train_z"):
        probe_guesses(z, y[:9], z)
    with pytest.raises(ValueError, match=r"N >= D \+ 1, got \[4, 4\]"):
        probe_guesses(z[:4], y[:4], z)
    with pytest.raises(ValueError, match=r"episode must be .* to match guess"):
        score_guesses(y, y, torch.zeros(9, dtype=torch.int64), torch.ones(2))


def test_principal_components_of_a_known_covariance() -> None:
    """Whitened samples stretched by 3, 2 and 1 have shares 9/14 and 4/14 along those axes."""
    white = torch.linalg.qr(torch.randn(500, 3, dtype=torch.float64)).Q
    white = torch.linalg.qr(white - white.mean(0)).Q
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    stretched = white * torch.tensor([3.0, 2.0, 1.0])
    coordinates, share = principal_components(stretched @ turn + 5, num=2)
    expected = torch.tensor([9 / 14, 4 / 14], dtype=torch.float64)
    torch.testing.assert_close(share, expected)
    torch.testing.assert_close(coordinates.abs(), stretched[:, :2].abs())
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(2, dtype=torch.float64))


def test_principal_components_of_a_collapsed_cloud_are_zero() -> None:
    """A cloud of one point has no direction and no share, and no NaN."""
    coordinates, share = principal_components(torch.ones(20, 3))
    assert torch.equal(coordinates, torch.zeros(20, 2))
    assert torch.equal(share, torch.zeros(2))
