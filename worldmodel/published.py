"""Load the released LeWM weights into our own parts.

`config.json` of a released folder names classes of other packages. Neither they nor Hydra are
needed: names are compared, never imported, and `weights.pt` is read as tensors only.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.checkpoint import check_tensors, existing
from worldmodel.encoder import ActionEncoder, ViTEncoder
from worldmodel.model import WorldModel
from worldmodel.predictor import CausalPredictor
from worldmodel.records import Device, Folder

__all__ = ["from_published"]

# Width, blocks and heads by name, as stable_pretraining's vit_hf reads them.
_VIT = {
    "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}  # fmt: skip

# Names inside an encoder block, as transformers up to 5.8 called it, then as it does since.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_OLD_BLOCK = re.compile(r"encoder\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")

# Ours, then theirs. The released models keep q, k and v of the encoder apart and the mix of actions
# as a convolution of width one; all else differs in name only. Their 303 tensors fill 255 of ours.
_IN_ENCODER_BLOCK = {
    "norm1": ("layernorm_before",), "norm2": ("layernorm_after",),
    "attention.to_qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.to_out": ("attention.o_proj",), "mlp.0": ("mlp.fc1",), "mlp.3": ("mlp.fc2",),
}  # fmt: skip
_IN_PREDICTOR_BLOCK = {
    "norm1": ("attn.norm",), "norm2": ("mlp.net.0",), "attention.to_qkv": ("attn.to_qkv",),
    "attention.to_out": ("attn.to_out.0",), "mlp.0": ("mlp.net.1",), "mlp.3": ("mlp.net.4",),
    "modulation": ("adaLN_modulation.1",),
}  # fmt: skip
_IN_HEAD = {"expand": "net.0", "norm": "net.1", "contract": "net.3"}
_ELSEWHERE = {
    "encoder.cls_token": "encoder.embeddings.cls_token",
    "encoder.positions": "encoder.embeddings.position_embeddings",
    "encoder.patches": "encoder.embeddings.patch_embeddings.projection",
    "encoder.norm": "encoder.layernorm",
    "predictor.positions": "predictor.pos_embedding",
    "predictor.norm": "predictor.transformer.norm",
    "action_encoder.mix": "action_encoder.patch_embed",
    "action_encoder.expand": "action_encoder.embed.0",
    "action_encoder.contract": "action_encoder.embed.2",
    **{f"encoder.projector.{ours}": f"projector.{theirs}" for ours, theirs in _IN_HEAD.items()},
    **{f"predictor.projector.{ours}": f"pred_proj.{theirs}" for ours, theirs in _IN_HEAD.items()},
}
_CONVOLUTION = "action_encoder.mix.weight"


@checked()
def from_published(folder: Folder, map_location: Device = "cpu") -> WorldModel:
    """Read a released LeWM folder: `weights.pt` and `config.json`.

    It understands both generations of encoder keys (transformers up to 5.8, and later) and is
    strict by name and shape. Outputs are the official model's to 1e-5, with these conventions:

    - Frames are uint8 or in 0…1; the official data pipeline's ImageNet normalisation is inside.
    - `rollout` returns predictions only, without the known embeddings in front.
    - Actions are standardised per raw dim, by statistics that only the data set holds.

    Args:
        folder: of the two files; or one `.pt` file beside its `config.json`.
        map_location: device of the result.
    Returns: a WorldModel in evaluation mode, float32.
    Raises: FileNotFoundError or ValueError, naming the file at fault. A file that holds anything
        but tensors is refused without running it, `*_object.ckpt` already by its name.
    Source: LeWM, arXiv:2603.19312, released weights and configuration.
    """
    weights, config = _locate(Path(folder))
    state = _read_state(weights)
    with torch.random.fork_rng(devices=[]):
        model = _build(config)
    ours = _views(model.state_dict())
    theirs = {_modern(name): value for name, value in state.items()}
    if len(theirs) != len(state):
        raise ValueError(f"{weights} holds tensors under both generations of names")
    check_tensors(theirs, {name: view.shape for name, view in ours.items()}, weights)
    for name, view in ours.items():
        view.copy_(theirs[name])
    return model.eval().to(map_location)


def _locate(path: Path) -> tuple[Path, Path]:
    found = sorted(path.glob("*.pt"))
    objects = [path] if path.suffix == ".ckpt" else [] if found else sorted(path.glob("*.ckpt"))
    if objects:
        raise ValueError(
            f"{objects[0]} is a pickled Python object: loading it would run its code and needs "
            "its classes. Use the released weights.pt with its config.json, or write them where "
            "the object was made: torch.save(model.state_dict(), 'weights.pt')"
        )
    weights = path if path.suffix == ".pt" else path / "weights.pt"
    if len(found) > 1 and weights not in found:
        raise ValueError(f"{path} holds {len(found)} .pt files; name the one to read")
    weights = found[0] if len(found) == 1 else weights
    return existing(weights.parent, weights.name), existing(weights.parent, "config.json")


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: tensors and plain containers; anything else raises.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        reason = f"is damaged, and was not read: {error}".partition("\n")[0]
        raise ValueError(f"{path} holds more than tensors, or {reason}") from error
    except Exception as error:
        # Damaged bytes raise IndexError, struct.error, AssertionError and more.
        raise ValueError(f"{path} is damaged or no state dict: {error!r}") from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise ValueError(f"{path} must hold a state dict, names to tensors, nothing else")
    return state


def _modern(name: str) -> str:
    """A released name of either generation, in the later spelling."""
    match = _OLD_BLOCK.fullmatch(name)
    if match is None:
        return name
    block, part, leaf = match.groups()
    return f"encoder.layers.{block}.{_RENAMED.get(part, part)}.{leaf}"


def _theirs(name: str) -> list[str]:
    """The released names of one of ours: one, or q, k and v in this order."""
    front, _, leaf = name.rpartition(".")
    if found := _ELSEWHERE.get(name) or _ELSEWHERE.get(front):
        return [found if name in _ELSEWHERE else f"{found}.{leaf}"]
    side, _, block, part = front.split(".", 3)
    if side == "encoder":
        return [f"encoder.layers.{block}.{p}.{leaf}" for p in _IN_ENCODER_BLOCK[part]]
    return [f"predictor.transformer.layers.{block}.{p}.{leaf}" for p in _IN_PREDICTOR_BLOCK[part]]


def _views(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's own tensors by their released names, in the released layout."""
    views: dict[str, Tensor] = {}
    for name, value in own.items():
        theirs, whole = _theirs(name), value.unsqueeze(-1) if name == _CONVOLUTION else value
        parts = whole.chunk(len(theirs)) if len(theirs) > 1 else (whole,)
        views.update(zip(theirs, parts, strict=True))
    return views


