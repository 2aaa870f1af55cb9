"""Released LeWM folders: what the official code computes, and what is refused.

The golden outputs come from the official packages (`nox -s parity`); the weights behind them are a
function of their names, so nothing but outputs is stored.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import worldmodel
from worldmodel import presets
from worldmodel.published import from_published

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}
GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("hashed", GOLDEN / "hashed.py")
assert _spec is not None
assert _spec.loader is not None
hashed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hashed)


def listed(case: str, generation: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict."""
    lines = (GOLDEN / case / f"keys_{generation}.txt").read_text().splitlines()
    rows = (line.split("\t") for line in lines)
    return {name: ast.literal_eval(shape) for name, shape, _ in rows}


def release(
    folder: Path, state: Any, config: Callable[[dict[str, Any]], None] | None = None
) -> Path:
    """A folder as released: a state (or anything) in weights.pt, the reduced config beside it."""
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "weights.pt")
    text = json.loads((GOLDEN / "reduced" / "config.json").read_text())
    if config is not None:
        config(text)
    (folder / "config.json").write_text(json.dumps(text))
    return folder


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The reduced model's tensors under later names."""
    tensors: dict[str, Tensor] = hashed.state_dict(listed("reduced", "new"))
    return tensors


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize("case", ["lewm", "reduced"])
def test_outputs_are_the_official_ones(tmp_path: Path, case: str, generation: str) -> None:
    """encode, predict and rollout give what the official model gives, to 1e-5, under both names."""
    config = json.loads((GOLDEN / case / "config.json").read_text())
    torch.save(hashed.state_dict(listed(case, generation)), tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    golden = load_file(GOLDEN / case / f"outputs_{generation}.safetensors")
    windows, plans, steps, _ = golden["rolled"].shape
    history = config["predictor"]["num_frames"]
    frames = hashed.frames(windows, history, config["encoder"]["image_size"])
    width = config["action_encoder"]["input_dim"]
    actions = hashed.actions(windows, plans, history - 1 + steps, width)

    model = from_published(tmp_path)
    with torch.inference_mode():
        z = model.encode(frames)
        predicted = model.predict(z, actions[:, 0, :history])
        faint = model.predict(z / 1000, actions[:, 0, :history])
        rolled = model.rollout(z.repeat_interleave(plans, 0), actions.flatten(0, 1))

    torch.testing.assert_close(z, golden["z"], **CLOSE)
    torch.testing.assert_close(predicted, golden["predicted"], **CLOSE)
    torch.testing.assert_close(faint, golden["faint"], **CLOSE)
    torch.testing.assert_close(rolled.unflatten(0, (windows, plans)), golden["rolled"], **CLOSE)
    assert not model.training


def test_the_released_models_have_303_tensors_of_18034478_parameters() -> None:
    """The listing, our preset and the published counts agree, Cube's 25 actions included."""
    for generation in ("old", "new"):
        names = listed("lewm", generation)
        assert len(names) == 303
        counted = sum(
            torch.Size(shape).numel()
            for name, shape in names.items()
            if "running_" not in name and "num_batches" not in name
        )
        assert counted == 18_034_478
    for action_dim, parameters in ((10, 18_034_478), (25, 18_034_628)):
        with torch.device("meta"):
            model = presets.lewm(action_dim)
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_a_converted_folder_is_the_same_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Saving what was read and loading it again changes no bit."""
    model = from_published(release(tmp_path / "released", state))
    worldmodel.save(model, tmp_path / "run")
    again = worldmodel.load(tmp_path / "run")
    frames = hashed.frames(1, 2, 28)
    assert torch.equal(model.encode(frames), again.encode(frames))


def test_dropout_is_that_of_the_configuration(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Training that goes on from released weights drops as many values as it did before."""

    def more(config: dict[str, Any]) -> None:
        config["predictor"]["dropout"] = 0.35

    model = from_published(release(tmp_path, state, more))
    rates = {m.p for m in model.predictor.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.35}


def test_older_class_names_mean_the_same_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """The repository's own class names and the platform's describe one architecture."""

    def older(config: dict[str, Any]) -> None:
        config["_target_"] = "jepa.JEPA"
        config["predictor"]["_target_"] = "module.ARPredictor"
        config["action_encoder"]["_target_"] = "module.Embedder"

    first = from_published(release(tmp_path / "a", state))
    second = from_published(release(tmp_path / "b", state, older))
    assert all(
        torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_reading_leaves_the_random_state_alone(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Numbers drawn after reading are those that would have been drawn without it."""
    folder = release(tmp_path, state)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(5)
    from_published(folder)
    assert torch.equal(torch.rand(3), expected)


class Trap:
    """Unpickled, it makes a file: what an attacker would do worse."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("disguise", ["entry", "whole", "plain pickle"])
def test_a_hostile_pickle_is_refused_without_running(
    tmp_path: Path, state: dict[str, Tensor], disguise: str
) -> None:
    """Code hidden in weights.pt raises ValueError and never runs."""
    sprung = tmp_path / "sprung"
    trap = Trap(sprung)
    folder = release(tmp_path, {**state, "pred_proj.net.3.bias": trap})
    if disguise == "whole":
        torch.save(trap, folder / "weights.pt")
    elif disguise == "plain pickle":
        (folder / "weights.pt").write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(ValueError, match=r"weights\.pt holds more than tensors"):
        from_published(folder)
    assert not sprung.exists()


def test_an_object_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    """`*_object.ckpt` is refused by its name, with the way out in the message."""
    sprung = tmp_path / "sprung"
    file = tmp_path / "lewm_object.ckpt"
    file.write_bytes(pickle.dumps(Trap(sprung)))
    for given in (tmp_path, file):
        with pytest.raises(ValueError, match=r"lewm_object\.ckpt is a pickled.*weights\.pt"):
            from_published(given)
    assert not sprung.exists()


def test_a_named_file_is_read_beside_its_config(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """One .pt of several is chosen by naming it; the folder alone is ambiguous."""
    folder = release(tmp_path, state)
    (folder / "weights.pt").rename(folder / "weights_epoch_1.pt")
    assert not from_published(folder).training
    torch.save({}, folder / "weights_epoch_2.pt")
    assert not from_published(folder / "weights_epoch_1.pt").training
    with pytest.raises(ValueError, match=r"2 \.pt files; name the one"):
        from_published(folder)


BLOCK = "encoder.layers.1."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop(BLOCK + "attention.k_proj.bias"),
            r"weights\.pt lacks 1 of 91 tensors: encoder\.layers\.1\.attention\.k_proj\.bias",
        ),
        (lambda s: s.update(more=torch.ones(1)), r"1 tensors too many: more"),
        (
            lambda s: s.update({BLOCK + "attention.k_proj.bias": torch.ones(47)}),
            r"another width .*k_proj\.bias must be \[48\], got \[47\]",
        ),
        (
            lambda s: s.update({"action_encoder.patch_embed.weight": torch.ones(10, 25)}),
            r"patch_embed\.weight must be \[10, 25, 1\], got \[10, 25\]",
        ),
        (
            lambda s: s.update(
                {"encoder.encoder.layer.0.output.dense.bias": s["encoder.layers.0.mlp.fc2.bias"]}
            ),
            r"both generations of names",
        ),
        (lambda s: s.update({"pred_proj.net.3.bias": [1.0]}), r"names to tensors, nothing else"),
        (lambda s: s.update({7: torch.ones(1)}), r"names to tensors, nothing else"),
    ],
)
def test_strict_by_name_and_shape(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[Any], Any], message: str
) -> None:
    """A tensor missing, too many, of another shape or no tensor at all is named and refused."""
    changed = dict(state)
    change(changed)
    with pytest.raises(ValueError, match=message):
        from_published(release(tmp_path, changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(_target_="os.system"), r"_target_ LeWM, got 'os\.system'"),
        (lambda c: c["encoder"].update(_target_="timm.create_model"), r"encoder must have"),
        (lambda c: c["encoder"].update(size="tremendous"), r"size of .*'tiny'.*got 'tremendous'"),
        (lambda c: c["encoder"].update(hidden_act="relu"), r"does not know: \{'hidden_act'"),
        (lambda c: c["encoder"].update(pretrained=True), r"pretrained False, got True"),
        (lambda c: c["encoder"].update(image_size=30), r"multiple of patch_size 14, got 30"),
        (lambda c: c["encoder"].update(num_hidden_layers=3), r"lacks 16 of 107 tensors"),
        (lambda c: c["predictor"].update(hidden_dim=64), r"hidden_dim 48, got 64"),
        (lambda c: c["predictor"].update(depth="2"), r"depth as a positive integer, got '2'"),
        (lambda c: c["predictor"].update(dropout=1), r"dropout in \[0, 1\), got 1"),
        (lambda c: c["predictor"].update(emb_dropout=0.1), r"emb_dropout 0\.0, got 0\.1"),
        (lambda c: c["predictor"].update(num_frames=3), r"another width .*pos_embedding"),
        (lambda c: c["action_encoder"].update(emb_dim=64), r"action_encoder must have dim 48"),
        (lambda c: c["pred_proj"].pop("norm_fn"), r"norm_fn must be a section"),
        (lambda c: c.pop("projector"), r"projector must be a section"),
        (lambda c: c.update(extra=1), r"does not know: \{'extra': 1\}"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[Any], Any], message: str
) -> None:
    """An entry that would change the mathematics is refused and named, never ignored."""
    with pytest.raises(ValueError, match=message):
        from_published(release(tmp_path, state, change))


