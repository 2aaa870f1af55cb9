"""Bounds: a box in the environment's units, whatever the planner searches in."""

from __future__ import annotations

import pytest
import torch

from planners import Bounds


def test_numbers_and_rows_are_the_same_box() -> None:
    """A number stands for every control."""
    like = torch.zeros(1, 1, 2)
    for low, high in ((-1.0, 2.0), ([-1.0, -1.0], [2.0, 2.0]), (torch.tensor([-1.0]), 2.0)):
        box = Bounds(low, high).box(like)
        assert torch.equal(torch.stack(box), torch.tensor([[-1.0, -1.0], [2.0, 2.0]]))


def test_a_block_of_steps_repeats_the_controls() -> None:
    """For A = 2 controls × 3 steps the row of controls is tiled in step order."""
    low, high = Bounds([-1.0, -2.0], [1.0, 2.0]).box(torch.zeros(6))
    assert torch.equal(high, torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]))
    assert torch.equal(low, -high)


def test_planning_units_are_undone_exactly_at_the_edges() -> None:
    """There and back is the identity inside, and an edge comes back as the edge to the last bit."""
    bounds = Bounds([-0.3, 0.1], [0.7, 0.2], mean=[0.05, 0.4], std=[0.37, 3.3])
    low, high = bounds.box(torch.zeros(2))
    torch.testing.assert_close(bounds.from_environment(torch.tensor([-0.3, 0.1])), low)
    assert bounds.to_environment(high).le(torch.tensor([0.7, 0.2])).all()
    assert bounds.to_environment(low).ge(torch.tensor([-0.3, 0.1])).all()
    x = low + 0.37 * (high - low)
    torch.testing.assert_close(bounds.from_environment(bounds.to_environment(x)), x)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (((1.0, -1.0), {}), "low must be at most high"),
        ((([0.0, 0.0], [1.0, 1.0, 1.0]), {}), "low must have 1 or 3 entries, got 2"),
        (((0.0, 1.0), {"std": [1.0, 0.0]}), "std must be positive"),
        (((float("nan"), 1.0), {}), "low must be at most high"),
    ],
)
def test_a_box_that_is_none_is_refused(box: object, message: str) -> None:
    """Crossed edges, other lengths, a std of 0 and NaN are errors that say so."""
    assert isinstance(box, tuple)
    arguments, named = box
    with pytest.raises(ValueError, match=message):
        Bounds(*arguments, **named)


def test_it_prints_what_it_is() -> None:
    """The representation holds all four rows."""
    assert repr(Bounds(-1.0, 1.0)) == "Bounds(low=[-1.0], high=[1.0], mean=[0.0], std=[1.0])"
