"""Paths whose straightness is known."""

from __future__ import annotations

import pytest
import torch

from worldmodel.study import straightness


def test_a_straight_line_scores_one_at_any_speed() -> None:
    """Points along one direction score 1, however unevenly they follow each other."""
    along = torch.rand(3, 20).cumsum(1)
    z = 7 + along.unsqueeze(-1) * torch.randn(3, 1, 5)
    torch.testing.assert_close(straightness(z), torch.ones(3))


def test_back_and_forth_scores_minus_one() -> None:
    """A path that turns around at every step scores −1."""
    z = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]).view(1, 5, 1) * torch.randn(1, 1, 4)
    torch.testing.assert_close(straightness(z), torch.tensor([-1.0]))


def test_a_random_walk_scores_about_zero() -> None:
    """Independent steps have cosines of mean 0 and variance 1 / D."""
    z = torch.randn(50, 101, 16).cumsum(1)
    assert abs(float(straightness(z).mean())) < 5 / (16 * 50 * 99) ** 0.5


def test_independent_points_score_minus_one_half() -> None:
    """Neighbouring differences of independent points share one point: a cosine of −½ on average."""
    assert float(straightness(torch.randn(20, 100, 64)).mean()) == pytest.approx(-0.5, abs=0.02)


def test_a_circle_scores_the_cosine_of_its_angle() -> None:
    """Steps of an angle α around a circle turn by α each: the score is cos α."""
    angle = 0.3 * torch.arange(12.0)
    z = torch.stack([angle.cos(), angle.sin()], dim=-1).unsqueeze(0)
    torch.testing.assert_close(straightness(z), torch.tensor([0.3]).cos())


def test_standing_still_has_no_direction() -> None:
    """Pauses are left out; a path that never moves has no score at all."""
    moves = torch.tensor([0.0, 1.0, 2.0, 2.0, 2.0, 3.0, 4.0]).view(1, 7, 1)
    torch.testing.assert_close(straightness(moves), torch.ones(1))
    still = torch.full((1, 5, 3), 2.0) + 1e-8 * torch.randn(1, 5, 3)
    assert straightness(still).isnan().all()


def test_two_points_make_no_turn() -> None:
    """Fewer than three frames are refused."""
    with pytest.raises(ValueError, match=r"\[E, T >= 3, D\], got .*\[1, 2, 4\]"):
        straightness(torch.zeros(1, 2, 4))