def test_damaged_and_missing_files_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """Each file at fault stands in the message: absent, cut short, or not JSON."""
    folder = release(tmp_path / "released", state)
    weights = (folder / "weights.pt").read_bytes()
    for content in (b"", b"hello", weights[: len(weights) // 2]):
        (folder / "weights.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pt"):
            from_published(folder)
    (folder / "weights.pt").write_bytes(weights)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        from_published(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        from_published(folder)
    (folder / "weights.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.pt is missing"):
        from_published(folder)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        from_published(tmp_path / "nowhere")


def test_a_released_folder_is_opened_like_a_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """With the data set it learned from it has scale and frameskip; without, the error says so."""
    from worldmodel.apps.runs import open_run
    from worldmodel.data import HDF5Writer

    folder = release(tmp_path / "released", state)
    width = json.loads((folder / "config.json").read_text())["action_encoder"]["input_dim"]
    actions = torch.arange(6.0).reshape(3, 2).repeat(1, 1).numpy()
    for dims in (1, width + 1):
        with HDF5Writer(tmp_path / f"{dims}.h5") as writer:
            frames = torch.zeros(4, 3, 8, 8, dtype=torch.uint8).numpy()
            writer.write(frames, actions[:, :1].repeat(dims, axis=1), None)
    with pytest.raises(ValueError, match="name its training data with --data"):
        open_run(folder)
    with pytest.raises(ValueError, match=f"width divides {width}, got {width + 1}"):
        open_run(folder, data=str(tmp_path / f"{width + 1}.h5"))
    run = open_run(folder, data=str(tmp_path / "1.h5"))
    assert (run.frameskip, run.world, run.trained_on) == (width, None, frozenset())
    assert run.scale.mean.tolist() == [2.0]
    assert not run.model.training
