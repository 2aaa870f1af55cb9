"""Bounds: a box in the environment's units, whatever the planner searches in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

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
        (((0.0, 1.0), {"std": [1.0, -0.1]}), "std must be finite and at least 0"),
        (((float("nan"), 1.0), {}), "low must be at most high"),
        (((0.0, 1.0), {"mean": float("nan")}), "mean must be finite"),
        (((0.0, 1.0), {"std": float("inf")}), "std must be finite"),
    ],
)
def test_a_box_that_is_none_is_refused(box: object, message: str) -> None:
    """Crossed edges, other lengths, a std below 0 and NaN are errors that say so."""
    assert isinstance(box, tuple)
    arguments, named = box
    with pytest.raises(ValueError, match=message):
        Bounds(*arguments, **named)


def test_numbers_keep_their_digits() -> None:
    """An edge given in Python is that float64, not the nearest float32."""
    bounds = Bounds(-0.4, [0.4, 0.1])
    assert bounds.high.tolist() == [0.4, 0.1]
    low, high = bounds.box(torch.zeros(2, dtype=torch.float64))
    assert low.tolist() == [-0.4, -0.4]
    assert high.tolist() == [0.4, 0.1]


@given(
    st.floats(-3, 3),
    st.floats(0, 2),
    st.floats(-2, 2),
    st.floats(0.01, 5),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_no_dtype_leaves_the_box(
    low: float, width: float, mean: float, std: float, dtype: torch.dtype
) -> None:
    """Edges are rounded inwards: in any dtype what comes back lies between them in float64."""
    high = low + width
    bounds = Bounds(low, high, mean=mean, std=std)
    box = bounds.box(torch.zeros(1, dtype=dtype))
    assert box[0] <= box[1]
    assume(torch.tensor(low, dtype=dtype) < torch.tensor(high, dtype=dtype))
    for edge in box:
        assert low <= bounds.to_environment(edge).item() <= high
    for edge in Bounds(low, high).box(torch.zeros(1, dtype=dtype)):
        assert low <= edge.item() <= high


@given(st.floats(-3, 3), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_a_held_control_comes_back_as_its_value(value: float, dtype: torch.dtype) -> None:
    """Where low equals high, planning units are one point and the environment gets the value."""
    bounds = Bounds(value, value, mean=0.3, std=0.7)
    low, high = bounds.box(torch.zeros(1, dtype=dtype))
    assert torch.equal(low, high)
    assert bounds.to_environment(low).item() == torch.tensor(value, dtype=dtype).item()


def test_edges_are_kept_apart_from_their_source() -> None:
    """Arrays are taken, read-only ones too, and writing into them later changes no box."""
    np = pytest.importorskip("numpy")
    low, high = np.zeros(2, dtype=np.float32), np.full(2, 0.1, dtype=np.float32)
    high.flags.writeable = False
    std = torch.ones(2, dtype=torch.float64)
    bounds = Bounds(low, high, std=std)
    low[:], std[:] = 9, 9
    assert bounds.std.tolist() == [1.0, 1.0]
    assert bounds.low.tolist() == [0.0, 0.0]
    assert bounds.high.tolist() == [float(np.float32(0.1))] * 2
    with torch.device("meta"):
        assert Bounds(0.0, 1.0).box(torch.zeros(1, device="cpu"))[1].tolist() == [1.0]


def test_it_prints_what_it_is() -> None:
    """The representation holds all four rows."""
    assert repr(Bounds(-1.0, 1.0)) == "Bounds(low=[-1.0], high=[1.0], mean=[0.0], std=[1.0])"
