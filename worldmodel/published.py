"""The released LeWM weights, read into our own parts.

A released folder holds `weights.pt`, a state dict, and `config.json`, whose Hydra `_target_`
entries name classes of other packages. Neither those packages nor Hydra are needed: the names are
compared, never imported, and the weights are read as tensors only.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldmodel._published_names import modern, released, to_ours
from worldmodel._strict import check_tensors
from worldmodel.encoder import ActionEncoder, FrameEncoder
from worldmodel.model import WorldModel
from worldmodel.predictor import CausalPredictor

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["from_published"]

# Width, blocks and heads by name, as stable_pretraining's vit_hf reads them.
_VIT = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def from_published(
    folder: str | PathLike[str], map_location: str | torch.device = "cpu"
) -> WorldModel:
    """Read a released LeWM folder: `weights.pt` and `config.json`.

    Both generations of encoder keys are understood (transformers up to 5.8, and later), strictly:
    every tensor must be there, none may be left over (303 in the released models), each of the
    shape that the configuration asks for. `encode`, `predict` and `rollout` then give what the
    official model gives to 1e-5, with these conventions:

    - Frames are uint8 or in 0…1; the ImageNet normalisation that the official data pipeline
      applies happens inside `encode`.
    - `rollout(z, actions)` takes the official action sequence and returns its predictions only,
      without the known embeddings in front.
    - Actions are standardised per raw dim. The released folders do not hold the statistics; take
      them from the data set.

    Save the result with `worldmodel.save` and load it from then on with `worldmodel.load`.

    Args:
        folder: where the two files lie; or one `.pt` file beside its `config.json`.
        map_location: device of the result.
    Returns: a WorldModel in evaluation mode, float32.
    Raises: FileNotFoundError or ValueError, naming the file at fault. A file that holds anything
        but tensors is refused without running it, `*_object.ckpt` by its name already.
    Source: LeWM, arXiv:2603.19312, released weights and configuration.
    """
    weights, config = _locate(Path(folder))
    state = _read_state(weights)
    with torch.random.fork_rng(devices=[]):
        model = _build(config)
    _fill(model, state, weights)
    return model.eval().to(map_location)


def _locate(path: Path) -> tuple[Path, Path]:
    if path.suffix == ".ckpt" or (path.is_dir() and not any(path.glob("*.pt"))):
        objects = [path] if path.suffix == ".ckpt" else sorted(path.glob("*.ckpt"))
        if objects:
            raise ValueError(
                f"{objects[0]} is a pickled Python object: reading it runs whatever code it holds, "
                "and needs the very classes it was made from. Use the released weights.pt with its "
                "config.json, or write them where the object was made: "
                "torch.save(model.state_dict(), 'weights.pt')"
            )
    if path.suffix == ".pt":
        weights = path
    else:
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        found = sorted(path.glob("*.pt"))
        weights = path / "weights.pt"
        if weights not in found and len(found) > 1:
            raise ValueError(f"{path} holds {len(found)} .pt files; name the one to read")
        weights = found[0] if len(found) == 1 else weights
    config = weights.parent / "config.json"
    for file in (weights, config):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing")
    return weights, config


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: tensors and plain containers; anything else stops the reader.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and was not read: {reason}"
        ) from error
    except Exception as error:
        # Damaged bytes reach the reader as IndexError, struct.error, AssertionError and more.
        raise ValueError(f"{path} is damaged or no state dict: {error!r}") from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise ValueError(f"{path} must hold a state dict, names to tensors, nothing else")
    return state


def _fill(model: WorldModel, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    theirs = {modern(name): value for name, value in state.items()}
    if len(theirs) != len(state):
        raise ValueError(f"{path} holds tensors under both generations of names")
    check_tensors(theirs, released(own), path)
    model.load_state_dict(to_ours(own, theirs))


class _Section:
    """One part of the configuration; every entry must be asked for, so none is ignored."""

    def __init__(self, path: Path, name: str, values: Any, targets: tuple[str, ...]) -> None:
        self.where = f"{path}: {name}" if name else str(path)
        if not isinstance(values, dict):
            raise ValueError(f"{self.where} must be a section with a _target_, got {values!r}")
        self.rest = dict(values)
        target = self.rest.pop("_target_", None)
        if not isinstance(target, str) or target.rpartition(".")[2] not in targets:
            raise ValueError(f"{self.where} must have a _target_ {targets[0]}, got {target!r}")

    def number(self, key: str, default: int | None = None) -> int:
        value = self.rest.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.where} must give {key} as a positive integer, got {value!r}")
        return value

    def fixed(self, key: str, *allowed: Any) -> None:
        value = self.rest.pop(key, allowed[0])
        if value not in allowed:
            raise ValueError(f"{self.where} must have {key} {allowed[0]!r}, got {value!r}")

    def end(self) -> None:
        if self.rest:
            raise ValueError(f"{self.where} has entries that LeWM does not know: {self.rest}")


def _build(path: Path) -> WorldModel:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    root = _Section(path, "", text, ("LeWM", "JEPA"))
    section = {
        name: _Section(path, name, root.rest.pop(name, None), targets)
        for name, targets in {
            "encoder": ("vit_hf",),
            "predictor": ("Predictor", "ARPredictor"),
            "action_encoder": ("Embedder",),
            "projector": ("MLP",),
            "pred_proj": ("MLP",),
        }.items()
    }
    root.end()
    encoder = _encoder_arguments(section["encoder"])
    dim = encoder["dim"]
    encoder["projector_dim"] = _projector_width(path, section["projector"], dim)
    predictor = _predictor_arguments(section["predictor"], dim)
    predictor["projector_dim"] = _projector_width(path, section["pred_proj"], dim)
    action = section["action_encoder"]
    width = action.number("emb_dim", 10)
    actions = {
        "action_dim": action.number("input_dim", 10),
        "dim": width,
        "hidden_dim": action.number("mlp_scale", 4) * width,
        "mix_dim": action.number("smoothed_dim", 10),
    }
    for part in section.values():
        part.end()
    try:
        return WorldModel(
            FrameEncoder(**encoder), ActionEncoder(**actions), CausalPredictor(**predictor)
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _encoder_arguments(section: _Section) -> dict[str, Any]:
    size = section.rest.pop("size", "tiny")
    if not isinstance(size, str) or size not in _VIT:
        raise ValueError(f"{section.where} must have a size of {sorted(_VIT)}, got {size!r}")
    width, depth, heads = _VIT[size]
    section.fixed("pretrained", False)
    section.fixed("use_mask_token", False)
    dim = section.number("hidden_size", width)
    return {
        "image_size": section.number("image_size", 224),
        "patch_size": section.number("patch_size", 16),
        "dim": dim,
        "depth": section.number("num_hidden_layers", depth),
        "heads": section.number("num_attention_heads", heads),
        "mlp_dim": section.number("intermediate_size", 4 * width),
    }


def _predictor_arguments(section: _Section, dim: int) -> dict[str, Any]:
    for key in ("input_dim", "hidden_dim", "output_dim"):
        section.fixed(key, dim)
    section.fixed("emb_dropout", 0.0)
    dropout = section.rest.pop("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"{section.where} must have dropout in [0, 1), got {dropout!r}")
    return {
        "dim": dim,
        "depth": section.number("depth"),
        "heads": section.number("heads"),
        "history": section.number("num_frames"),
        "dim_head": section.number("dim_head", 64),
        "mlp_dim": section.number("mlp_dim"),
        "dropout": dropout,
    }


def _projector_width(path: Path, section: _Section, dim: int) -> int:
    section.fixed("input_dim", dim)
    section.fixed("output_dim", dim, None)
    norm = _Section(path, "norm_fn", section.rest.pop("norm_fn", None), ("BatchNorm1d",))
    norm.fixed("_partial_", True)
    norm.end()
    return section.number("hidden_dim")
