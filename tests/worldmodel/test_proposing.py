"""Proposals by the command line: learned beside a model that stays, checked by it, and refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planners import Bounds
from worldmodel import Futures, WorldModel, presets
from worldmodel.apps.cli import main
from worldmodel.apps.evaluate import attempt, read_result
from worldmodel.apps.evaluate.manifest import Pairs
from worldmodel.apps.evaluate.policies import PlannerPolicy, Scene, Task, bounds_of
from worldmodel.apps.evaluate.proposing import Guide
from worldmodel.apps.runs import open_run, save_run
from worldmodel.apps.settings import PlannerSettings
from worldmodel.checkpoint import digest
from worldmodel.data import ActionScale, HDF5Writer
from worldmodel.learning import load_learner
from worldmodel.policies import Policy
from worldmodel.transitions import Recipe
from worldmodel.worlds import TwoRoom, collect

pytest.importorskip("h5py", reason="sigreg[data] is not installed")
WORLD = TwoRoom(16)
pytestmark = pytest.mark.filterwarnings("ignore:.*farther than a plan:RuntimeWarning")
QUICK = ("--steps", "3", "--batch-size", "8", "--device", "cpu", "recipe.hidden=[8]")


def walks(path: Path, num: int, length: int, seed: int) -> Path:
    """A file of walks that names its world."""
    import h5py

    found = collect(WORLD, num, length, seed)
    with HDF5Writer(path) as writer:
        for states, actions in zip(found.states, found.actions, strict=True):
            writer.write(WORLD.render(states), actions, states)
    with h5py.File(path, "r+") as file:
        file.attrs["world"] = "two-room"
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten walks of 13 frames."""
    return walks(tmp_path_factory.mktemp("data") / "walks.h5", 10, 12, 0)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one training step, at frameskip 2."""
    out = tmp_path_factory.mktemp("runs") / "run"
    small = [
        "encoder.width=4", "encoder.dim=8", "encoder.projector_dim=8", "action_encoder.dim=8",
        "predictor.dim=8", "predictor.depth=1", "predictor.heads=2", "predictor.dim_head=4",
        "predictor.mlp_dim=8", "predictor.projector_dim=8", "batch_size=4", "num_proj=8",
    ]  # fmt: skip
    words = ["--data", str(data), "--out", str(out), "--frameskip", "2", "--steps", "1"]
    assert main(["train", *words, "--device", "cpu", "--workers", "0", *small]) == 0
    return out


def learn(run: Path, data: Path, out: Path, *words: str) -> int:
    """`worldmodel train --objective proposals`."""
    given = ["--init-from", str(run), "--data", str(data), "--out", str(out)]
    return main(["train", "--objective", "proposals", *given, *QUICK, *words])


@pytest.fixture(scope="module")
def learned(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a value and a policy of three modes."""
    out = tmp_path_factory.mktemp("learned") / "gcivl"
    assert learn(run, data, out, "recipe.modes=3") == 0
    return out


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pairs of walks that nobody learned from."""
    folder = tmp_path_factory.mktemp("task")
    others = walks(folder / "others.h5", 8, 10, 5)
    words = ["--env", "two-room", "--data", str(others), "--pairs", "7", "--offset", "8"]
    assert main(["manifest", *words, "--budget", "6", "--out", str(folder / "m.json")]) == 0
    return folder / "m.json"


def evaluate(run: Path, manifest: Path, out: Path, *words: str) -> int:
    """`worldmodel evaluate --planner proposals`."""
    given = ["--manifest", str(manifest), "--out", str(out), "--films", "0", "--device", "cpu"]
    return main(["evaluate", str(run), "--planner", "proposals", *given, *words])


def test_the_model_and_its_run_stay_as_they_were(run: Path, data: Path, tmp_path: Path) -> None:
    """Every file of RUN keeps its bytes; what is left is the same model, its learner beside it."""
    before = {path.name: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    assert learn(run, data, tmp_path / "out", "--learner", "mixture") == 0
    assert before == {path.name: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    old, new = open_run(run), open_run(tmp_path / "out")
    assert digest(old.model) == digest(new.model)
    assert (new.objective, new.frameskip, new.world) == ("proposals", 2, "two-room")
    # What RUN kept apart is never learned from, so that it may still judge.
    assert old.held_out == new.held_out
    assert new.trained_on == old.trained_on
    learner = load_learner(new.folder / "proposals.safetensors", model=new.world_model)
    assert isinstance(learner, Policy)
    assert learner.recipe.modes == 8


def test_pictures_may_be_drawn_while_it_learns(run: Path, tmp_path: Path) -> None:
    """From stored states, the same embeddings and the same learner as from stored pictures."""
    words = ["--env", "two-room", "--episodes", "4", "--length", "12"]
    for name, more in {"all": ["--size", "16"], "states": ["--states-only"]}.items():
        out = ["--out", str(tmp_path / f"{name}.h5")]
        assert main(["data", "collect", *words, *more, *out]) == 0
    assert learn(run, tmp_path / "all.h5", tmp_path / "one") == 0
    assert learn(run, tmp_path / "states.h5", tmp_path / "two", "--render", "16") == 0
    for name in ("recorded.safetensors", "proposals.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "rollouts"),
    [
        # The rest of the last plan, and rest; three modes costed, and walked to the horizon.
        (["--iterations", "1"], 2 + 3 + 3),
        (["--iterations", "3", "--samples", "5"], 2 + 3 + 3 + 2 * 5),
        (["--iterations", "1", "--sources", "recorded", "variants"], 2 + 8 + 8),
        (["--iterations", "1", "--horizon", "1"], 2 + 3),
        (["--check", "0"], 0),
    ],
)
def test_the_result_says_how_many_plans_were_imagined(
    learned: Path, manifest: Path, tmp_path: Path, words: list[str], rollouts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`fingerprint.rollouts_per_decision` is what reaches the model, counted there."""
    seen: list[int] = []
    costed, walked = Futures.__call__, WorldModel.rollout

    def count(self: Futures, actions: Tensor) -> Tensor:
        seen.append(actions.shape[1])
        return costed(self, actions)

    def walk(self: WorldModel, z: Tensor, actions: Tensor) -> Tensor:
        seen.append(len(actions) / 7 / max(1, planner["horizon"] - 1))  # type: ignore[arg-type]
        return walked(self, z, actions)

    planner = {"horizon": 1 if "--horizon" in words else 5}
    monkeypatch.setattr(Futures, "__call__", count)
    monkeypatch.setattr(WorldModel, "rollout", walk)
    assert evaluate(learned, manifest, tmp_path / "r", "--together", "7", *words) == 0
    mark = read_result(tmp_path / "r").fingerprint
    assert mark.rollouts_per_decision == rollouts
    assert sum(seen) == pytest.approx(3 * rollouts)  # decisions for six steps
    assert isinstance(mark.planner, dict)
    assert (mark.planner["name"], mark.planner["held"]) == ("proposals", False)


