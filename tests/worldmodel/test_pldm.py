"""Each term of PLDM at the value it must have, and the loss on the built-in world."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldmodel import Batch, PLDMTerms, jepa_loss, pldm_loss, presets
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import Training
from worldmodel.data import Windows

ALL = PLDMTerms(1, 1, 1, 1, 1, 0)


def white(rows: int, dim: int) -> Tensor:
    """[rows, dim] whose sample covariance is the identity exactly."""
    z = torch.randn(rows, dim, dtype=torch.float64)
    z = torch.linalg.qr(z - z.mean(0)).Q
    return z * (rows - 1) ** 0.5


def test_a_white_batch_costs_nothing() -> None:
    """Unit variances and no covariance leave both terms over the batch at 0."""
    terms = ALL.terms(white(64, 5).expand(3, -1, -1))
    assert float(terms["variance"]) == pytest.approx(0, abs=1e-9)
    assert float(terms["covariance"]) == pytest.approx(0, abs=1e-9)


def test_collapse_costs_what_the_hinge_says() -> None:
    """One point for everything: the hinges are 1 − √ε, all other terms 0."""
    terms = ALL.terms(torch.full((4, 8, 3), 2.0))
    for name in ("variance", "time_variance"):
        assert float(terms[name]) == pytest.approx(0.99)
    for name in ("covariance", "similarity", "time_covariance"):
        assert float(terms[name]) == 0


def test_correlated_coordinates_cost_their_squared_covariance() -> None:
    """Two equal unit coordinates: off-diagonals of 1 and 1, over D = 2, make 1."""
    one = white(50, 1)
    terms = ALL.terms(torch.cat([one, one], dim=1).expand(3, -1, -1))
    assert float(terms["covariance"]) == pytest.approx(1.0)


def test_terms_over_time_are_those_over_the_batch_turned_around() -> None:
    """Time and batch exchanged exchange the terms."""
    z = torch.randn(6, 7, 4)
    here, there = ALL.terms(z), ALL.terms(z.transpose(0, 1))
    for batch, time in (("variance", "time_variance"), ("covariance", "time_covariance")):
        torch.testing.assert_close(here[batch], there[time])
        torch.testing.assert_close(here[time], there[batch])


def test_similarity_is_the_squared_step() -> None:
    """A path of constant velocity v costs mean v²."""
    v = torch.tensor([1.0, -2.0, 0.5])
    z = (torch.arange(5.0).view(5, 1, 1) * v).expand(-1, 4, -1)
    assert float(ALL.terms(z)["similarity"]) == pytest.approx(float(v.square().mean()))


def test_the_total_is_the_weighted_sum() -> None:
    """Published weights: 18, 12, 0.2 and 0.7; what has weight 0 is not computed."""
    z, terms = torch.randn(4, 9, 5), PLDMTerms()
    found = terms.terms(z)
    assert set(found) == {"variance", "covariance", "similarity", "time_variance"}
    wanted = 18 * found["variance"] + 12 * found["covariance"] + 0.2 * found["similarity"]
    torch.testing.assert_close(terms(z), wanted + 0.7 * found["time_variance"])


def test_without_inverse_dynamics_it_is_jepa_loss_with_other_terms() -> None:
    """`pldm_loss` equals `jepa_loss` whose regularizer is PLDMTerms."""
    model = presets.small(4, image_size=16, dim=8).eval()
    batch = Batch(torch.rand(6, 4, 3, 16, 16), torch.randn(6, 4, 4))
    one = pldm_loss(model, batch, PLDMTerms(), 0.5)
    two = jepa_loss(model, batch, PLDMTerms(), 0.5)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


def test_inverse_dynamics_learn_what_was_done() -> None:
    """Where z_{t+1} − z_t is the action, the term falls far below the actions' variance."""
    terms = PLDMTerms(0, 0, 0, 0, 0, 1.0, dim=2, action_dim=2, hidden_dim=32)
    optimizer = torch.optim.Adam(terms.parameters(), 1e-2)
    for _ in range(150):
        actions = torch.randn(32, 3, 2)
        z = torch.cat([torch.zeros(32, 1, 2), actions.cumsum(1)], dim=1).transpose(0, 1)
        loss = terms(z, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


def test_it_trains_on_the_built_in_world(two_room_windows: Callable[[int], Windows]) -> None:
    """A few steps through the same loop as LeWM lower the loss and leave the model finite."""
    torch.manual_seed(0)
    model, totals = presets.small(10, image_size=16, dim=8), []
    config = Recipe(steps=25, batch_size=32, learning_rate=3e-3, weight=1.0, num_proj=8)
    training = Training(
        model, two_room_windows(16), config, objective=pldm_loss, regularizer=PLDMTerms()
    )
    totals += [float(losses.total.detach()) for losses in training.run()]
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


def test_the_inverse_dynamics_are_trained_too(
    two_room_windows: Callable[[int], Windows],
) -> None:
    """Training moves every parameter of the terms, and clips and saves them with the model's."""
    windows = two_room_windows(16)
    model = presets.small(10, image_size=16, dim=8)
    terms = PLDMTerms(inverse=1.0, dim=8, action_dim=10)
    before = [parameter.detach().clone() for parameter in terms.parameters()]
    training = Training(
        model, windows, Recipe(steps=2, batch_size=8), objective=pldm_loss, regularizer=terms
    )
    list(training.run())
    assert before
    for old, new in zip(before, terms.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_mistakes_are_named() -> None:
    """Negative weights, inverse dynamics without sizes or actions, and single rows."""
    with pytest.raises(ValueError, match="variance must be a finite number of at least 0"):
        PLDMTerms(-1)
    with pytest.raises(ValueError, match="needs dim and action_dim, got None, None"):
        PLDMTerms(inverse=1.0)
    with pytest.raises(ValueError, match=r"need actions \[B, T, A\], got None"):
        PLDMTerms(inverse=1.0, dim=2, action_dim=2)(torch.zeros(3, 4, 2))
    model = presets.small(10, image_size=16, dim=8)
    with pytest.raises(ValueError, match=r"\[B >= 2, T >= 2, \.\.\.\], got \[1, 4"):
        pldm_loss(model, Batch(torch.rand(1, 4, 3, 16, 16), torch.zeros(1, 4, 4)), PLDMTerms())
