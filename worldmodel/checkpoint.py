"""A model on disk: `model.safetensors` for the values, `config.json` for everything else.

Nothing here is pickled and no class is imported by the name a file gives: loading runs no code
but ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from worldmodel._files import write_atomically
from worldmodel._strict import check_tensors
from worldmodel.data.episodes import ActionScale
from worldmodel.encoder import ActionEncoder, ConvEncoder, FrameEncoder
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel
from worldmodel.patches import DinoPatches, PatchPredictor
from worldmodel.predictor import CausalPredictor

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["RunConfig", "digest", "load", "load_policy", "read_config", "save"]

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"

# What a folder may hold: its parts, and its other arguments.
_KINDS: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    WorldModel: (("encoder", "action_encoder", "predictor"), ()),
    GCBC: (("encoder", "trunk"), ("action_dim",)),
}
_CLASSES: tuple[type[nn.Module], ...] = (
    FrameEncoder, ConvEncoder, DinoPatches, ActionEncoder, CausalPredictor, PatchPredictor,
)  # fmt: skip


class RunConfig(NamedTuple):
    """What `config.json` of a run folder says.

    Attributes:
        kind: class of the model, "WorldModel" or "GCBC".
        parts: for "encoder", "action_encoder" and "predictor" (of a GCBC "encoder" and "trunk"),
            the class name and the constructor arguments.
        arguments: of the model beside its parts.
        action_scale: standardises raw actions as in training; None if the model takes raw ones.
        extra: whatever the caller of `save` added, in JSON's own types.
    """

    kind: str
    parts: dict[str, tuple[str, dict[str, Any]]]
    arguments: dict[str, Any]
    action_scale: ActionScale | None
    extra: dict[str, Any]


def save(
    model: WorldModel | GCBC,
    folder: str | PathLike[str],
    *,
    action_scale: ActionScale | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model into a folder that `load` reads (a GCBC: `load_policy`).

    Each file appears whole or not at all.

    Args:
        model: the model itself, not a DDP or compiled wrapper around it or a part.
        folder: made if absent; files of an earlier save are replaced.
        action_scale: kept beside the weights, for plans in raw units.
        extra: anything JSON can hold; `read_config(folder).extra` gives it back.
    Raises: TypeError if `model` is wrapped, a part keeps no `config` of its arguments, or `extra`
        is not JSON; OSError naming the file if it cannot be written.
    """
    import safetensors.torch

    kind = type(model)
    if kind not in _KINDS:
        raise TypeError(f"model must be a WorldModel or GCBC, without wrapper, got {kind.__name__}")
    parts, arguments = _KINDS[kind]
    described: dict[str, Any] = {name: _describe(name, getattr(model, name)) for name in parts}
    described |= {name: getattr(model, name) for name in arguments}
    config = {
        "format": FORMAT,
        "model": {"class": kind.__name__, **described},
        "action_scale": None
        if action_scale is None
        else {"mean": action_scale.mean.tolist(), "std": action_scale.std.tolist()},
        "extra": extra or {},
    }
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"extra must hold JSON values only: {error}") from error
    # Contiguous, because safetensors knows no strides (channels_last convolutions have them).
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    metadata = {"format": "pt", "sha256": _digest(state)}
    weights = _in_order(safetensors.torch.save(state, metadata))
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # Config last: its absence shows that a first save did not finish.
    write_atomically(path / WEIGHTS, weights)
    write_atomically(path / CONFIG, text.encode() + b"\n")


def load(
    folder: str | PathLike[str],
    map_location: str | torch.device = "cpu",
    *,
    classes: Sequence[type[nn.Module]] = (),
) -> WorldModel:
    """Build the model of a run folder and fill in its weights.

    Args:
        folder: as `save` left it.
        map_location: device of the result.
        classes: your own part classes, found by their names; ours need not be listed.
    Returns: a WorldModel in evaluation mode, float32, strict by name and shape. The global random
        state is left as it was.
    Raises: FileNotFoundError or ValueError, naming the file at fault: it is absent, damaged, of a
        newer format, of a class that is not known, or of another width than the weights.
    """
    model = _load(Path(folder), WorldModel, classes)
    return model.to(map_location)