def test_neighbours_change_nothing(learned: Path, manifest: Path, tmp_path: Path) -> None:
    """Two at a time or all at once: the same outcomes, with sub-goals, records, refinement."""
    found = []
    for size in ("2", "7"):
        words = ["--subgoals", "graph", "--sources", "policy", "recorded", "--batch-size", size]
        out = tmp_path / size
        assert evaluate(learned, manifest, out, "--together", "4", "--distance", "1", *words) == 0
        found.append(read_result(out).outcomes)
    assert found[0] == found[1]


def test_hiql_gives_subgoals_and_a_clone_its_block(
    run: Path, data: Path, manifest: Path, tmp_path: Path
) -> None:
    """HIQL's high policy leads, and a cloned policy's block from pictures is one proposal more."""
    assert learn(run, data, tmp_path / "hiql", "--learner", "hiql") == 0
    small = [
        "encoder.width=4", "encoder.dim=8", "encoder.projector_dim=8", "predictor.dim=8",
        "predictor.depth=1", "predictor.heads=2", "predictor.dim_head=4", "predictor.mlp_dim=8",
        "predictor.projector_dim=8", "batch_size=4", "--frameskip", "2", "--workers", "0",
    ]  # fmt: skip
    cloned = ["--data", str(data), "--out", str(tmp_path / "bc"), "--objective", "gcbc"]
    assert main(["train", *cloned, "--steps", "1", "--device", "cpu", *small]) == 0
    words = ["--subgoals", "hiql", "--cloned", str(tmp_path / "bc"), "--iterations", "1"]
    assert evaluate(tmp_path / "hiql", manifest, tmp_path / "r", *words) == 0
    # One proposal of each, both walked to the horizon, the rest of the last plan, and rest.
    assert read_result(tmp_path / "r").fingerprint.rollouts_per_decision == 6


