"""Films of an evaluation tell the same story again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel import presets
from worldmodel.apps.evaluate import Imagined, Planner, PlannerPolicy, films
from worldmodel.apps.evaluate.films import film_attempts, film_of, nearest_frames
from worldmodel.apps.evaluate.manifest import Manifest, make_manifest
from worldmodel.apps.evaluate.policies import RandomPolicy
from worldmodel.apps.evaluate.results import Trials, try_policy
from worldmodel.data import ActionScale
from worldmodel.worlds import TwoRoom, collect

WORLD = TwoRoom(16)


@pytest.fixture(scope="module")
def tried() -> tuple[Manifest, PlannerPolicy, Trials]:
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
        planner=Planner(samples=6, elites=3, iterations=2, horizon=2),
    )
    return manifest, policy, try_policy(WORLD, manifest, policy)


def test_films_show_whole_attempts_of_either_kind(
    tried: tuple[Manifest, PlannerPolicy, Trials], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture per step and one before the first; three panels across, one row a pair."""
    reached = tried[2].repeats[0].success
    assert 0 < reached.sum() < len(reached)
    monkeypatch.setattr(films, "film_suffix", lambda: ".gif")
    written = film_attempts(WORLD, *tried[:2], reached, tmp_path, each=2)
    assert {path.name for path in tmp_path.iterdir()} == {"successes.gif", "failures.gif"}
    for name, count in (("failures", (~reached).sum()), ("successes", reached.sum())):
        rows = min(2, int(count))
        with Image.open(written[name]) as film:
            assert film.size == (3 * 160 + 12, rows * 186 - 6)
            if name == "failures":
                assert getattr(film, "n_frames", 1) == 8


def test_a_policy_that_plans_nothing_is_filmed_without_a_third_panel(
    tried: tuple[Manifest, PlannerPolicy, Trials], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and the goal; random walkers reach and miss the same pairs again."""
    manifest, policy = tried[0], RandomPolicy()
    trials = try_policy(WORLD, manifest, policy)
    monkeypatch.setattr(films, "film_suffix", lambda: ".gif")
    written = film_attempts(WORLD, manifest, policy, trials.success[0], tmp_path, each=1)
    with Image.open(written["failures"]) as film:
        assert film.size == (2 * 160 + 6, 180)
        assert getattr(film, "n_frames", 1) == 8


def test_the_nearest_frame_is_that_of_the_step_which_is_judged() -> None:
    """By its end a plan is at frame 2; by where it comes nearest to the goal, at frame 0."""
    bank = torch.tensor([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    z = torch.tensor([[[4.8, 0.0], [0.3, 0.0], [8.8, 0.1]]])
    goal = torch.zeros(1, 2)
    assert nearest_frames(Imagined(z, goal, last=True), bank).tolist() == [2]
    assert nearest_frames(Imagined(z, goal, last=False), bank).tolist() == [0]


def test_the_bank_of_frames_is_searched_by_embedding(
    tried: tuple[Manifest, PlannerPolicy, Trials],
) -> None:
    """A plan expected to end exactly at a known frame is shown that frame."""
    manifest, policy, _ = tried
    frames = torch.from_numpy(WORLD.draw(manifest.pairs.goals))
    with torch.no_grad():
        bank = policy.model.encode(frames[:, None])[:, 0]
    imagined = Imagined(bank[[4, 1]][:, None], bank[:2], last=True)
    shown = nearest_frames(imagined, bank)
    assert np.array_equal(WORLD.draw(manifest.pairs.goals[shown]), frames[[4, 1]].numpy())


def test_a_film_has_the_outcomes_of_the_evaluation(
    tried: tuple[Manifest, PlannerPolicy, Trials],
) -> None:
    """Tried once more, beside other pairs, each pair takes the very path it took."""
    manifest, policy, trials = tried
    chosen = np.asarray([7, 2])
    film = film_of(WORLD, manifest, policy, chosen)
    outcome = trials.repeats[0]
    assert np.array_equal(film.paths, outcome.paths[chosen])
    assert np.array_equal(film.success, outcome.success[chosen])
    assert film.expected is not None
    assert film.expected.shape == (3, 2, 2)
    assert film.decided is not None
    assert film.decided.tolist() == [0, 3, 6]
    assert film.names == ["pair 7,", "pair 2,"]