def load_policy(
    folder: str | PathLike[str],
    map_location: str | torch.device = "cpu",
    *,
    classes: Sequence[type[nn.Module]] = (),
) -> GCBC:
    """Build the policy of a run folder that was trained by behaviour cloning.

    Args:
        folder: as `save` left it.
        map_location: device of the result.
        classes: your own part classes, found by their names; ours need not be listed.
    Returns: a GCBC in evaluation mode, float32; otherwise as `load`.
    Raises: as `load`; ValueError too if the folder holds a world model.
    """
    policy = _load(Path(folder), GCBC, classes)
    return policy.to(map_location)


def read_config(folder: str | PathLike[str]) -> RunConfig:
    """Read what a run folder says about its model, without the weights.

    Args:
        folder: as `save` left it.
    Returns: RunConfig.
    Raises: FileNotFoundError or ValueError, naming the file at fault.
    """
    path = _existing(Path(folder), CONFIG)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int):
        hint = "; released LeWM weights are read by from_published" if _released(path) else ""
        raise ValueError(f"{path} does not describe a model of this library: no format{hint}")
    if version > FORMAT:
        raise ValueError(
            f"{path} has format {version}, newer than {FORMAT}, the newest this version reads; "
            "update the library"
        )
    try:
        model = config["model"]
        # A folder that does not say holds a world model.
        kind = str(model.get("class", WorldModel.__name__))
        names, others = {cls.__name__: entry for cls, entry in _KINDS.items()}[kind]
        parts = {n: (str(model[n]["class"]), model[n]["config"]) for n in names}
        arguments = {n: model[n] for n in others}
        scale = config["action_scale"]
        if scale is not None:
            scale = ActionScale(torch.tensor(scale["mean"]), torch.tensor(scale["std"]))
        return RunConfig(kind, parts, arguments, scale, dict(config["extra"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} lacks or misstates an entry: {error!r}") from error


def digest(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a model's state, on whatever device."""
    return _digest(model.state_dict())


_ModelT = TypeVar("_ModelT", WorldModel, GCBC)


def _load(path: Path, wanted: type[_ModelT], classes: Sequence[type[nn.Module]]) -> _ModelT:
    config = read_config(path)
    if config.kind != wanted.__name__:
        reader = load_policy if config.kind == GCBC.__name__ else load
        raise ValueError(
            f"{path} holds a {config.kind}, not a {wanted.__name__}; "
            f"worldmodel.{reader.__name__} reads it"
        )
    state = _read_weights(path / WEIGHTS)
    known = {c.__name__: c for c in (*_CLASSES, *classes)}
    with torch.random.fork_rng(devices=[]):
        parts: dict[str, Any] = {
            n: _build(path / CONFIG, n, *part, known) for n, part in config.parts.items()
        }
        try:
            model = wanted(**parts, **config.arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path / CONFIG}: {error}") from error
    own = {name: value.shape for name, value in model.state_dict().items()}
    check_tensors(state, own, path / WEIGHTS)
    model.load_state_dict(state)
    return model.eval()


def _describe(name: str, part: nn.Module) -> dict[str, Any]:
    config = vars(part).get("config")
    if not isinstance(config, dict):
        raise TypeError(
            f"{name} must keep its constructor arguments in `config` and come without wrapper, "
            f"got {type(part).__name__}"
        )
    return {"class": type(part).__name__, "config": config}


def _build(
    path: Path, name: str, kind: str, config: Any, known: dict[str, type[nn.Module]]
) -> nn.Module:
    if kind not in known:
        raise ValueError(
            f"{path} names {name} class {kind!r}, known are {sorted(known)}; "
            "pass your own as classes=(...)"
        )
    try:
        return known[kind](**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot build {name} {kind}: {error}") from error


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: safetensors shuffles the metadata."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    _existing(path.parent, path.name)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            kept = (file.metadata() or {}).get("sha256")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    # A file rewritten by another tool has no digest, and that is fine.
    if kept is not None and kept != _digest(state):
        raise ValueError(f"{path} is damaged: its values do not match their digest")
    return state


def _digest(state: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    path = folder / name
    if not path.is_file():
        hint = "; released LeWM weights are read by from_published" if _released(path) else ""
        raise FileNotFoundError(f"{path} is missing{hint}")
    return path


def _released(path: Path) -> bool:
    return (path.parent / "weights.pt").is_file()
