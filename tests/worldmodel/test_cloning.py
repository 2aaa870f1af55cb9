"""A cloned policy on a manifest: what it sees, what it does, and how it is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel import GCBC, presets
from worldmodel.apps.evaluate import attempt, evaluate, make_manifest, make_pairs
from worldmodel.apps.evaluate.manifest import Pairs
from worldmodel.apps.evaluate.policies import GCBCPolicy, Scene, Task
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import TrialSettings
from worldmodel.data import ActionScale
from worldmodel.worlds import TwoRoom, collect

WORLD = TwoRoom(16)
SCALE = ActionScale(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.25]))


def cloned(frameskip: int = 3) -> GCBC:
    """A policy of eight dims with gates away from zero, or it would be blind for its goal."""
    torch.manual_seed(0)
    parts = presets.small(2 * frameskip, image_size=16, dim=8)
    model = GCBC(parts.encoder, parts.predictor, 2 * frameskip)
    with torch.no_grad():
        for block in model.trunk.blocks:
            block.modulation.weight.normal_(0, 0.5)
        model.head.weight.mul_(10)
    return model.eval()


def scene(states: Any) -> Scene:
    """What there is to see in some states."""
    return Scene(states, lambda _=0: WORLD.draw(states))


def test_it_does_what_the_model_says_in_the_worlds_units() -> None:
    """A block is the model's answer to frames and goal, action by action, unscaled and cut."""
    model = cloned()
    states, goals = np.random.default_rng(0).uniform(30, 190, (2, 5, 2)).astype(np.float32)
    scale = ActionScale(SCALE.mean, 4 * SCALE.std)
    act = GCBCPolicy(model, scale, frameskip=3).begin(Task(WORLD, goals, np.arange(5)))
    found = act(scene(states))
    frames, goal = (torch.from_numpy(WORLD.draw(s)) for s in (states, goals))
    block = model.act(frames[:, None], goal)
    raw = block.unflatten(1, (3, 2)) * scale.std + scale.mean
    assert raw.abs().min() < 1 < raw.abs().max()
    for t in range(3):
        np.testing.assert_allclose(found[:, t], raw[:, t].clamp(-1, 1), atol=1e-5)
    assert found.shape == (5, 3, 2)


def test_it_remembers_as_many_of_its_own_frames_as_its_history() -> None:
    """The model is shown one frame at the first decision, then two, and never more than three."""
    model, seen = cloned(), list[Tensor]()
    model.act = lambda frames, goal: seen.append(frames) or torch.zeros(len(goal), 6)  # type: ignore
    states = [np.full((2, 2), 40.0 + 10 * k, np.float32) for k in range(5)]
    policy = GCBCPolicy(model, SCALE, frameskip=3, together=2)
    task = Task(WORLD, states[0], np.arange(2))
    act = policy.begin(task)
    for now in states:
        act(scene(now))
    assert [frames.shape[1] for frames in seen] == [1, 2, 3, 3, 3]
    drawn = torch.from_numpy(np.stack([WORLD.draw(s) for s in states[2:]], axis=1))
    assert torch.equal(seen[-1], drawn)
    policy.begin(task)(scene(states[0]))
    assert seen[-1].shape[1] == 1


@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_pair_depends_on_its_neighbours(size: int) -> None:
    """Bit for bit the same paths, however many pairs stand side by side."""
    pairs = make_pairs(WORLD, list(collect(WORLD, 7, 40, seed=1).states), 7, offset=25, seed=2)
    policy = GCBCPolicy(cloned(), SCALE, frameskip=3, together=4)
    whole = attempt(WORLD, pairs, policy, budget=9)

    def some(which: slice) -> Pairs:
        return Pairs(*(part[which] for part in pairs[:4]), 0)

    parts = [
        attempt(WORLD, some(slice(first, first + size)), policy, budget=9)
        for first in range(0, 7, size)
    ]
    assert np.array_equal(np.concatenate([part.paths for part in parts]), whole.paths)


def test_a_result_names_the_policy_and_counts_no_rollouts() -> None:
    """It is measured like a planner, beside the same baselines, and refused by the same rules."""
    walks = collect(WORLD, 10, 20, seed=2)
    manifest = make_manifest(
        WORLD, list(walks.states), ["a"] * 10, num=6, offset=4, budget=7, seed=0, source="walks"
    )
    run = Run(
        Path("clone"), cloned(), SCALE, frameskip=3, world="two-room", objective="gcbc", data=None,
        trained_on=frozenset("b"), held_out=frozenset(), settings={},
    )  # fmt: skip
    result = evaluate(run, manifest, TrialSettings())
    mark = result.fingerprint
    assert (mark.planner, mark.rollouts_per_decision) == ("GCBCPolicy", None)
    assert (mark.run, mark.objective) == ("clone", "gcbc")
    outcome = attempt(WORLD, manifest, GCBCPolicy(run.model, SCALE, frameskip=3), budget=7)  # type: ignore[arg-type]
    assert result.reached.tolist() == outcome.success.tolist()
    assert result.expert_success_rate == 1
    seen = run._replace(trained_on=frozenset("a"))
    with pytest.raises(ValueError, match=r"trained on 1 of the \d episodes"):
        evaluate(seen, manifest, TrialSettings())
    with pytest.raises(ValueError, match="which does not plan: leave out --planner"):
        evaluate(run, manifest, TrialSettings(samples=5, elites=2))


def test_blocks_of_another_length_are_refused() -> None:
    """A model of three actions a block is not asked for five."""
    with pytest.raises(ValueError, match=r"must give 2 × 5 action dims, it gives 6"):
        GCBCPolicy(cloned(), SCALE)
