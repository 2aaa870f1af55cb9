"""Truths of the one record of episodes, of its normalisation and of its split."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.data import ActionScale, Episodes, Windows, split
from worldmodel.data.frames import EpisodeFrames

World = Callable[[list[int]], Episodes]


def parts(lengths: tuple[int, ...] = (3, 4)) -> dict[str, torch.Tensor]:
    """Valid fields of Episodes, to spoil one by one."""
    rows = sum(lengths)
    return {
        "frames": torch.zeros(rows, 3, 4, 4, dtype=torch.uint8),
        "actions": torch.zeros(rows, 2),
        "lengths": torch.tensor(lengths),
        "states": torch.zeros(rows, 5),
    }


def test_ragged_episodes_begin_where_the_last_one_ends(counter_world: World) -> None:
    """Offsets are the sums of the lengths before; the frame there shows step 0 of its episode."""
    episodes = counter_world([3, 9, 2, 6])
    assert episodes.offsets.tolist() == [0, 3, 12, 14]
    shown = episodes.frames[episodes.offsets][:, :, 0, 0]
    assert shown[:, 0].tolist() == [0, 0, 0, 0]
    assert shown[:, 2].tolist() == [0, 1, 2, 3]
    assert len(episodes) == 4


def test_missing_actions_are_counted(counter_world: World) -> None:
    """Each episode has one row without an action, its last, and they are counted."""
    assert counter_world([3, 9, 2]).num_missing == 3
    assert Episodes(**parts()).num_missing == 0


def test_rows_follow_the_subset_and_its_order(counter_world: World) -> None:
    """The rows of a subset are those of its episodes, in the subset's order."""
    episodes = counter_world([3, 4, 2])
    assert episodes.rows(torch.tensor([2, 0])).tolist() == [7, 8, 0, 1, 2]
    assert episodes.rows().tolist() == list(range(9))
    with pytest.raises(ValueError, match=r"subset must be .* without an empty axis"):
        episodes.rows(torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "lengths",
            torch.tensor([], dtype=torch.int64),
            "lengths .* without an empty axis",
        ),
        ("lengths", torch.tensor([6, 1]), "at least 2 rows.* got 1 in episode 1"),
        ("frames", torch.zeros(6, 3, 4, 4, dtype=torch.uint8), "frames must have 7 rows.* got 6"),
        ("actions", torch.zeros(8, 2), "actions must have 7 rows, the sum of lengths, got 8"),
        ("states", torch.zeros(1, 5), "states must have 7 rows"),
        (
            "frames",
            torch.zeros(7, 3, 4, 4),
            r"frames must be uint8 \[R, C, H, W\] or float32 \[R, Q\], got .*float32",
        ),
        ("actions", torch.zeros(7), r"actions must be float32 \[R, A\], got"),
        ("actions", torch.zeros(7, 2).double(), r"actions must be float32 \[R, A\], got .*float64"),
    ],
)
def test_a_wrong_field_is_named(name: str, value: torch.Tensor, message: str) -> None:
    """Fields that disagree end in one error with the field, the rule and what came."""
    with pytest.raises(ValueError, match=message):
        Episodes(**(parts() | {name: value}))


@pytest.mark.parametrize(
    ("row", "value", "allowed"),
    [
        (1, float("nan"), False),
        (2, float("nan"), True),
        (6, float("nan"), True),
        (2, float("inf"), False),
    ],
)
def test_an_action_may_be_missing_only_behind_an_episode(
    row: int, value: float, allowed: bool
) -> None:
    """NaN is accepted where an action leads nowhere, refused inside; infinity is refused always."""
    fields = parts()
    fields["actions"][row, 1] = value
    if allowed:
        assert Episodes(**fields).num_missing == 1
    else:
        with pytest.raises(ValueError, match=f"finite inside an episode, got .* in row {row}"):
            Episodes(**fields)


