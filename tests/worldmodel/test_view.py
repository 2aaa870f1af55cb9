"""What `worldmodel view` writes and serves; the page itself is tried in `test_view_browser`."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel import AffinePredictor, CausalPredictor, PrefixPredictor, WorldModel, presets
from worldmodel.apps.cli import main
from worldmodel.apps.runs import save_run
from worldmodel.apps.view.command import _Handler
from worldmodel.apps.view.graphs import write_graphs
from worldmodel.apps.view.runtime import FILES, find_runtime
from worldmodel.data import ActionScale
from worldmodel.heads import Head
from worldmodel.layers import ProjectionHead

# With importlib as pytest's import mode a test's folder is on no path.
sys.path.append(str(Path(__file__).parent))
from view_runs import save_untrained

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def runtime(folder: Path) -> Path:
    """A folder with files of the runtime's names."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"not the real one")
    return folder


def view(run: Path, out: Path, *words: str) -> int:
    """The command, quick."""
    return main(["view", str(run), "--out", str(out), "--no-serve", "--episodes", "8", *words])


@pytest.fixture(scope="module", autouse=True)
def _one_horizon() -> Iterator[None]:
    """One graph of futures instead of three: tracing one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.apps.view.command._HORIZONS", [5])
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a maze's run with one without SIGReg beside it."""
    home = tmp_path_factory.mktemp("view")
    run = save_untrained(home / "run", "maze")
    save_untrained(run / "without-sigreg", "maze", seed=1)
    assert view(run, home / "site", "--pairs", "3", "--runtime", str(runtime(home / "rt"))) == 0
    return home / "site"


def lively(model: WorldModel) -> WorldModel:
    """Batch statistics and modulations that a new model does not have."""
    for part in model.modules():
        if isinstance(part, ProjectionHead):
            torch.nn.init.normal_(part.norm.running_mean)  # type: ignore[arg-type]
            torch.nn.init.uniform_(part.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if "modulation" in name or "steer" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    "predictor",
    [
        lambda: CausalPredictor(16, depth=2, heads=2, history=3, dim_head=8, mlp_dim=32),
        lambda: CausalPredictor(16, depth=1, heads=4, history=1, dim_head=4, mlp_dim=32),
        lambda: CausalPredictor(16, depth=1, heads=2, history=9, dim_head=8, mlp_dim=32),
        lambda: PrefixPredictor(16, history=5, heads=2, depth=1, prefix_depth=1, mlp_dim=32),
        lambda: AffinePredictor(16, rank=8),
    ],
    ids=["history 3", "history 1", "history 9", "prefix", "affine"],
)
def test_a_graphs_futures_are_those_of_the_rollout(predictor: Any, tmp_path: Path) -> None:
    """futures-H.onnx equals `WorldModel.rollout` within 1e-4 for any number of plans."""
    like = presets.small(4, image_size=32, dim=16)
    model = lively(WorldModel(like.encoder, like.action_encoder, predictor()))
    probe = Head(16, 2).requires_grad_(False).eval()
    write_graphs(model, probe, tmp_path, [5])
    session = onnxruntime.InferenceSession(tmp_path / "futures-5.onnx")
    for S in (1, 13, 64):
        z, actions = torch.randn(1, 16), torch.randn(S, 5, 4)
        with torch.no_grad():
            expected = model.rollout(z[None].expand(S, -1, -1), actions)
        futures, places = session.run(None, {"z": z.numpy(), "actions": actions.numpy()})
        assert np.abs(futures - expected.numpy()).max() < 1e-4
        assert np.abs(places - probe(expected).numpy()).max() < 1e-4


