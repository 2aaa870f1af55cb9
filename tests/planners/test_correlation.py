"""Correlated noise has the spectrum, the variance and the shape it is named for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planners import Colored, Integrated, Kernel
from planners.noise import Correlation, Noise, Stream, correlated


@given(st.integers(1, 40), st.floats(0, 6))
def test_coloured_noise_is_stationary_with_variance_one(horizon: int, beta: float) -> None:
    """L Lᵀ has ones on its diagonal and depends on the distance of two steps alone."""
    L = Colored(beta).matrix(horizon)
    assert L.shape == (horizon, horizon)
    covariance = L @ L.T
    torch.testing.assert_close(covariance.diagonal(), torch.ones(horizon, dtype=L.dtype))
    torch.testing.assert_close(covariance.roll((1, 1), (0, 1)), covariance)


def test_white_is_the_colour_of_no_exponent() -> None:
    """β = 0 leaves the steps independent."""
    for horizon in (1, 2, 5, 8):
        L = Colored(0.0).matrix(horizon)
        torch.testing.assert_close(L @ L.T, torch.eye(horizon, dtype=L.dtype))


def test_the_power_falls_as_the_exponent_says() -> None:
    """The periodogram of f and 2f differs by 2^β."""
    covariance = Colored(1.7).matrix(32) @ Colored(1.7).matrix(32).T
    power = torch.fft.rfft(covariance[0]).real
    torch.testing.assert_close(power[4] / power[8], torch.tensor(2**1.7, dtype=power.dtype))
    torch.testing.assert_close(power[0], power[1])


def test_the_walk_ends_with_variance_one() -> None:
    """Integrated noise has variance h / H at step h, and independent increments."""
    L = Integrated().matrix(5)
    variance = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0], dtype=L.dtype)
    torch.testing.assert_close((L @ L.T).diagonal(), variance)
    increments = L.diff(dim=0)
    torch.testing.assert_close(
        increments @ increments.T, 0.2 * torch.eye(4, dtype=L.dtype), atol=1e-12, rtol=0
    )


def test_the_kernel_interpolates_its_support_points() -> None:
    """At a support point the noise is that point's number; all H of them give white noise."""
    L = Kernel(3).matrix(9)
    assert L.shape == (9, 3)
    torch.testing.assert_close(L[::4], torch.eye(3, dtype=L.dtype), atol=1e-9, rtol=0)
    assert (L.diff(dim=0).abs().amax(0) < 0.6).all()
    torch.testing.assert_close(Kernel(6).matrix(6), torch.eye(6, dtype=L.dtype), atol=1e-9, rtol=0)


@pytest.mark.parametrize("correlation", [Colored(2.0), Integrated(), Kernel(3)])
def test_samples_have_the_covariance_of_the_matrix(correlation: Correlation) -> None:
    """Twenty thousand draws reproduce L Lᵀ, the action dims stay independent."""
    noise = Noise(Stream(torch.tensor([1])), 0)
    like = torch.zeros(1, 6, 2)
    x = correlated(noise, correlation, 20_000, like)[0].double()
    L = correlation.matrix(6)
    found = torch.einsum("sha,ska->hk", x, x) / (2 * 20_000)
    torch.testing.assert_close(found, L @ L.T, atol=0.03, rtol=0)
    assert torch.einsum("sh,sk->hk", x[..., 0], x[..., 1]).div(20_000).abs().max() < 0.04


def test_settings_out_of_range_are_refused() -> None:
    """A setting outside its range names itself."""
    with pytest.raises(ValueError, match="beta"):
        Colored(-0.1)
    with pytest.raises(ValueError, match="num_support must be an integer of at least 2"):
        Kernel(1)
    with pytest.raises(ValueError, match="length must be a number"):
        Kernel(2, 0.0)
    with pytest.raises(ValueError, match="num_support must be at most the horizon, 3, got 4"):
        Kernel(4).matrix(3)
