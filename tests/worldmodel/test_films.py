"""Videos repeat the attempts of the evaluation, and show what each plan expects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel import presets
from worldmodel.apps.evaluate import RandomPolicy, attempt, make_manifest
from worldmodel.apps.evaluate.films import film_attempts, film_of, film_suffix, nearest_frames
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import Outcome, PlannerPolicy
from worldmodel.apps.settings import PlannerSettings
from worldmodel.data import ActionScale
from worldmodel.worlds import TwoRoom, collect

WORLD = TwoRoom(16)


@pytest.fixture(scope="module")
def tried() -> tuple[Manifest, PlannerPolicy, Outcome]:
    """Goals four steps away and an untrained model: some are reached, some are not."""
    torch.manual_seed(0)
    walks = collect(WORLD, 20, 20, seed=2)
    manifest = make_manifest(
        WORLD, list(walks.states), ["a"] * 20, num=12, offset=4, budget=7, seed=0, source="walks"
    )
    policy = PlannerPolicy(
        presets.small(6, image_size=16, dim=8).eval(),
        ActionScale(torch.zeros(2), torch.full((2,), 0.6)),
        frameskip=3,
        planner=PlannerSettings(samples=6, elites=3, iterations=2, horizon=2),
    )
    seeds = manifest.seeds_of(0)
    return manifest, policy, attempt(WORLD, manifest, policy, budget=7, seeds=seeds)


def test_a_film_shows_the_attempts_that_were_evaluated(
    tried: tuple[Manifest, PlannerPolicy, Outcome],
) -> None:
    """The same paths as when all pairs were tried, and at each decision a state of the manifest."""
    manifest, policy, outcome = tried
    chosen = np.asarray([9, 2])
    film = film_of(WORLD, manifest, policy, chosen)
    assert np.array_equal(film.paths, outcome.paths[chosen])
    assert np.array_equal(film.goals, manifest.goals[chosen])
    assert film.success.tolist() == outcome.success[chosen].tolist()
    assert film.expected is not None
    # Seven steps are two whole blocks of three and one that is cut.
    assert film.every == 3
    assert film.expected.shape == (3, 2, 2)
    known = np.concatenate([manifest.starts, manifest.goals])
    assert all((known == state).all(1).any() for state in film.expected.reshape(-1, 2))
    planner = PlannerSettings(samples=6, elites=3, iterations=2, horizon=2, execute=2)
    slow = film_of(WORLD, manifest, replace(policy, planner=planner), chosen)
    assert slow.expected is not None
    assert (slow.every, len(slow.expected)) == (6, 2)


def test_a_policy_that_plans_nothing_expects_nothing(
    tried: tuple[Manifest, PlannerPolicy, Outcome],
) -> None:
    """Random walks are repeated as they were, and the video has no third picture."""
    manifest, chosen = tried[0], np.asarray([0, 5])
    outcome = attempt(WORLD, manifest, RandomPolicy(), budget=7, seeds=manifest.seeds_of(0))
    film = film_of(WORLD, manifest, RandomPolicy(), chosen)
    assert film.expected is None
    assert np.array_equal(film.paths, outcome.paths[chosen])


def test_there_is_a_film_of_either_kind_that_happened(
    tried: tuple[Manifest, PlannerPolicy, Outcome], tmp_path: Path
) -> None:
    """Two of each at most, none of what never happened, and none where none is wanted."""
    manifest, policy, outcome = tried
    assert 0 < outcome.success.sum() < len(outcome.success)
    written = film_attempts(WORLD, manifest, policy, outcome.success, tmp_path, each=2)
    assert set(written) == {"successes", "failures"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}{film_suffix()}" for n in written}
    some = manifest.take(np.flatnonzero(outcome.success))
    reached = np.ones(len(some.seeds), bool)
    assert set(film_attempts(WORLD, some, policy, reached, tmp_path, each=1)) == {"successes"}
    assert film_attempts(WORLD, manifest, policy, outcome.success, tmp_path, each=0) == {}


def test_the_nearest_frame_is_that_of_the_step_which_is_judged() -> None:
    """By its end a plan is at frame 2; by where it comes nearest to the goal, at frame 0."""
    bank = torch.tensor([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    z = torch.tensor([[[4.8, 0.0], [0.3, 0.0], [8.8, 0.1]]])
    goal = torch.zeros(1, 2)
    assert nearest_frames(z, goal, bank, last=True).tolist() == [2]
    assert nearest_frames(z, goal, bank, last=False).tolist() == [0]


def test_the_bank_of_frames_is_searched_by_embedding(
    tried: tuple[Manifest, PlannerPolicy, Outcome],
) -> None:
    """A plan expected to end exactly at a known frame is shown that frame."""
    manifest, policy, _ = tried
    frames = torch.from_numpy(WORLD.draw(manifest.goals))
    with torch.no_grad():
        bank = policy.model.encode(frames[:, None])[:, 0]
    shown = nearest_frames(bank[[4, 1]][:, None], bank[:2], bank, last=True)
    assert np.array_equal(WORLD.draw(manifest.goals[shown]), frames[[4, 1]].numpy())