def test_an_encoders_graph_reads_frames_as_torch_does(tmp_path: Path) -> None:
    """encoder.onnx equals `WorldModel.encode` within 1e-4 for any number of frames."""
    model, probe = (
        lively(presets.small(4, image_size=32, dim=16)),
        Head(16, 3).requires_grad_(False).eval(),
    )
    write_graphs(model, probe, tmp_path, [])
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for N in (1, 9):
        frames = torch.randint(0, 256, (N, 3, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            expected = model.encode(frames[:, None])[:, 0]
        z, places = session.run(None, {"frames": frames.numpy()})
        assert np.abs(z - expected.numpy()).max() < 1e-4
        assert np.abs(places - probe(expected).numpy()).max() < 1e-4


def test_a_collapsed_model_is_written_too(tmp_path: Path) -> None:
    """Where all embeddings are nearly one, the probe divides rounding errors by a tiny spread."""
    model, probe = presets.small(4, image_size=32, dim=16).eval(), Head(16, 2)
    frames = torch.randint(0, 256, (64, 1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        model.encoder.embed.weight *= 1e-4
        z = model.encode(frames)[:, 0]
        probe.centre.copy_(z.mean(0))
        probe.spread.copy_(z.std(0))
    write_graphs(model, probe.requires_grad_(False).eval(), tmp_path, [3])
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_holds_the_page_both_models_and_the_runtime(site: Path) -> None:
    """Everything that the page asks for lies beside it."""
    told = json.loads((site / "view.json").read_text())
    assert [model["folder"] for model in told["models"]] == ["model", "without"]
    for model in told["models"]:
        names = ["encoder.onnx", *(f"futures-{H}.onnx" for H in told["horizons"])]
        assert all((site / model["folder"] / name).is_file() for name in names)
        assert model["python"]["of"] == len(told["world"]["pairs"]["starts"]) == 3
    assert told["world"]["kind"] == "maze"
    numbers = {int(start[2]) for start in told["world"]["pairs"]["starts"]}
    assert numbers <= {int(n) for n in told["world"]["layouts"]}
    assert all((site / told["runtime"]["at"] / name).is_file() for name in FILES)
    assert (site / "index.html").is_file()


def test_a_page_is_replaced_and_a_strangers_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run replaces the first one's page; any other folder is left alone."""
    # The folders count here: without graphs of futures a page takes a second.
    monkeypatch.setattr("worldmodel.apps.view.command._HORIZONS", [])
    run, rt = save_untrained(tmp_path / "run"), str(runtime(tmp_path / "rt"))
    words = ("--pairs", "0", "--runtime", rt)
    (tmp_path / "index.html").write_text("of the folder around it")
    assert view(run, tmp_path / "site", *words) == 0
    assert (tmp_path / "index.html").read_text() == "of the folder around it"
    assert view(run, run / "view", *words) == 0
    assert "./view/index.html" in (run / "index.html").read_text()
    (tmp_path / "site" / "old.txt").write_text("of the first page")
    assert view(run, tmp_path / "site", *words) == 0
    assert not (tmp_path / "site" / "old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert view(run, tmp_path / "mine", *words) == 2
    assert "--out must be new" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "mine", "rt", "run", "site"]


def test_a_run_that_sees_no_picture_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of states has no page, and the error says so."""
    scale = ActionScale(torch.zeros(2), torch.ones(2))
    save_run(
        presets.states(10, state_dim=4).eval(), tmp_path / "run", scale=scale, frameskip=5,
        world="two-room", trained_on=[], held_out=[], settings={},
    )  # fmt: skip
    assert view(tmp_path / "run", tmp_path / "site") == 2
    assert "must encode one picture, it has a StateEncoder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_end_well_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A taken port, a file as the folder and a mistyped run cost no minutes and leave nothing."""
    run, mine = save_untrained(tmp_path / "run"), tmp_path / "mine.txt"
    mine.write_text("years of work")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as other:
        port = str(other.server_address[1])
        assert main(["view", str(run), "--out", str(tmp_path / "site"), "--port", port]) == 2
    assert f"--port must be free, got {port}" in capsys.readouterr().err
    assert view(run, mine) == 2
    assert "--out must be a folder, got the file" in capsys.readouterr().err
    assert main(["view", "nosuch", "--no-serve"]) == 2
    assert "must be a folder or an owner/name of the hub, got nosuch" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt", "run"]
    assert mine.read_text() == "years of work"


def test_of_a_data_set_the_page_gets_recorded_episodes(tmp_path: Path) -> None:
    """Frames of the strips are those of the file, byte for byte, with raw actions between them."""
    from PIL import Image

    from worldmodel.data import open_hdf5

    data = tmp_path / "rooms.h5"
    words = ["--episodes", "12", "--length", "30", "--size", "32", "--out", str(data)]
    assert main(["data", "collect", "--env", "two-room", *words]) == 0
    run = save_untrained(tmp_path / "run")
    rt = str(runtime(tmp_path / "rt"))
    assert view(run, tmp_path / "site", "--data", str(data), "--runtime", rt) == 0
    told = json.loads((tmp_path / "site" / "view.json").read_text())
    assert told["world"]["kind"] == "recorded"
    shown, recorded = told["episodes"], open_hdf5(str(data))
    strip = np.asarray(Image.open(tmp_path / "site" / "episode-0.png"))
    first = strip.reshape(32, shown["frames"], 32, 3)[:, 0].transpose(2, 0, 1)
    rows = [int(row) for row in recorded.offsets]
    every = recorded.frames[torch.tensor(rows)].numpy()
    (which,) = np.flatnonzero((every == first).all((1, 2, 3)))
    raw = recorded.actions[rows[which] : rows[which] + len(shown["raw"][0])]
    assert np.allclose(raw.numpy(), shown["raw"][0])


def test_a_runtime_must_have_its_files_and_npm_must_bring_the_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without the files, and a package with another hash, are refused."""
    with pytest.raises(FileNotFoundError, match="--runtime must be a folder with"):
        find_runtime(tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho other > onnxruntime-web.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"must give onnxruntime-web .* with the known hash"):
        find_runtime(None)
    npm.write_text("#!/bin/sh\nexit 1\n")
    assert find_runtime(None) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_runtime(None) is None


def test_the_server_speaks_to_this_machine_and_allows_threads(site: Path) -> None:
    """Files come with their types and the headers of an isolated page."""
    handler = partial(_Handler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        kinds = {"main.js": "text/javascript", f"runtime/{list(FILES)[1]}": "application/wasm"}
        for name, kind in kinds.items():
            with urllib.request.urlopen(f"{base}/{name}") as answer:
                assert answer.headers["Content-Type"].split(";")[0] == kind
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        server.shutdown()


def test_nothing_of_the_page_names_another_host() -> None:
    """Scripts and styles of the page are its own: no address but the runtime's, told by Python."""
    page = resources.files("worldmodel.apps.view") / "page"
    files = [file for file in page.iterdir() if file.name.endswith((".js", ".html", ".css"))]
    assert len(files) > 8
    for file in files:
        assert re.search("https?://", file.read_text()) is None, file.name