def test_normalised_training_actions_have_mean_0_and_std_1(counter_world: World) -> None:
    """The scale is fitted on the subset's finite actions: they alone end up standardised."""
    episodes = counter_world([30, 40, 50])
    subset = torch.tensor([0, 2])
    scale = ActionScale.fit(episodes, subset)
    actions = scale.normalise(episodes.actions[episodes.rows(subset)])
    known = actions[actions.isfinite().all(-1)]
    assert len(known) == 29 + 49
    torch.testing.assert_close(known.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(known.std(0, correction=0), torch.ones(2))
    other = scale.normalise(episodes.actions[episodes.rows(torch.tensor([1]))][:-1])
    assert (other.mean(0).abs() > 1e-3).all()


def test_a_dim_that_never_moves_stays_finite() -> None:
    """An action dim of no variance has a std of 0; it is centred and not divided."""
    fields = parts()
    fields["actions"][:, 0] = 3.0
    scale = ActionScale.fit(Episodes(**fields))
    assert scale.std[0] == 0
    assert scale.held == [0, 1]
    assert "action 0 (always 3), 1 (always 0) never moved" in scale.held_in_words
    assert scale.normalise(torch.tensor([[4.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_a_block_is_normalised_action_by_action() -> None:
    """Normalising n actions side by side equals normalising each, oldest first."""
    scale = ActionScale(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]))
    single = torch.randn(6, 3, 2)
    block = scale.normalise(single.flatten(-2))
    torch.testing.assert_close(block.unflatten(-1, (3, 2)), scale.normalise(single))


@given(num=st.integers(2, 40), held_out=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_a_split_is_a_partition(num: int, held_out: float, seed: int) -> None:
    """Every episode lands on exactly one side, each side has one, and the seed decides which."""
    train, rest = split(num, held_out, seed)
    assert sorted(train.tolist() + rest.tolist()) == list(range(num))
    assert len(train) >= 1
    assert len(rest) >= 1
    assert abs(len(rest) - num * held_out) <= 1
    again = split(num, held_out, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(rest, again[1])


@pytest.mark.parametrize(("num", "held_out"), [(1, 0.5), (5, 0.0), (5, 1.0), (5, -0.1)])
def test_a_split_needs_two_sides(num: int, held_out: float) -> None:
    """One episode, or nothing to hold out, cannot be split."""
    with pytest.raises(ValueError, match="must be"):
        split(num, held_out, 0)


def test_frames_from_episodes_equal_frames_in_memory(counter_world: World) -> None:
    """A source that gives whole episodes reads the same rows as a tensor, in any order."""
    episodes = counter_world([3, 5, 4, 2, 2])
    read: list[int] = []

    def decode(e: int) -> object:
        read.append(e)
        rows = episodes.rows(torch.tensor([e]))
        return episodes.frames[rows].permute(0, 2, 3, 1).numpy()

    source = EpisodeFrames(decode, episodes.lengths, (3, 16, 16))  # type: ignore[arg-type]
    rows = torch.tensor([[11, 0, 15], [4, 4, 13]])
    assert torch.equal(source[rows], episodes.frames[rows])
    assert read == [0, 1, 2, 3, 4]
    assert torch.equal(source[torch.tensor([5, 9])], episodes.frames[torch.tensor([5, 9])])
    assert read == [0, 1, 2, 3, 4]  # the last four are kept
    assert torch.equal(source[torch.tensor([2])], episodes.frames[torch.tensor([2])])
    assert read == [0, 1, 2, 3, 4, 0]


def test_frames_of_mixed_sizes_are_refused() -> None:
    """An episode whose frames have another size than the rest is named."""
    small = torch.zeros(3, 8, 8, 3, dtype=torch.uint8).numpy()
    source = EpisodeFrames(lambda e: small, torch.tensor([3, 3]), (3, 16, 16))
    with pytest.raises(ValueError, match=r"one size: episode 1 must be uint8 \[3, 16, 16, 3\]"):
        source[torch.tensor([4])]


def test_reading_into_memory_changes_nothing(counter_world: World) -> None:
    """Episodes in memory hold the same frames, and a second call is free."""
    episodes = counter_world([300, 20])
    source = EpisodeFrames(
        lambda e: episodes.frames[episodes.rows(torch.tensor([e]))].permute(0, 2, 3, 1).numpy(),
        episodes.lengths,
        (3, 16, 16),
    )
    loaded = Episodes(source, episodes.actions, episodes.lengths).in_memory()
    assert isinstance(loaded.frames, torch.Tensor)
    assert torch.equal(loaded.frames, episodes.frames[torch.arange(320)])
    assert loaded.in_memory() is loaded


def test_a_subset_of_bytes_is_no_mask(counter_world: World) -> None:
    """Indices of uint8 name the same episodes and windows as those of int64."""
    episodes, subset = counter_world([3, 4, 2]), torch.tensor([2, 0])
    assert torch.equal(episodes.rows(subset.byte()), episodes.rows(subset))
    long, short = (
        Windows(episodes, num_frames=2, frameskip=1, subset=some)
        for some in (subset, subset.byte())
    )
    assert torch.equal(long.batch(torch.arange(3)).frames, short.batch(torch.arange(3)).frames)
    assert len(long) == len(short) == 3
