"""DINO-WM's predictor and rollout; its encoder with small random weights read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodel import (
    ActionEncoder,
    DinoPatches,
    PatchPredictor,
    WorldModel,
    goal_cost,
    jepa_loss,
    load,
    presets,
    save,
)
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import Training
from worldmodel.contract import plain_rollout
from worldmodel.data import Windows

TINY: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip


def predictor(**changes: Any) -> PatchPredictor:
    """Four patches of six dims, history 3."""
    sizes: dict[str, Any] = {
        "token_dim": 6, "tokens": 4, "action_width": 3, "depth": 2, "heads": 2, "history": 3,
        "dim_head": 4, "mlp_dim": 16,
    }  # fmt: skip
    return PatchPredictor(**(sizes | changes)).eval()


def step_by_step(model: PatchPredictor, z: Any, actions: Any, steps: int) -> Any:
    """The window through `forward` at every step, as WorldModel.rollout does."""
    for end in range(z.shape[1], z.shape[1] + steps):
        first = max(0, end - model.history)
        following = model(z[:, first:end], actions[:, first:end])[:, -1:]
        z = torch.cat([z, following], dim=1)
    return z[:, -steps:]


def test_predictions_are_causal() -> None:
    """A later frame or action leaves earlier predictions bit-identical, and changes its own."""
    model = predictor()
    z, a = torch.randn(2, 3, 24), torch.randn(2, 3, 3)
    before = model(z, a)
    later_z, later_a = z.clone(), a.clone()
    later_z[:, 2] += 1
    later_a[:, 2] += 1
    after = model(later_z, later_a)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_every_patch_sees_every_patch_of_its_past() -> None:
    """One patch of the first frame moves every patch predicted from it and later."""
    model = predictor()
    z, a = torch.randn(1, 2, 24), torch.randn(1, 2, 3)
    other = z.clone()
    other[:, 0, :6] += 1
    moved = (model(z, a) - model(other, a)).abs().unflatten(-1, (4, 6)).amax(-1)
    assert (moved > 0).all()


def test_without_places_patches_may_be_exchanged() -> None:
    """With equal positions, permuted patches give permuted predictions."""
    model = predictor()
    with torch.no_grad():
        model.positions.copy_(model.positions[:, :1].expand(-1, 4, -1))
    z, a, order = torch.randn(2, 3, 24), torch.randn(2, 3, 3), torch.tensor([2, 0, 3, 1])
    turned = z.unflatten(-1, (4, 6))[:, :, order].flatten(2)
    wanted = model(z, a).unflatten(-1, (4, 6))[:, :, order].flatten(2)
    torch.testing.assert_close(model(turned, a), wanted)


@pytest.mark.parametrize("known", [1, 2, 4])
def test_the_rollout_of_plans_equals_the_plain_one(known: int) -> None:
    """Kept keys and values give the plain rollout, at any history, rows and number of plans."""
    model = predictor()
    z, past, plans = (
        torch.randn(2, known, 24),
        torch.randn(2, known - 1, 3),
        torch.randn(2, 5, 6, 3),
    )
    with torch.no_grad():
        found = plain_rollout(model, rows=3)(z, past, plans)
        for b in range(2):
            for s in range(5):
                actions = torch.cat([past[b], plans[b, s]])[None]
                wanted = step_by_step(model, z[b : b + 1], actions, 6)
                torch.testing.assert_close(found[b, s : s + 1], wanted, rtol=1e-4, atol=1e-5)


def test_the_published_predictor_has_its_size() -> None:
    """Six blocks 394 wide: attention 4 · 394 · 1024 and an MLP of 2048 make 19.6 million."""
    model = PatchPredictor()
    attention = 3 * 394 * 1024 + 1024 * 394 + 394
    mlp = 394 * 2048 + 2048 + 2048 * 394 + 394
    block = attention + mlp + 4 * 394
    assert sum(p.numel() for p in model.parameters()) == 6 * block + 3 * 196 * 394 + 2 * 394


def test_widths_that_differ_are_named() -> None:
    """Patches, actions and history must fit."""
    model = predictor()
    with pytest.raises(ValueError, match=r"embeddings must be .*\[B, T, 24\], got .*\[1, 2, 23\]"):
        model(torch.zeros(1, 2, 23), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="between 1 and history 3, got 4"):
        model(torch.zeros(1, 4, 24), torch.zeros(1, 4, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny DINOv2 with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="sigreg[dino] is not installed")
    torch.manual_seed(3)
    transformers.Dinov2Model(transformers.Dinov2Config(**TINY)).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_weights_are_those_of_the_folder(folder: Path) -> None:
    """Patch tokens equal those of transformers' own model on the same normalised pixels."""
    import transformers

    encoder = DinoPatches.from_folder(folder, image_size=28)
    own = transformers.Dinov2Model.from_pretrained(folder).eval()
    frames = torch.randint(256, (2, 3, 3, 28, 28), dtype=torch.uint8)
    found = encoder(frames)
    assert found.shape == (2, 3, 4 * 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (frames[0] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        wanted = own(pixel_values=pixels).last_hidden_state[:, 1:].flatten(1)
    torch.testing.assert_close(found[0], wanted)


def test_other_sizes_are_resized_and_positions_follow(folder: Path) -> None:
    """Frames of any size become patches of the asked size, beyond the one it was trained at."""
    encoder = DinoPatches.from_folder(folder, image_size=42)
    assert encoder.tokens == 9
    assert encoder(torch.rand(1, 1, 3, 64, 64)).shape == (1, 1, 9 * 16)


def test_it_trains_plans_and_survives_the_disk(
    folder: Path, tmp_path: Path, two_room_windows: Callable[[int], Windows]
) -> None:
    """Steps on the built-in world lower the error; encoder and saved plans stay as they were."""
    encoder = DinoPatches.from_folder(folder, image_size=28)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    torch.manual_seed(0)
    small = predictor(token_dim=16, tokens=4, action_width=10, mlp_dim=32, dropout=0.0)
    model = WorldModel(encoder, ActionEncoder(10, 10), small.train())
    config = Recipe(steps=25, batch_size=16, learning_rate=3e-3, weight=0.0, num_proj=8)
    errors: list[float] = []
    training = Training(model, two_room_windows(28), config, objective=jepa_loss,
                        regularizer=NoTerms())  # fmt: skip
    errors += [float(losses.prediction) for losses in training.run()]
    assert sum(errors[-5:]) < 0.8 * sum(errors[:5])
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    assert not model.encoder.training

    model.eval()
    frames, goal = torch.rand(2, 1, 3, 28, 28), torch.rand(2, 3, 28, 28)
    plans = torch.randn(2, 4, 3, 10, requires_grad=True)
    cost = goal_cost(model, frames, goal)(plans)
    with torch.no_grad():
        z, z_goal = model.encode(frames), model.encode(goal[:, None])
        ends = model.rollout(z.repeat_interleave(4, 0), plans.flatten(0, 1))[:, -1]
        wanted = (ends.unflatten(0, (2, 4)) - z_goal).square().sum(-1)
    torch.testing.assert_close(cost, wanted, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(cost.sum(), plans)
    assert (gradient.abs().sum((-1, -2)) > 0).all()
    save(model, tmp_path / "run")
    again = goal_cost(load(tmp_path / "run"), frames, goal)(plans)
    torch.testing.assert_close(again, cost)


class NoTerms(torch.nn.Module):
    """Regularizes nothing: a frozen encoder cannot collapse."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(())


def test_the_preset_puts_the_published_predictor_behind_the_encoder(folder: Path) -> None:
    """`presets.dino_wm` fits its predictor to the encoder's patches."""
    model = presets.dino_wm(DinoPatches.from_folder(folder, image_size=28), 10)
    assert model.predictor.config["tokens"] == 4
    assert model.predictor.config["depth"] == 6
    with pytest.raises(ValueError, match=r"dim 10, the predictor\'s action_width, got 7"):
        WorldModel(model.encoder, ActionEncoder(10, 7), model.predictor)


def test_folders_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    """A missing file, another architecture and missing weights are each named."""
    import json

    from safetensors.torch import load_file, save_file

    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        DinoPatches.from_folder(tmp_path / "nowhere")
    weights = folder / "model.safetensors"
    state = load_file(weights)
    state.pop("layernorm.weight")
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors: layernorm\.weight"):
        DinoPatches.from_folder(folder, image_size=28)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(ValueError, match="must hold a dinov2 model, got vit"):
        DinoPatches.from_folder(folder)
