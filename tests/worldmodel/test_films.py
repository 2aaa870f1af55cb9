"""What evaluate shows: films that tell the same story again, and a page that stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel import presets
from worldmodel.apps.evaluate import Imagined, Planner, PlannerPolicy
from worldmodel.apps.evaluate.films import film_attempts, nearest_frames
from worldmodel.apps.evaluate.manifest import Manifest, make_manifest
from worldmodel.apps.evaluate.page import page
from worldmodel.apps.evaluate.policies import RandomPolicy
from worldmodel.apps.evaluate.results import Trials, floors, outcomes, summary, try_policy
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
    tried: tuple[Manifest, PlannerPolicy, Trials], tmp_path: Path
) -> None:
    """A picture per step and one before the first; three panels across, one row a pair."""
    reached = tried[2].repeats[0].success
    assert 0 < reached.sum() < len(reached)
    written = film_attempts(WORLD, *tried[:2], reached, tmp_path, each=2)
    assert {path.name for path in tmp_path.iterdir()} == {"successes.gif", "failures.gif"}
    for name, count in (("failures", (~reached).sum()), ("successes", reached.sum())):
        rows = min(2, int(count))
        with Image.open(written[name]) as film:
            assert film.size == (3 * 160 + 12, rows * 180 + (rows - 1) * 6)
            if name == "failures":
                assert getattr(film, "n_frames", 1) == 8


def test_a_policy_that_plans_nothing_is_filmed_without_a_third_panel(
    tried: tuple[Manifest, PlannerPolicy, Trials], tmp_path: Path
) -> None:
    """Now and the goal; random walkers reach and miss the same pairs again."""
    manifest, policy = tried[0], RandomPolicy()
    trials = try_policy(WORLD, manifest, policy)
    written = film_attempts(WORLD, manifest, policy, trials.success[0], tmp_path, each=1)
    with Image.open(written["failures"]) as film:
        assert film.size == (2 * 160 + 6, 180)
        assert getattr(film, "n_frames", 1) == 8
    result = {
        "env": "two-room", "protocol": "held-out", "manifest_protocol": "historical",
        "manifest_pairs": 12, "criterion": "closer < 16", "offset": 4,
        "budget": 7, "pairs_dropped_as_solved": 3, "manifest_hash": "f" * 64,
        "fingerprint": {"run": "r", "planner": "RandomPolicy"}, "outcomes": outcomes(trials),
        **summary(trials), **floors(WORLD, manifest, repeats=1, batch_size=4),
    }  # fmt: skip
    text = page(result, written)
    assert "Left: now. Right: the goal." in text
    assert "what the plan expects" not in text
    assert "<h1>two-room: " in text
    assert ", Random of r</h1>" in text


def test_the_nearest_frame_is_that_of_the_step_which_is_judged() -> None:
    """By its end a plan is at frame 2; by where it comes nearest to the goal, at frame 0."""
    bank = torch.tensor([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    z = torch.tensor([[[4.8, 0.0], [0.3, 0.0], [8.8, 0.1]]])
    goal = torch.zeros(1, 2)
    assert nearest_frames(Imagined(z, goal, last=True), bank).tolist() == [2]
    assert nearest_frames(Imagined(z, goal, last=False), bank).tolist() == [0]


def test_the_page_needs_nothing_beside_it(
    tried: tuple[Manifest, PlannerPolicy, Trials], tmp_path: Path
) -> None:
    """No address leads out of it, every pair has a square, and foreign text stays text."""
    manifest, policy, trials = tried
    films = film_attempts(WORLD, manifest, policy, trials.success[0], tmp_path, each=1)
    result = {
        "env": "two-room", "protocol": "historical", "manifest_protocol": "historical",
        "manifest_pairs": 12, "criterion": "closer < 16", "offset": 4,
        "budget": 7, "pairs_dropped_as_solved": 3, "manifest_hash": "f" * 64,
        "fingerprint": {"run": "<script>", "planner": {"name": "cem"}},
        "outcomes": outcomes(trials), **summary(trials),
        **floors(WORLD, manifest, repeats=1, batch_size=4),
    }  # fmt: skip
    text = page(result, films)
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(sources) == 2
    assert all(source.startswith("data:image/gif;base64,") for source in sources)
    assert text.count("<i class=") == 12
    assert text.count('<i class="never"') == int((~trials.repeats[0].success).sum())
    assert "closer &lt; 16" in text
    assert "<script>" not in text
    assert "Historical protocol" in text
    none = page(result | {"expert_success_rate": None, "protocol": "held-out"}, {})
    assert "there is none" in none
    assert "Historical protocol" not in none
    assert "Middle: the goal" in text
    assert "<td>cem</td>" in text
    assert "fewer than its 50 pairs" in text


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
