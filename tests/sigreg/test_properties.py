"""What SIGReg must satisfy on any sample: the published formula, symmetries, floor and collapse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sigreg import noise_floor, random_directions, sigreg_loss, trapezoid_rule

RULE = trapezoid_rule()
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 40)


def sample(seed: int, n: int, dim: int) -> Tensor:
    """[n, dim], float64, neither centred nor of unit scale."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return 0.3 + 1.7 * z


def directions(seed: int, num: int, dim: int) -> Tensor:
    """[num, dim], float64, unit rows."""
    return random_directions(num, dim, seed=seed, step=0).double()


def published(z: Tensor, directions: Tensor) -> Tensor:
    """The released LeWM formula: means over the samples, windowed trapezoid on [0, 3], times N."""
    t = torch.linspace(0, 3, 17, dtype=z.dtype)
    weight = torch.full((17,), 2 * 3 / 16, dtype=z.dtype)
    weight[[0, -1]] = 3 / 16
    phi = torch.exp(-t.square() / 2)
    angle = (z @ directions.T).unsqueeze(-1) * t
    error = (angle.cos().mean(-3) - phi).square() + angle.sin().mean(-3).square()
    return (error @ (weight * phi) * z.shape[-2]).mean()


@given(seed=seeds, n=sizes, dim=st.integers(1, 8), lead=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_equals_the_published_formula(seed: int, n: int, dim: int, lead: int) -> None:
    """On the same directions the loss is the released one, batches averaged."""
    z = sample(seed, lead * n, dim).view(lead, n, dim)
    a = directions(seed, 12, dim)
    torch.testing.assert_close(sigreg_loss(z, a, RULE), published(z, a), rtol=1e-9, atol=1e-12)


@given(seed=seeds, n=sizes)
@settings(max_examples=25, deadline=None)
def test_the_order_of_samples_does_not_matter(seed: int, n: int) -> None:
    """A permutation of the samples leaves the loss."""
    z, a = sample(seed, n, 5), directions(seed, 12, 5)
    shuffled = z[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(sigreg_loss(shuffled, a, RULE), sigreg_loss(z, a, RULE))


@given(seed=seeds, n=sizes)
@settings(max_examples=25, deadline=None)
def test_data_and_directions_rotate_together(seed: int, n: int) -> None:
    """A rotation of space, data and directions alike, leaves the loss."""
    z, a = sample(seed, n, 5), directions(seed, 12, 5)
    rotation = torch.linalg.qr(sample(seed + 1, 5, 5)).Q
    turned = sigreg_loss(z @ rotation, a @ rotation, RULE)
    torch.testing.assert_close(turned, sigreg_loss(z, a, RULE))


@given(seed=seeds, n=sizes, times=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_repeating_every_sample_multiplies_the_statistic(seed: int, n: int, times: int) -> None:
    """The characteristic function stays and N grows: twice the samples, twice the loss."""
    z, a = sample(seed, n, 5), directions(seed, 12, 5)
    repeated = sigreg_loss(z.repeat(times, 1), a, RULE)
    torch.testing.assert_close(repeated, times * sigreg_loss(z, a, RULE))


@given(seed=seeds, n=sizes)
@settings(max_examples=25, deadline=None)
def test_mirrored_data_score_the_same(seed: int, n: int) -> None:
    """The target is symmetric: z and −z have the same loss."""
    z, a = sample(seed, n, 5), directions(seed, 12, 5)
    torch.testing.assert_close(sigreg_loss(-z, a, RULE), sigreg_loss(z, a, RULE))


@given(seed=seeds, lead=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_leading_dimensions_are_batches_of_their_own(seed: int, lead: int) -> None:
    """The loss of a stack is the mean of the losses of its batches."""
    z, a = sample(seed, lead * 16, 5).view(lead, 16, 5), directions(seed, 12, 5)
    alone = torch.stack([sigreg_loss(part, a, RULE) for part in z]).mean()
    torch.testing.assert_close(sigreg_loss(z, a, RULE), alone)


def test_a_gaussian_batch_scores_the_floor() -> None:
    """Standard Gaussian samples score 1.0525 in the mean, whatever N is."""
    assert float(noise_floor(RULE)) == pytest.approx(1.0525, abs=5e-5)
    generator = torch.Generator().manual_seed(0)
    for n in (4, 64):
        z = torch.randn(4000, n, 8, generator=generator)
        loss = float(sigreg_loss(z, directions(0, 16, 8).float(), RULE))
        assert loss == pytest.approx(1.0525, rel=0.02)


def test_a_collapsed_batch_scores_n_times_a_constant() -> None:
    """All samples on the origin score 0.402 N, and no gradient leads away from it."""
    z = torch.zeros(128, 8, dtype=torch.float64, requires_grad=True)
    loss = sigreg_loss(z, directions(0, 16, 8), RULE)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.402 * 128, rel=1e-3)
    assert z.grad is not None
    assert float(z.grad.abs().max()) < 1e-12


def test_a_shift_by_the_period_of_the_rule_is_invisible() -> None:
    """The blind spot: along a direction, x and x + 2π/Δt are the same to the default rule."""
    z, a = sample(0, 32, 1), torch.ones(1, 1, dtype=torch.float64)
    period = 2 * math.pi * 16 / 3
    shifted = sigreg_loss(z + period, a, RULE)
    torch.testing.assert_close(shifted, sigreg_loss(z, a, RULE), rtol=1e-9, atol=1e-9)
    assert float(sigreg_loss(z + period / 2, a, RULE)) > 5 * float(sigreg_loss(z, a, RULE))
