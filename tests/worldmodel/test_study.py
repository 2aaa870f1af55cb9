"""A study from a run folder to its page: whole, honest where it cannot measure, and readable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodel import WorldModel, presets
from worldmodel.apps.cli import main
from worldmodel.apps.runs import open_run, save_run
from worldmodel.apps.settings import StudySettings
from worldmodel.apps.study.command import gather_material, plain, study
from worldmodel.apps.study.command import run as run_command
from worldmodel.data import ActionScale, Episodes, HDF5Writer, action_digest, episode_digests
from worldmodel.heads import load_head
from worldmodel.worlds import TwoRoom, collect

PARTS = {
    "probes",
    "foresight",
    "actions",
    "ranking",
    "violations",
    "straightness",
    "spread",
    "pictures",
    "map",
}


def save_small(
    folder: Path, *, world: str | None = "two-room", dim: int = 8, **changes: Any
) -> WorldModel:
    """An untrained run of the small preset at 16 pixels."""
    torch.manual_seed(1)
    model = presets.small(10, image_size=16, dim=dim).eval()
    arguments: dict[str, Any] = {
        "scale": ActionScale(torch.zeros(2), torch.ones(2)), "frameskip": 5, "world": world,
        "trained_on": [], "held_out": [], "settings": {"seed": 0, "length": 40},
    } | changes  # fmt: skip
    edit: Callable[[WorldModel], None] = arguments.pop("edit", lambda _: None)
    edit(model)
    save_run(model, folder, **arguments)
    return model


def run_study(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Study a run, and what study.json holds then."""
    run_command(StudySettings(run=folder, out=out, device="cpu", **changes))
    found: dict[str, Any] = json.loads((out / "study.json").read_text())
    return found


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run, with its study."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    save_small(folder)
    for step in (10, 2):
        save_small(folder / f"step-{step}")
    run_study(folder, folder, episodes=12, steps=2)
    return folder


def estimates(value: Any) -> list[dict[str, Any]]:
    """Every figure of a report, however deep."""
    if isinstance(value, dict):
        if set(value) == {"value", "low", "high", "n"}:
            return [value]
        return [e for v in value.values() for e in estimates(v)]
    return [e for v in value for e in estimates(v)] if isinstance(value, list) else []


def test_every_part_is_measured_and_every_figure_has_n_and_an_interval(studied: Path) -> None:
    """All parts are there; each figure has 12 episodes behind it and its value in its interval."""
    report = json.loads((studied / "study.json").read_text())
    assert set(report["parts"]) == PARTS
    assert [n for n, p in report["parts"].items() if "unavailable" in p] == []
    found = [e for e in estimates(report) if e["value"] is not None]
    assert len(found) > 60
    for e in found:
        assert e["n"] == 12
        assert e["low"] - 1e-6 <= e["value"] <= e["high"] + 1e-6
    assert report["data"]["test_episodes"] == 12
    assert report["data"]["frames_per_episode"] == 9


def test_a_study_is_a_function_of_run_and_seed(studied: Path, tmp_path: Path) -> None:
    """The same run and seed give the same figures; another seed other episodes."""
    report = json.loads((studied / "study.json").read_text())
    again = run_study(studied, tmp_path / "a", episodes=12, steps=2)
    other = run_study(studied, tmp_path / "b", episodes=12, steps=2, seed=1)
    assert again["parts"]["probes"] == report["parts"]["probes"]
    assert again["parts"]["violations"]["tests"] == report["parts"]["violations"]["tests"]
    assert other["parts"]["foresight"]["model"] != report["parts"]["foresight"]["model"]


def test_checkpoints_tell_straightness_against_training(studied: Path) -> None:
    """Models saved in numbered folders of the run appear in the order of their numbers."""
    report = json.loads((studied / "study.json").read_text())
    course = report["parts"]["straightness"]["checkpoints"]
    assert [c["step"] for c in course] == [2, 10]
    assert course[0]["straightness"] == report["parts"]["straightness"]["trained"]