def test_far_goals_are_warned_of_once(
    learned: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning for all pairs, before the first; none where sub-goals or a policy lead."""
    import worldmodel.values

    far: Callable[..., Tensor] = lambda self, z, g: (z - g).sum(-1) * 0 + 3.0  # noqa: E731
    monkeypatch.setattr(worldmodel.values.GCIVL, "distance", far)
    all_the_way = ("--check", "100", "--batch-size", "2")
    with pytest.warns(RuntimeWarning, match="7 of 7 goals are farther than a plan of 5") as told:
        assert evaluate(learned, manifest, tmp_path / "a", *all_the_way) == 0
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, words in {"b": (*all_the_way, "--subgoals", "graph"), "c": ()}.items():
            assert evaluate(learned, manifest, tmp_path / name, *words) == 0


def test_a_policy_sees_two_embeddings_and_no_past_action(
    learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is given at the second decision is what is seen then, whatever was done before."""
    from worldmodel.apps.evaluate.proposing import guide_of
    from worldmodel.values import GCIVL

    opened = open_run(learned)
    planner = PlannerSettings(planner="proposals", horizon=1, iterations=1, check=0)
    guide = guide_of(opened, bounds_of(WORLD, opened.scale), planner)
    policy = PlannerPolicy(opened.world_model, opened.scale, 2, planner, guide)
    seen: list[tuple[Tensor, ...]] = []
    ranked = GCIVL.forward
    monkeypatch.setattr(GCIVL, "forward", lambda self, *z: (seen.append(z), ranked(self, *z))[1])
    states = WORLD.sample_states(np.random.default_rng(0), 4)
    for first in (states, states[::-1]):
        actor = policy.begin(Task(WORLD, states, np.arange(4)))
        for place in (first, states):
            actor(Scene(place, lambda _=0, place=place: WORLD.draw(place)))
    assert [len(z) for z in seen] == [2] * 4
    assert not torch.equal(seen[0][0], seen[2][0])
    assert all(torch.equal(*both) for both in zip(seen[1], seen[3], strict=True))


class Eye(nn.Module):
    """Where the disc is, in tens of units: the centre of what is redder than the rest."""

    dim, image_size = 2, 16

    def forward(self, frames: Tensor) -> Tensor:
        red = (frames[..., 0, :, :].float() - frames[..., 1, :, :].float() - 20).clamp_min(0)
        at = torch.arange(16) + 0.5
        mass = red.sum((-2, -1))
        x, y = (red.sum(-2) @ at) / mass, (red.sum(-1) @ at) / mass
        return torch.stack([x, y], -1) * 1.4


class Moves(nn.Module):
    """Two steps of eight units in the world's own units."""

    dim, history = 2, 1

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        return z + 0.8 * actions.unflatten(-1, (2, 2)).sum(-2)


class Right(Policy):
    """Straight to the goal, at the speed that arrives."""

    factor = 1.0

    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        return self.factor * ((z_goal - z) / 1.6).clamp(-1, 1).repeat(1, 2)[:, None, None]


def right(planner: PlannerSettings, factor: float = 1.0) -> PlannerPolicy:
    """A model and a policy that are right wherever there is no wall."""
    scale = ActionScale(torch.zeros(2), torch.ones(2))
    model = WorldModel(Eye(), nn.Identity(), Moves()).eval()
    model.register_parameter("device", nn.Parameter(torch.zeros(1)))
    learner = Right(2, 4, Recipe(hidden=(4,)))
    learner.factor = factor
    recorded = torch.zeros(1, 3, 2), factor * torch.tensor([[-1.0], [1.0]]).expand(1, 2, 4)
    bounds = Bounds(-1.0, 1.0, mean=torch.zeros(2), std=torch.ones(2))
    guide = Guide(model, learner, *recorded, bounds, planner, None, None)
    return PlannerPolicy(model, scale, 2, planner, guide)


def rooms(num: int = 24) -> Pairs:
    """Starts and goals in one room."""
    places = WORLD.sample_states(np.random.default_rng(3), 40 * num)
    places = places[places[:, 0] < 90][: 2 * num]
    where = np.zeros(num, np.int64)
    return Pairs(places[:num], places[num:], where, where, 0)


def test_a_policy_that_is_right_stays_right_when_it_is_checked() -> None:
    """Alone it ends at every goal; so it does when its plans are picked or refined."""
    pairs, ends = rooms(), {}
    for name, words in {
        "alone": {"check": 0.0}, "picked": {"iterations": 1},
        "refined": {"iterations": 6, "samples": 16, "elites": 4, "std": 0.3},
    }.items():  # fmt: skip
        planner = PlannerSettings(planner="proposals", **words)  # type: ignore[arg-type]
        outcome = attempt(WORLD, pairs, right(planner), budget=40)
        assert outcome.at_end.all(), name
        ends[name] = outcome.distance.mean()
    assert ends["refined"] < ends["alone"] + 2


def test_rest_lies_in_a_box_without_zero() -> None:
    """If zero is out of bounds, the no-op plan holds the nearest allowed action."""
    guide = right(PlannerSettings(planner="proposals")).guide
    assert guide is not None
    guide = guide._replace(bounds=Bounds(0.25, 0.5, mean=[0.0, 0.4], std=[1.0, 0.1]))
    goal = torch.zeros(1, 2)
    futures = guide.model.imagine().look(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8))
    _, plans, _ = guide.begin(goal, goal)(futures, goal)
    rest = guide.bounds.to_environment(plans[0, -1])
    assert torch.equal(rest, torch.full_like(rest, 0.25))
    assert torch.equal(plans[0, -1, :, :2], torch.tensor([0.25, -1.5]).expand(len(rest), 2))