class _Section:
    """A section of the configuration; every entry must be read, so that none is ignored."""

    def __init__(self, where: str, values: Any, *targets: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise ValueError(f"{where} must be a section with a _target_, got {values!r}")
        self.rest = dict(values)
        target = self.rest.pop("_target_", None)
        if not isinstance(target, str) or target.rpartition(".")[2] not in targets:
            raise ValueError(f"{where} must have a _target_ {targets[0]}, got {target!r}")

    def number(self, key: str, default: int | None = None) -> int:
        value = self.rest.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.where} must give {key} as a positive integer, got {value!r}")
        return value

    def fixed(self, **entries: Any) -> None:
        for key, wanted in entries.items():
            if (value := self.rest.pop(key, wanted)) != wanted:
                raise ValueError(f"{self.where} must have {key} {wanted!r}, got {value!r}")

    def end(self) -> None:
        if self.rest:
            raise ValueError(f"{self.where} has entries that LeWM does not know: {self.rest}")


def _build(path: Path) -> WorldModel:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    root = _Section(str(path), text, "LeWM", "JEPA")

    def section(name: str, *targets: str) -> _Section:
        return _Section(f"{path}: {name}", root.rest.pop(name, None), *targets)

    vit = section("encoder", "vit_hf")
    predictor = section("predictor", "Predictor", "ARPredictor")
    action = section("action_encoder", "Embedder")
    projector, pred_proj = section("projector", "MLP"), section("pred_proj", "MLP")
    root.end()
    size = vit.rest.pop("size", "tiny")
    if not isinstance(size, str) or size not in _VIT:
        raise ValueError(f"{vit.where} must have a size of {sorted(_VIT)}, got {size!r}")
    width, depth, heads = _VIT[size]
    vit.fixed(pretrained=False, use_mask_token=False)
    dim = vit.number("hidden_size", width)
    encoder = {
        "image_size": vit.number("image_size", 224),
        "patch_size": vit.number("patch_size", 16),
        "dim": dim,
        "depth": vit.number("num_hidden_layers", depth),
        "heads": vit.number("num_attention_heads", heads),
        "mlp_dim": vit.number("intermediate_size", 4 * width),
        "projector_dim": _projector_width(path, projector, dim),
    }
    predictor.fixed(input_dim=dim, hidden_dim=dim, output_dim=dim, emb_dropout=0.0)
    dropout = predictor.rest.pop("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"{predictor.where} must have dropout in [0, 1), got {dropout!r}")
    steered: dict[str, Any] = {
        "dim": dim,
        "depth": predictor.number("depth"),
        "heads": predictor.number("heads"),
        "history": predictor.number("num_frames"),
        "dim_head": predictor.number("dim_head", 64),
        "mlp_dim": predictor.number("mlp_dim"),
        "dropout": dropout,
        "projector_dim": _projector_width(path, pred_proj, dim),
    }
    width = action.number("emb_dim", 10)
    told = {
        "action_dim": action.number("input_dim", 10),
        "dim": width,
        "hidden_dim": action.number("mlp_scale", 4) * width,
        "mix_dim": action.number("smoothed_dim", 10),
    }
    for part in (vit, predictor, action, projector, pred_proj):
        part.end()
    try:
        parts = ViTEncoder(**encoder), ActionEncoder(**told), CausalPredictor(**steered)
        return WorldModel(*parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _projector_width(path: Path, section: _Section, dim: int) -> int:
    if section.rest.get("output_dim") is None:
        section.rest["output_dim"] = dim
    section.fixed(input_dim=dim, output_dim=dim)
    norm = _Section(f"{path}: norm_fn", section.rest.pop("norm_fn", None), "BatchNorm1d")
    norm.fixed(_partial_=True)
    norm.end()
    return section.number("hidden_dim")
