"""Surprise and open-loop errors of models that are perfect, and of worlds that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldmodel import presets
from worldmodel.data import Episodes
from worldmodel.study import background, open_loop, rank_actions, recolour, splice, surprise


class Perfect:
    """Knows the law z_{t+1} = z_t + a_t."""

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        return z + actions

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        plan = actions[:, z.shape[1] - 1 :]
        return z[:, -1:] + plan.cumsum(1)


def path(actions: Tensor, start: Tensor) -> Tensor:
    """The true embeddings [E, T, D] under actions [E, T − 1, D]."""
    return torch.cat([start[:, None], start[:, None] + actions.cumsum(1)], dim=1)


def test_a_perfect_predictor_is_never_surprised() -> None:
    """On an undisturbed episode the surprise is flat at 0."""
    actions = torch.randn(4, 9, 3)
    z = path(actions, torch.randn(4, 3))
    found = surprise(Perfect(), z, actions, history=3)
    assert found.shape == (4, 9)
    torch.testing.assert_close(found, torch.zeros(4, 9), atol=1e-11, rtol=0)


def test_surprise_peaks_at_the_jump_and_nowhere_else() -> None:
    """A jump by δ at frame 5 surprises by mean δ² at that frame, and by 0 before and after."""
    actions, jump = torch.randn(4, 9, 3), torch.tensor([1.0, -2.0, 3.0])
    z = path(actions, torch.randn(4, 3))
    z[:, 5:] += jump
    found = surprise(Perfect(), z, actions, history=3)
    expected = torch.zeros(4, 9)
    expected[:, 4] = float(jump.square().mean())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_splicing_disturbs_one_transition() -> None:
    """Spliced episodes are lawful on both sides of the splice: the surprise is at the splice."""
    actions = torch.randn(4, 9, 3)
    z = path(actions, torch.randn(4, 3))
    found = surprise(Perfect(), splice(z, 5), splice(actions, 5), history=3)
    jump = (z.roll(-1, 0)[:, 5] - z[:, 5]).square().mean(-1)
    torch.testing.assert_close(found[:, 4], jump, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.clone().fill_diagonal_(0)[:, :4], torch.zeros(4, 4), atol=1e-5,
                               rtol=0)  # fmt: skip
    torch.testing.assert_close(found[:, 5:], torch.zeros(4, 4), atol=1e-5, rtol=0)


class Blind(Perfect):
    """Knows no action: everything stays where it is."""

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        return z[:, -1:].expand(-1, actions.shape[1] + 1 - z.shape[1], -1)


def test_a_perfect_model_ranks_what_was_done_first_and_a_blind_one_by_chance() -> None:
    """Rank 0 at every horizon, costs apart; or exactly a half, and costs all alike."""
    actions = torch.randn(6, 9, 3)
    z = path(actions, torch.randn(6, 3))
    found = rank_actions(Perfect(), z, actions, known=2, others=20)
    assert found.rank.shape == found.variation.shape == (6, 8)
    assert not found.rank.any()
    assert (found.variation > 0.1).all()
    blind = rank_actions(Blind(), z, actions, known=2, others=20)
    assert (blind.rank == 0.5).all()
    assert (blind.variation < 1e-6).all()
    # Of two episodes with opposite actions, a model with the wrong sign prefers the other one's.
    opposite = torch.stack([actions[0], -actions[0]])
    z = path(-opposite, torch.zeros(2, 3))
    assert (rank_actions(Perfect(), z, opposite, known=2, others=3).rank == 1).all()
    with pytest.raises(ValueError, match="H >= 1, actions one fewer"):
        rank_actions(Perfect(), z, opposite, known=10)


def test_surprise_of_a_model_is_the_error_of_its_predict() -> None:
    """Each entry is the plain one-step error, from as much history as there is."""
    model = presets.small(4, image_size=16, dim=8).eval()
    z, actions = torch.randn(2, 6, 8), torch.randn(2, 5, 4)
    found = surprise(model, z, actions, history=3)
    with torch.no_grad():
        first = model.predict(z[:, :1], actions[:, :1])[:, -1]
        late = model.predict(z[:, 2:5], actions[:, 2:5])[:, -1]
    torch.testing.assert_close(found[:, 0], (first - z[:, 1]).square().mean(-1))
    torch.testing.assert_close(found[:, 4], (late - z[:, 5]).square().mean(-1))


def test_copying_in_the_counter_world_errs_by_the_horizon_squared(
    counter_world: Callable[[list[int]], Episodes],
) -> None:
    """Where the state counts steps, the copied state is h too small after h: an error of h²."""
    episodes = counter_world([10, 10])
    assert episodes.states is not None
    z = episodes.states[:, :1].unflatten(0, (2, 10))
    ones = torch.ones(2, 9, 1)
    found = open_loop(Perfect(), z, ones, known=3, mean=torch.tensor([4.5]))
    horizon = torch.arange(1.0, 8).expand(2, -1)
    torch.testing.assert_close(found.copy, horizon.square())
    torch.testing.assert_close(found.model, torch.zeros(2, 7))
    torch.testing.assert_close(found.mean, (horizon + 2 - 4.5).square())


def test_open_loop_errors_are_those_of_rollout() -> None:
    """The first horizon is one prediction; no later truth leaks in."""
    model = presets.small(4, image_size=16, dim=8).eval()
    z, actions = torch.randn(2, 7, 8), torch.randn(2, 6, 4)
    one = open_loop(model, z, actions, known=2, mean=torch.zeros(8))
    other = z.clone()
    other[:, 2:] += 1
    two = open_loop(model, other, actions, known=2, mean=torch.zeros(8))
    with torch.no_grad():
        guess = model.rollout(z[:, :2], actions)
    torch.testing.assert_close(one.model, (guess - z[:, 2:]).square().mean(-1))
    torch.testing.assert_close(two.model, (guess - other[:, 2:]).square().mean(-1))


def test_too_little_to_predict_is_refused() -> None:
    """A future, and an action for each of its steps, must be there."""
    z = torch.zeros(1, 3, 2)
    with pytest.raises(ValueError, match=r"known = 3"):
        open_loop(Perfect(), z, torch.zeros(1, 2, 2), known=3, mean=torch.zeros(2))
    with pytest.raises(ValueError, match=r"z must be .*T >= 2, .*got .*\[1, 1, 2\]"):
        surprise(Perfect(), z[:, :1], torch.zeros(1, 0, 2), history=3)


def test_the_background_is_what_stays() -> None:
    """A spot that is elsewhere in every frame is not in the median."""
    frames = torch.full((1, 9, 3, 8, 8), 200, dtype=torch.uint8)
    for t in range(8):
        frames[0, t, 0, t, t] = 10
    assert torch.equal(background(frames), torch.full((3, 8, 8), 200, dtype=torch.uint8))


def test_recolouring_turns_channels_and_moves_nothing() -> None:
    """From frame `at` on the spot's channels rotate; other pixels and earlier frames stay."""
    still = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    frames = still.repeat(1, 4, 1, 1, 1)
    frames[:, :, :, 2, 5] = torch.tensor([10, 60, 120], dtype=torch.uint8)
    before = frames.clone()
    found = recolour(frames, still, 2)
    assert found[0, 2, :, 2, 5].tolist() == [120, 10, 60]
    assert torch.equal(found[:, :2], frames[:, :2])
    found[:, 2:, :, 2, 5] = frames[:, 2:, :, 2, 5]
    assert torch.equal(found, frames)
    assert torch.equal(frames, before)


def test_splices_and_colours_outside_the_episode_are_refused() -> None:
    """One episode has no neighbour, and a change must lie within."""
    with pytest.raises(ValueError, match=r"\[E >= 2, T > at, \.\.\.\] with at = 2 > 0"):
        splice(torch.zeros(1, 4, 2), 2)
    with pytest.raises(ValueError, match="T > 4, 3"):
        recolour(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8), 4)