def test_a_policy_in_other_units_is_refused() -> None:
    """Raw actions five times too large are no plans; a search would clamp them and say nothing."""
    planner = PlannerSettings(planner="proposals")
    with pytest.raises(ValueError, match="candidates must be in planning units"):
        attempt(WORLD, rooms(4), right(planner, factor=5.0), budget=2)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--weight", "0.1"], "weight has no effect with objective proposals"),
        (["recipe.mode=2"], "recipe has no 'mode'; it has chunk, modes"),
        (["recipe.modes=x"], "recipe.modes must be like 1, got 'x'"),
        (["recipe.chunk=40"], "T > chunk = 40"),
    ],
)
def test_what_would_decide_nothing_is_refused(
    run: Path, data: Path, tmp_path: Path, words: list[str], part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The message names the setting; no folder is left."""
    assert learn(run, data, tmp_path / "out", *words) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_named(
    run: Path, learned: Path, data: Path, manifest: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A run without learner, a model of other actions, a learner without a value."""
    out = tmp_path / "out"
    assert main(["train", "--objective", "proposals", "--data", str(data), "--out", str(out)]) == 2
    assert "needs --init-from" in capsys.readouterr().err
    assert main(["train", "--data", str(data), "--out", str(out), "recipe.modes=2"]) == 2
    assert "recipe needs objective proposals" in capsys.readouterr().err
    assert evaluate(run, manifest, out) == 2
    assert "worldmodel train --objective proposals --init-from" in capsys.readouterr().err
    assert learn(run, data, tmp_path / "policy", "--learner", "policy") == 0
    for words in (["--distance", "1"], ["--subgoals", "graph"]):
        assert evaluate(tmp_path / "policy", manifest, out, *words) == 2
        told = "distance and subgoals need a value (gcivl, gciql, hiql), got Policy"
        assert told in capsys.readouterr().err
    assert evaluate(learned, manifest, out, "--cloned", str(run)) == 2
    assert "cloned must be a run of --objective gcbc" in capsys.readouterr().err
    assert evaluate(learned, manifest, out, "--check", "0", "--distance", "1") == 2
    assert "check 0 imagines nothing" in capsys.readouterr().err
    words = ["--manifest", str(manifest), "--out", str(out), "--subgoals", "graph"]
    assert main(["evaluate", str(learned), *words]) == 2
    assert "subgoals is a setting of proposals, got it with planner cem" in capsys.readouterr().err
    wide = presets.small(6, image_size=16, dim=8).eval()
    scale = ActionScale(torch.zeros(3), torch.ones(3))
    save_run(wide, tmp_path / "wide", scale=scale, frameskip=2, world=None, trained_on=[],
             held_out=[], settings={})  # fmt: skip
    assert learn(tmp_path / "wide", data, out) == 2
    assert "--data must have actions of 3 dims" in capsys.readouterr().err


def test_what_was_learned_is_written_down(learned: Path) -> None:
    """Settings, and a report of what it took."""
    settings = json.loads((learned / "train.json").read_text())
    assert (settings["learner"], settings["model"]) == (
        "gcivl", {"recipe": {"hidden": [8], "modes": 3}},
    )  # fmt: skip
    report: dict[str, Any] = json.loads((learned / "report.json").read_text())
    assert (report["learner"], report["steps"], report["embeddings"]) == ("gcivl", 3, 7)
