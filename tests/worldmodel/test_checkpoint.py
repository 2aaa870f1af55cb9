"""A run folder: what goes in comes out bit for bit, and every damage is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import worldmodel
from worldmodel import (
    GCBC,
    ActionEncoder,
    CausalPredictor,
    ConvEncoder,
    ViTEncoder,
    WorldModel,
    presets,
)
from worldmodel.checkpoint import digest
from worldmodel.data import ActionScale


def tiny(dim: int = 16) -> WorldModel:
    """A model of a few thousand values, its batch statistics off their defaults."""
    model = WorldModel(
        encoder=ViTEncoder(image_size=8, patch_size=4, dim=dim, depth=1, heads=2, projector_dim=24),
        action_encoder=ActionEncoder(action_dim=4, dim=dim, mix_dim=3),
        predictor=CausalPredictor(
            dim=dim, depth=1, heads=2, dim_head=4, mlp_dim=16, dropout=0.2, projector_dim=24
        ),
    )
    model.encode(torch.rand(4, 2, 3, 8, 8))
    return model


MODEL = tiny()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A saved tiny model."""
    worldmodel.save(tiny(), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("make", [tiny, presets.small])
def test_what_was_saved_is_loaded_bit_for_bit(
    tmp_path: Path, make: Callable[[], WorldModel]
) -> None:
    """Every parameter and buffer, and every output, survives the disk unchanged."""
    model = make()
    worldmodel.save(model, tmp_path)
    again = worldmodel.load(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    for part in ("encoder", "action_encoder", "predictor"):
        assert getattr(again, part).config == getattr(model, part).config
    side = model.encoder.image_size
    frames = torch.rand(1, 2, 3, side, side)
    assert torch.equal(model.eval().encode(frames), again.encode(frames))
    assert digest(again) == digest(model)


def test_a_cloned_policy_is_kept_too_and_read_by_its_own_name(tmp_path: Path, run: Path) -> None:
    """Same decisions after the disk; each reader refuses what the other one reads."""
    parts = presets.small(6, image_size=16, dim=8)
    policy = GCBC(parts.encoder, parts.predictor, action_dim=6).eval()  # type: ignore[arg-type]
    worldmodel.save(policy, tmp_path / "policy", extra={"objective": "gcbc"})
    again = worldmodel.load_policy(tmp_path / "policy")
    frames, goal = torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert torch.equal(again.act(frames, goal), policy.act(frames, goal))
    config = worldmodel.read_config(tmp_path / "policy")
    assert (config.kind, config.arguments) == ("GCBC", {"action_dim": 6})
    with pytest.raises(ValueError, match=r"holds a GCBC, not a WorldModel; worldmodel.load_policy"):
        worldmodel.load(tmp_path / "policy")
    with pytest.raises(ValueError, match=r"holds a WorldModel, not a GCBC; worldmodel.load reads"):
        worldmodel.load_policy(run)
    path = tmp_path / "policy" / "config.json"
    path.write_text(path.read_text().replace('"class": "GCBC"', '"class": "Oracle"'))
    with pytest.raises(ValueError, match="lacks or misstates an entry: KeyError"):
        worldmodel.load_policy(tmp_path / "policy")


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    """Equal weights give equal bytes: nothing in the header is in chance order."""
    for name in ("a", "b"):
        worldmodel.save(MODEL, tmp_path / name)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert one == two
    header = json.loads(one[8 : 8 + int.from_bytes(one[:8], "little")])
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == ["format", "sha256"]


def test_the_digest_tells_models_apart() -> None:
    """One changed bit, or one tensor under another name, gives another digest."""
    model = nn.Linear(3, 2)
    before = digest(model)
    with torch.no_grad():
        model.bias[1] = torch.nextafter(model.bias[1], torch.tensor(9.0))
    assert digest(model) != before
    assert digest(nn.Sequential(model)) != digest(model)


def test_loading_is_for_evaluation_and_leaves_the_random_state_alone(run: Path) -> None:
    """A loaded model has dropout off and batch statistics frozen; no random number is spent."""
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(5)
    model = worldmodel.load(run, torch.device("cpu"))
    assert not any(m.training for m in model.modules())
    assert torch.equal(torch.rand(3), expected)


@given(
    mean=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_action_scale_and_extra_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, mean: list[float], seed: int
) -> None:
    """Statistics survive JSON to the last bit, and so does whatever JSON can hold."""
    folder = tmp_path_factory.mktemp("run")
    std = torch.rand(len(mean), generator=torch.Generator().manual_seed(seed)) + 1e-6
    scale = ActionScale(torch.tensor(mean), std)
    extra = {"steps": seed, "mean": mean, "nested": {"none": None, "text": "ünï"}}
    worldmodel.save(MODEL, folder, action_scale=scale, extra=extra)
    config = worldmodel.read_config(folder)
    assert config.action_scale is not None
    assert torch.equal(config.action_scale.mean, scale.mean)
    assert torch.equal(config.action_scale.std, scale.std)
    assert config.extra == extra
    assert config.parts["predictor"] == ("CausalPredictor", MODEL.predictor.config)


def test_without_action_scale_there_is_none(run: Path) -> None:
    """A model saved without statistics says so, instead of inventing some."""
    assert worldmodel.read_config(run).action_scale is None
    assert worldmodel.read_config(run).extra == {}


def test_your_own_part_needs_its_class_and_nothing_else(tmp_path: Path) -> None:
    """A part of another class is loaded when the class is given, and never imported by name."""

    class Brightness(ViTEncoder):
        pass

    model = tiny()
    own = WorldModel(Brightness(**model.encoder.config), model.action_encoder, model.predictor)  # type: ignore[arg-type]
    worldmodel.save(own, tmp_path)
    assert isinstance(worldmodel.load(tmp_path, classes=(Brightness,)).encoder, Brightness)
    with pytest.raises(ValueError, match=r"config\.json: encoder has class 'Brightness', known"):
        worldmodel.load(tmp_path)


def test_strides_and_half_precision_are_no_obstacle(tmp_path: Path) -> None:
    """channels_last weights are saved in order; bfloat16 weights come back as equal float32."""
    model = presets.small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    worldmodel.save(model, tmp_path)
    assert digest(worldmodel.load(tmp_path)) == digest(model)
    half = presets.small().bfloat16()
    worldmodel.save(half, tmp_path)
    again = worldmodel.load(tmp_path)
    for p, q in zip(again.parameters(), half.parameters(), strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, q.float())


def test_a_wrapped_model_is_refused(tmp_path: Path) -> None:
    """A wrapper, or a part that keeps no arguments, would give a folder nobody can load."""
    with pytest.raises(TypeError, match="must be a WorldModel or a GCBC, got Seq"):
        worldmodel.save(nn.Sequential(tiny()), tmp_path)  # type: ignore[arg-type]
    model = tiny()
    model.encoder = nn.Sequential(model.encoder)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="encoder must keep its constructor arguments"):
        worldmodel.save(model, tmp_path)
    for extra in ({"path": Path()}, {"value": float("nan")}):
        with pytest.raises(TypeError, match="extra must hold JSON values only"):
            worldmodel.save(tiny(), tmp_path, extra=extra)
    assert not list(tmp_path.iterdir())


def test_missing_files_are_named(tmp_path: Path, run: Path) -> None:
    """The folder or the file that is not there stands in the message."""
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        worldmodel.load(tmp_path / "nowhere")
    (run / "model.safetensors").rename(run / "kept")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing$"):
        worldmodel.load(run)
    (run / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing$"):
        worldmodel.load(run)
    (run / "weights.pt").touch()
    with pytest.raises(FileNotFoundError, match="read by from_published"):
        worldmodel.load(run)


@given(data=st.data())
def test_damaged_weights_are_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere or with a bit changed, the file is refused and named, or no value is touched."""
    folder = tmp_path_factory.mktemp("run")
    worldmodel.save(MODEL, folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    again, message = None, ""
    try:
        again = worldmodel.load(folder)
    except ValueError as error:
        message = str(error)
    if again is None:
        assert "model.safetensors" in message
    else:
        # A bit of the header's comments: the digest lost its name, the values are whole.
        assert not cut
        assert digest(again) == digest(MODEL)


def test_weights_rewritten_by_another_tool_are_read(run: Path) -> None:
    """A safetensors file without our digest is as good."""
    state = load_file(run / "model.safetensors")
    save_file(state, run / "model.safetensors")
    assert worldmodel.load(run).predictor.history == 3


def test_weights_of_another_width_are_refused(tmp_path: Path, run: Path) -> None:
    """Weights and configuration of two models do not mix, and the first tensors are named."""
    worldmodel.save(tiny(dim=8), tmp_path / "narrow")
    save_file(load_file(tmp_path / "narrow" / "model.safetensors"), run / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"model\.safetensors holds weights of another width.*16\], got .*8\]"
    ):
        worldmodel.load(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), r"has format 2, newer than 1.*update the library"),
        (lambda c: c.pop("format"), r"no format"),
        (lambda c: c.update(format="1"), r"no format"),
        (lambda c: c.pop("model"), r"lacks or misstates an entry: KeyError\('model'\)"),
        (lambda c: c["model"].pop("encoder"), r"KeyError\('encoder'\)"),
        (lambda c: c["model"].update(encoder=3), r"lacks or misstates"),
        (lambda c: c["model"]["encoder"].update(config=[1]), r"cannot build encoder ViTEncoder"),
        (lambda c: c["model"]["encoder"]["config"].update(deep=2), r"unexpected keyword.*'deep'"),
        (lambda c: c["model"]["encoder"]["config"].update(dim="x"), r"cannot build encoder"),
        (lambda c: c["model"]["encoder"]["config"].update(image_size=9), r"multiple of patch_size"),
        (lambda c: c["model"]["encoder"].update({"class": "os.system"}), r"class 'os\.system'"),
        (lambda c: c["model"]["predictor"]["config"].update(dim=8), r"share one dim"),
        (lambda c: c["model"]["predictor"]["config"].update(depth=2), r"lacks 13 of 71 tensors"),
        (lambda c: c["model"]["predictor"]["config"].update(depth=0), r"depth must be an integer"),
        (lambda c: c["model"]["predictor"]["config"].update(depth=10**9), r"depth must be at most"),
        (lambda c: c["model"]["encoder"]["config"].update(dim=10**7), r"share one dim"),
        (lambda c: c["model"]["action_encoder"]["config"].update(mix_dim=10**9), r"another width"),
        (lambda c: c.update(model=[]), r"lacks or misstates"),
        (lambda c: c.update(action_scale={"mean": [0]}), r"KeyError\('std'\)"),
        (lambda c: c.update(action_scale={"mean": ["a"], "std": [1]}), r"misstates"),
        (lambda c: c.update(extra=None), r"misstates"),
    ],
)
def test_a_config_that_does_not_fit_is_named(
    run: Path, change: Callable[[Any], Any], message: str
) -> None:
    """A newer format, an unknown class, a wrong argument: config.json and the rule are named."""
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"(config\.json|model\.safetensors).*{message}"):
        worldmodel.load(run)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_config_that_is_no_config_is_named(run: Path, content: bytes) -> None:
    """Broken JSON and JSON of another kind are refused with the file's name."""
    (run / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        worldmodel.load(run)


def test_a_failed_save_leaves_the_model_before_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full the old files stay whole, the error names the file, no rest is left."""
    before = digest(worldmodel.load(run))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*model\.safetensors: No space left"):
        worldmodel.save(presets.small(), run)
    assert digest(worldmodel.load(run)) == before
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]


def test_a_killed_save_leaves_the_model_before_it(run: Path) -> None:
    """A process killed in the middle of writing leaves a folder that loads as before."""
    before = digest(worldmodel.load(run))
    code = f"""
        import os, signal, worldmodel
        from worldmodel import presets
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        worldmodel.save(presets.small(), {str(run)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    assert digest(worldmodel.load(run)) == before
    worldmodel.save(MODEL, run)
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]


def test_nothing_is_unpickled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving and loading work with pickle and torch.load out of reach."""

    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.Unpickler", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("torch.load", refuse)
    assert isinstance(worldmodel.load(run).encoder, ViTEncoder)
    assert not isinstance(worldmodel.load(run).encoder, ConvEncoder)


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("end", [Killed, OSError])
def test_weights_and_config_appear_together(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """A save that ends between its two renames is whole: new weights go with new settings."""
    new, scale = tiny(), ActionScale(torch.tensor([1.0]), torch.tensor([2.0]))
    rename = Path.replace

    def once(self: Path, target: Path) -> Path:
        if Path(target).name == "config.json":
            raise end
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", once)
        with pytest.raises(end):
            worldmodel.save(new, run, action_scale=scale, extra={"step": 2})
    assert digest(worldmodel.load(run)) == digest(new)
    config = worldmodel.read_config(run)
    assert config.extra == {"step": 2}
    assert config.action_scale is not None
    # The next save cleans up, and a first save that was killed so is whole too.
    worldmodel.save(new, run)
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", once)
        with pytest.raises(end):
            worldmodel.save(new, tmp_path / "first")
    assert digest(worldmodel.load(tmp_path / "first")) == digest(new)


def test_files_of_two_saves_are_not_mixed(run: Path, tmp_path: Path) -> None:
    """Weights beside the configuration of another save are refused by name."""
    worldmodel.save(tiny(), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(run / "model.safetensors")
    with pytest.raises(ValueError, match=r"config\.json and model\.safetensors .* two different"):
        worldmodel.load(run)


def test_parts_inside_parts_are_kept(tmp_path: Path) -> None:
    """A model of several observations comes back with the encoder of each."""
    sizes = {"pixels": 16, "observation.wrist": (3, 16, 16), "proprio": 5}
    model = presets.small(4, dim=8, observations=sizes).eval()
    worldmodel.save(model, tmp_path)
    seen = {
        "pixels": torch.rand(2, 1, 3, 16, 16),
        "observation.wrist": torch.rand(2, 1, 3, 16, 16),
        "proprio": torch.randn(2, 1, 5),
    }
    assert torch.equal(worldmodel.load(tmp_path).encode(seen), model.encode(seen))
    text = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    inner = text["model"]["encoder"]["config"]["encoders"]
    assert {name: one["class"] for name, one in inner.items()} == {
        "pixels": "ConvEncoder", "observation.wrist": "ConvEncoder", "proprio": "StateEncoder",
    }  # fmt: skip