def test_the_command_writes_both_files_and_says_where(
    studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`worldmodel study RUN --out DIR` ends with status 0 and names what it wrote."""
    out = tmp_path / "out"
    options = ["--episodes", "3", "--steps", "1"]
    assert main(["study", str(studied), "--out", str(out), *options]) == 0
    assert {p.name for p in out.iterdir()} == {"study.html", "study.json", "probe.safetensors"}
    probe = load_head(out / "probe.safetensors")
    assert probe(torch.zeros(open_run(studied).world_model.encoder.dim)).shape == (2,)
    assert not (out / "index.html").exists()
    assert "./study.html" in (studied / "index.html").read_text()
    assert "study.html" in capsys.readouterr().out


def test_mistakes_end_in_one_line(
    studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a run, an absent file and an unknown device are told, not traced back."""
    for words, said in (
        ([str(tmp_path / "no")], "is neither a folder nor an owner/name of the hub"),
        ([str(studied), "--data", str(tmp_path / "no.h5")], "there is no data set at"),
        ([str(studied), "--device", "abacus"], "abacus"),
    ):
        assert main(["study", *words, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_only_episodes_new_to_the_run_are_used(tmp_path: Path) -> None:
    """Episodes whose digest the run was trained on are left out, with a note; none left is told."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    episodes = write_walks(tmp_path / "walks.h5", num=10)
    digests = episode_digests(episodes)
    save_small(tmp_path / "run", world=None, data=str(tmp_path / "walks.h5"),
               trained_on=digests[:6])  # fmt: skip
    report = run_study(tmp_path / "run", tmp_path / "out", steps=1)
    assert report["data"]["fit_episodes"] + report["data"]["test_episodes"] == 4
    assert "6 training episodes of the run are left out." in report["notes"]
    assert any("Only 4 unseen episodes" in note for note in report["notes"])
    save_small(tmp_path / "all", world=None, data=str(tmp_path / "walks.h5"), trained_on=digests)
    with pytest.raises(ValueError, match=r"was trained on all 10 episodes of .*: give others"):
        run_study(tmp_path / "all", tmp_path / "none")


def test_one_episode_without_states_still_gives_a_study(tmp_path: Path) -> None:
    """What needs two episodes or states says so; the rest has values and no intervals."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    write_walks(tmp_path / "one.h5", num=1, states=False)
    save_small(tmp_path / "run", world=None)
    report = run_study(tmp_path / "run", tmp_path / "out", data=str(tmp_path / "one.h5"), steps=1)
    missing = {n: p["unavailable"] for n, p in report["parts"].items() if "unavailable" in p}
    assert set(missing) == {"probes", "actions", "ranking", "violations", "spread", "pictures"}
    assert "got one episode" in missing["probes"]
    assert report["parts"]["foresight"]["model"][0]["n"] == 1
    assert report["parts"]["foresight"]["model"][0]["low"] is None
    page = (tmp_path / "out" / "study.html").read_text()
    assert page.count("Not measured:") == 6


def test_data_without_states_say_so(tmp_path: Path) -> None:
    """Without state columns there are no probes and the map is coloured by time."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    write_walks(tmp_path / "walks.h5", num=6, states=False)
    save_small(tmp_path / "run", world=None)
    report = run_study(tmp_path / "run", tmp_path / "out", data=str(tmp_path / "walks.h5"), steps=1)
    missing = {n for n, p in report["parts"].items() if "unavailable" in p}
    assert missing == {"probes", "ranking"}
    assert "no states" in report["parts"]["probes"]["unavailable"]
    assert report["parts"]["map"]["coloured_by"] == "time"


def test_a_collapsed_model_is_called_collapsed(tmp_path: Path) -> None:
    """One embedding for every frame: a note on top, blind probes, and no ratio of roundings."""

    def collapse(model: WorldModel) -> None:
        with torch.no_grad():
            model.encoder.projector.contract.weight.zero_()

    save_small(tmp_path / "run", edit=collapse)
    report = run_study(tmp_path / "run", tmp_path / "out", episodes=6, steps=1)
    assert "collapsed" in report["notes"][0]
    parts = report["parts"]
    for name in ("foresight", "actions", "ranking", "violations", "straightness", "map"):
        assert "unavailable" in parts[name]
    for quantity in parts["probes"]["quantities"]:
        assert quantity["linear"]["r2"]["value"] < 0.01
    assert "collapsed" in parts["spread"]["verdict"]
    assert "The model has collapsed" in (tmp_path / "out" / "study.html").read_text()


def test_an_embedding_wider_than_its_data_is_seen_through_its_components(tmp_path: Path) -> None:
    """320 dims and 54 frames to fit on: probes see a quarter as many components as frames."""
    save_small(tmp_path / "run", dim=320)
    report = run_study(tmp_path / "run", tmp_path / "out", episodes=6, steps=1)
    assert [n for n, p in report["parts"].items() if "unavailable" in p] == []
    assert report["parts"]["probes"]["coordinates"] == 13
    assert report["run"]["embedding_dims"] == 320


def test_a_model_of_nan_is_refused(tmp_path: Path) -> None:
    """Weights that are not numbers are named instead of studied."""

    def spoil(model: WorldModel) -> None:
        with torch.no_grad():
            model.encoder.projector.contract.bias.fill_(float("nan"))

    save_small(tmp_path / "run", edit=spoil)
    with pytest.raises(ValueError, match="NaN or infinite"):
        run_study(tmp_path / "run", tmp_path / "out", episodes=2, steps=1)


def test_a_world_that_cannot_be_collected_from_asks_for_data(tmp_path: Path) -> None:
    """A run of another world without a file says what to give."""
    save_small(tmp_path / "run", world="push-t")
    with pytest.raises(ValueError, match=r"cannot collect episodes of the world 'push-t'.*--data"):
        run_study(tmp_path / "run", tmp_path / "out")


def test_the_page_fetches_nothing(studied: Path) -> None:
    """No script and no address: styles, charts and pictures are all in the file."""
    page = (studied / "study.html").read_text()
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=[\"'](?!data:|#)", page) == []
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page
    assert page.count("<section>") == len(PARTS)
    assert page.count("<svg") == 10


def test_a_run_that_knows_every_fresh_episode_is_told_so(tmp_path: Path) -> None:
    """Nothing new to the run in the built-in world is one line, and an empty folder stays."""
    save_small(tmp_path / "run")
    walks = gather_material(open_run(tmp_path / "run"), None, 2, 0)
    assert walks.fit is not None
    seen = [action_digest(raw.numpy()) for part in (walks.fit, walks.test) for raw in part.raw]
    save_small(tmp_path / "run", trained_on=seen)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="was trained on all 4 episodes of two-room"):
        run_study(tmp_path / "run", tmp_path / "out", episodes=2)
    assert (tmp_path / "out").is_dir()


def test_a_model_of_the_hub_is_studied_into_a_folder(
    studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id is no folder here: the study ends well, and no index is written where none belongs."""
    found = open_run(studied)
    monkeypatch.setattr("worldmodel.apps.study.command.open_run", lambda *_, **__: found)
    run_study(Path("owner/name"), tmp_path / "out", episodes=2, steps=1)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"study.html", "study.json", "probe.safetensors"}


def test_a_study_is_not_written_over(
    studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command renews it, other settings need --force, another model another --out."""
    out, words = tmp_path / "out", ["--episodes", "3", "--steps", "1"]
    common = ["study", str(studied), "--out", str(out)]
    assert main([*common, *words]) == 0
    first = json.loads((out / "study.json").read_text())
    (out / "study.html").unlink()
    assert main([*common, *words]) == 0
    again = json.loads((out / "study.json").read_text())
    assert again["parts"] == first["parts"]
    assert (out / "study.html").is_file()
    before = (out / "study.json").read_bytes()
    assert main([*common, *words, "--seed", "1"]) == 2
    assert "other settings: add --force" in capsys.readouterr().err
    assert (out / "study.json").read_bytes() == before
    assert main([*common, *words, "--seed", "1", "--force"]) == 0
    assert json.loads((out / "study.json").read_text())["seed"] == 1
    save_small(tmp_path / "other", dim=12)
    assert main(["study", str(tmp_path / "other"), "--out", str(out), *words, "--force"]) == 2
    assert "a study of another model" in capsys.readouterr().err
    for name in ("study.json", "study.html"):
        strange = tmp_path / name.replace(".", "-")
        strange.mkdir()
        (strange / name).write_text("[1]")
        assert main(["study", str(studied), "--out", str(strange), *words, "--force"]) == 2
        assert "is not a study" in capsys.readouterr().err
        assert (strange / name).read_text() == "[1]"


def test_some_parts_alone_are_measured(studied: Path) -> None:
    """What is asked for is measured as in the whole study, in the order asked for."""
    run = open_run(studied)
    material = gather_material(run, None, 12, 0)
    report = study(run, material, parts=("map", "probes"))
    assert list(report.parts) == ["map", "probes"]
    whole = json.loads((studied / "study.json").read_text())["parts"]["probes"]
    assert plain(report.parts["probes"]) == whole
    with pytest.raises(KeyError, match="nothing"):
        study(run, material, parts=("nothing",))


def write_walks(path: Path, *, num: int, states: bool = True) -> Episodes:
    """Episodes of Two-Room at 16 pixels as an HDF5 file, and as what it holds."""
    from worldmodel.data import open_hdf5

    world = TwoRoom(16)
    walks = collect(world, num, 40, seed=9)
    with HDF5Writer(path) as writer:
        for s, a in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(s), a, s if states else None)
    return open_hdf5(path)


def test_a_trained_baseline_is_studied_on_its_way(tmp_path: Path) -> None:
    """`train` with PLDM's objective, then `study`: its states on disk tell of straightness."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    write_walks(tmp_path / "walks.h5", num=8)
    words = [
        "preset=small", "objective=pldm", "steps=4", "batch_size=16", "weight=1", "world=two-room",
        "checkpoint_every=2", "held_out_windows=16", "workers=0", "encoder.dim=8",
        "encoder.width=8", "encoder.projector_dim=16", "action_encoder.dim=8", "predictor.dim=8",
        "predictor.depth=1", "predictor.mlp_dim=16", "predictor.projector_dim=16",
    ]  # fmt: skip
    given = ["--data", str(tmp_path / "walks.h5"), "--out", str(tmp_path / "run")]
    assert main(["train", *given, *words]) == 0
    report = run_study(tmp_path / "run", tmp_path / "out", episodes=4, steps=1)
    assert report["run"]["objective"] == "pldm"
    part = report["parts"]["straightness"]
    assert [c["step"] for c in part["checkpoints"]] == [2, 4]
    assert part["checkpoints"][1]["straightness"] == part["trained"]
    assert part["checkpoints"][0]["straightness"] != part["trained"]


class Simulator:
    """Stands for an imagination: embeddings are true states, and plans are simulated."""

    def __init__(self, world: TwoRoom, states: torch.Tensor, sign: float = 1.0) -> None:
        self.world, self.states, self.sign = world, states, sign

    def look(
        self, frames: torch.Tensor, past: torch.Tensor | None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        known = frames.shape[1]
        assert (1 if past is None else past.shape[1] + 1) == known

        def futures(plans: torch.Tensor) -> torch.Tensor:
            lead = plans.shape[:2]
            now = self.states[:, known - 1].repeat_interleave(lead[1], 0).numpy()
            seen = []
            for block in plans.flatten(0, 1).unbind(1):
                for action in block.unflatten(1, (-1, 2)).unbind(1):
                    now = self.world.step(now, action.numpy())
                seen.append(torch.from_numpy(now))
            return torch.stack(seen, 1).unflatten(0, lead) * self.sign

        return futures


@pytest.mark.parametrize(
    ("sign", "cost", "history"), [(1.0, "last", None), (1.0, "mean", 1), (-1.0, "last", None)]
)
def test_plans_of_a_perfect_model_are_ranked_as_the_world_does(
    tmp_path: Path, sign: float, cost: str, history: int | None
) -> None:
    """With true states for embeddings the order is exact; mirrored ones lead away from the goal."""
    save_small(tmp_path / "run")
    settings = {"cost": cost, "samples": 32, "history": history}
    kept = {"settings": settings, "manifest": "", "success_rate": 0.5}
    (tmp_path / "run" / "planner.json").write_text(json.dumps(kept))
    run = open_run(tmp_path / "run")
    material = gather_material(run, None, 12, 0)
    assert material.test.states is not None
    world, states = material.world, material.test.states
    assert isinstance(world, TwoRoom)
    material = material._replace(test=material.test._replace(z=states))
    model = run.world_model
    model.__dict__["imagine"] = lambda: Simulator(world, states, sign)
    part = study(run, material, parts=["ranking"]).parts["ranking"]
    assert [stage.stage for stage in part.stages] == ["first", "middle", "last"]
    first = part.stages[0]
    if sign > 0:
        # A mean of squares orders nearly as a mean of lengths does.
        assert first.correlation.value == pytest.approx(1, abs=1e-6 if cost == "last" else 0.03)
        assert first.chosen.value == pytest.approx(first.best.value, rel=0.03)
    else:
        assert first.correlation.value < 0
        assert first.chosen.value > first.best.value + 10
    assert part.raw_steps_to_goal == 25
    assert (part.planner["cost"], part.planner["samples"]) == (cost, 32)
    assert part.problems == 12


def test_plans_are_tried_only_in_a_world_that_is_known(tmp_path: Path) -> None:
    """A class that a file names is not imported; states of another world are not simulated."""
    pytest.importorskip("h5py", reason="sigreg[data] is not installed")
    write_walks(tmp_path / "walks.h5", num=6)
    for world, why in (
        (None, "not a built-in"), ("os:path", "not a built-in"), ("maze", "are not those of maze"),
    ):  # fmt: skip
        save_small(tmp_path / f"{world}", world=world)
        run = open_run(tmp_path / f"{world}")
        material = gather_material(run, str(tmp_path / "walks.h5"), 4, 0)
        assert why in study(run, material, parts=["ranking"]).parts["ranking"].unavailable
