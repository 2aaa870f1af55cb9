"""A cloned policy from the command line: trained, kept, evaluated, and refused where it must be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from worldmodel import GCBC
from worldmodel.apps.cli import main
from worldmodel.apps.parsing import complete
from worldmodel.apps.ranks import ALONE
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.train.command import score
from worldmodel.apps.train.loop import Training
from worldmodel.apps.train.material import begin_training, open_material
from worldmodel.checkpoint import digest
from worldmodel.data import HDF5Writer
from worldmodel.worlds import TwoRoom, collect

pytest.importorskip("h5py", reason="sigreg[data] is not installed")
SMALL = (
    "encoder.width=4", "encoder.dim=8", "encoder.projector_dim=8", "predictor.dim=8",
    "predictor.depth=1", "predictor.heads=2", "predictor.dim_head=4", "predictor.mlp_dim=8",
    "predictor.projector_dim=8", "batch_size=4", "--device", "cpu", "--workers", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve walks whose file names its world."""
    import h5py

    path = tmp_path_factory.mktemp("data") / "walks.h5"
    world, walks = TwoRoom(16), collect(TwoRoom(16), 12, 16, 0)
    with HDF5Writer(path) as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    with h5py.File(path, "r+") as file:
        file.attrs["world"] = "two-room"
    return path


def train(data: Path, out: Path, *words: str) -> int:
    """`worldmodel train --objective gcbc` on two steps between frames."""
    given = ["--data", str(data), "--out", str(out), "--objective", "gcbc", "--frameskip", "2"]
    return main(["train", *given, *SMALL, *words])


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(data, out, "--steps", "4") == 0
    return out


def test_the_folder_holds_the_policy_and_how_it_was_trained(run: Path) -> None:
    """Windows have six frames, so goals are up to five blocks away; the loss is the error alone."""
    opened = open_run(run)
    assert isinstance(opened.model, GCBC)
    assert (opened.objective, opened.world, opened.frameskip) == ("gcbc", "two-room", 2)
    assert opened.model.action_dim == 4
    settings = json.loads((run / "train.json").read_text())
    assert (settings["num_frames"], settings["weight"]) == (6, 0.0)
    with Image.open(run / "curves.png") as curves:
        # As wide as always, and a chart shorter: there is no regularizer to draw.
        assert curves.height < 1.3 * curves.width
    with pytest.raises(ValueError, match=r"RUN must hold a world model, .* trained for gcbc"):
        _ = opened.world_model


def test_it_is_evaluated_like_a_planner(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command evaluates it; the result names it, and is the same in any batch."""
    pairs = tmp_path / "pairs.json"
    wanted = ["--env", "two-room", "--pairs", "8", "--offset", "4", "--budget", "8"]
    assert main(["manifest", *wanted, "--out", str(pairs)]) == 0
    outcomes = []
    for batch in ("8", "3"):
        out = tmp_path / f"result-{batch}"
        words = ["--manifest", str(pairs), "--batch-size", batch, "--films", "1"]
        assert main(["evaluate", str(run), *words, "--out", str(out)]) == 0
        result = json.loads((out / "result.json").read_text())
        outcomes.append(result["outcomes"])
        assert result["fingerprint"]["planner"] == "GCBCPolicy"
        assert result["fingerprint"]["weights"] == digest(open_run(run).model)
        assert "Left: now. Right: the goal." in (out / "index.html").read_text()
    assert outcomes[0] == outcomes[1]
    assert "GCBC " in capsys.readouterr().out
    # A kill before the page: the same command continues with what was measured.
    (out / "index.html").unlink()
    measured = {path: path.read_bytes() for path in out.glob("outcomes-*")}
    assert main(["evaluate", str(run), *words, "--out", str(out)]) == 0
    assert measured == {path: path.read_bytes() for path in out.glob("outcomes-*")}
    assert (out / "index.html").is_file()


def test_a_held_out_score_is_the_same_every_time_and_moves_nothing(data: Path) -> None:
    """Frames and goals are drawn for it, and not from the stream that training draws from."""
    pairs = dict(word.split("=") for word in SMALL if "=" in word)
    parts: dict[str, dict[str, int]] = {}
    for name, value in pairs.items():
        part, dot, key = name.partition(".")
        if dot:
            parts.setdefault(part, {})[key] = int(value)
    settings = complete(
        TrainSettings, "train",
        {"data": str(data), "out": Path("run"), "objective": "gcbc", "frameskip": 2,
         "batch_size": 4, "steps": 2, "device": "cpu", "workers": 0, "model": parts},
    )  # fmt: skip
    material = open_material(settings)
    training = begin_training(settings, material, ALONE)[1]
    before = torch.get_rng_state()
    first = score(training, material.train, 8)
    torch.rand(3)
    assert score(training, material.train, 8) == first
    assert first[1] == 0
    torch.set_rng_state(before)
    score(training, material.train, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupted_run_goes_on_to_the_same_policy(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which frames and goals a step takes belongs to the state that is kept."""
    advance = Training._advance

    def stopping(training: Training[GCBC], batch: object) -> object:
        if training.step == 2:
            raise KeyboardInterrupt
        return advance(training, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "_advance", stopping)
    out = tmp_path / "cut"
    assert train(data, out, "--steps", "4") == 130
    monkeypatch.undo()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert digest(open_run(out).model) == digest(open_run(run).model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight", "0.1"], "weight must be 0 with objective gcbc, got 0.1"),
        (["action_encoder.dim=4"], "action_encoder must be left out with objective gcbc"),
        (["predictor.colour=4"], "predictor (CausalPredictor) has no 'colour'"),
    ],
)
def test_settings_it_has_no_use_for_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """In one line, and without a folder."""
    out = tmp_path / "run"
    assert train(data, out, "--steps", "1", *words) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_nothing_is_planned_or_studied_with_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planner settings would be ignored, and a study looks into a world model."""
    pairs = tmp_path / "pairs.json"
    assert main(["manifest", "--env", "two-room", "--pairs", "4", "--out", str(pairs)]) == 0
    words = ["evaluate", str(run), "--manifest", str(pairs), "--out", str(tmp_path / "x")]
    assert main([*words, "--planner", "icem"]) == 2
    assert "does not plan: leave out --planner and its settings" in capsys.readouterr().err
    assert main(["study", str(run), "--out", str(tmp_path / "y")]) == 2
    assert "RUN must hold a world model" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()
