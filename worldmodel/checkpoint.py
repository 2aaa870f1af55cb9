"""A model on disk: `model.safetensors` holds the values, `config.json` everything else.

Nothing is pickled, and no class is imported by a name in a file, so loading runs only our code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel._files import draft_of, write_together
from worldmodel.data.episodes import ActionScale
from worldmodel.encoder import ActionEncoder, ConvEncoder, FusedEncoder, StateEncoder, ViTEncoder
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel
from worldmodel.patches import DinoPatches, PatchPredictor
from worldmodel.predictor import AffinePredictor, CausalPredictor, MLPPredictor, PrefixPredictor
from worldmodel.records import Classes, Device, Folder

__all__ = ["RunConfig", "digest", "is_released", "load", "load_policy", "read_config", "save"]

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"

# The models a folder may hold: their parts, and their other arguments.
_KINDS: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    WorldModel: (("encoder", "action_encoder", "predictor"), ()),
    GCBC: (("encoder", "trunk"), ("action_dim",)),
}
_CLASSES: tuple[type[nn.Module], ...] = (
    ViTEncoder, ConvEncoder, StateEncoder, FusedEncoder, DinoPatches, ActionEncoder,
    CausalPredictor, PatchPredictor, PrefixPredictor, AffinePredictor, MLPPredictor,
)  # fmt: skip
_ModelT = TypeVar("_ModelT", WorldModel, GCBC)


class RunConfig(NamedTuple):
    """The contents of `config.json` of a run folder."""

    kind: str  #: Class of the model, "WorldModel" or "GCBC".
    #: Class name and constructor arguments, by the part's name.
    parts: dict[str, tuple[str, dict[str, Any]]]
    arguments: dict[str, Any]  #: Of the model beside its parts.
    action_scale: ActionScale | None  #: As in training; None if the model takes raw actions.
    extra: dict[str, Any]  #: Whatever the caller of `save` added, in JSON's own types.


@checked()
def save(
    model: WorldModel | GCBC,
    folder: Folder,
    *,
    action_scale: ActionScale | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model into a folder that `load` reads (a GCBC: `load_policy`), whole or not at all.

    Args:
        model: the model itself, not a DDP or compiled wrapper around it or a part.
        folder: created if absent; files of an earlier save are replaced.
        action_scale, extra: for plans in raw units; any JSON value. `read_config` returns both.
    Raises: TypeError if `model` is wrapped, a part keeps no `config` of its arguments, or `extra`
        is not JSON; OSError naming the file if it cannot be written.
    """
    kind, scale = type(model), action_scale
    if kind not in _KINDS:
        raise TypeError(f"model must be a WorldModel or GCBC, without wrapper, got {kind.__name__}")
    parts, arguments = _KINDS[kind]
    described = {name: _describe(name, getattr(model, name)) for name in (*parts, *arguments)}
    weights, sha256 = as_bytes(model.state_dict())
    config = {
        "format": FORMAT,
        "model": {"class": kind.__name__, **described},
        "action_scale": scale and {"mean": scale.mean.tolist(), "std": scale.std.tolist()},
        "extra": extra or {},
        "weights": sha256,
    }
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"extra must hold JSON values only: {error}") from error
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # Config last: without it a first save did not finish.
    write_together({path / WEIGHTS: weights, path / CONFIG: text.encode() + b"\n"})


@checked()
def load(folder: Folder, map_location: Device = "cpu", *, classes: Classes = ()) -> WorldModel:
    """Load the model of a run folder; names and shapes of the weights must match.

    Args:
        folder, map_location: as `save` left it; device of the result.
        classes: your own part classes, found by their names; ours need not be listed.
    Returns: a WorldModel in evaluation mode, float32.
    Raises: FileNotFoundError or ValueError, naming the file: it is absent, damaged, of a newer
        format, of an unknown class, or its widths differ from the weights'.
    """
    return _load(Path(folder), WorldModel, classes).to(map_location)


@checked()
def load_policy(folder: Folder, map_location: Device = "cpu", *, classes: Classes = ()) -> GCBC:
    """Load the policy of a run folder that was trained by behaviour cloning.

    Args:
        folder, map_location, classes: as `load`.
    Returns: a GCBC in evaluation mode, float32.
    Raises: as `load`; ValueError too if the folder holds a world model.
    """
    return _load(Path(folder), GCBC, classes).to(map_location)


@checked()
def read_config(folder: Folder) -> RunConfig:
    """Read the description of the model in a run folder, without the weights.

    Args:
        folder: as `save` left it.
    Returns: RunConfig.
    Raises: FileNotFoundError or ValueError, naming the file at fault.
    """
    path, config = _read_json(Path(folder))
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise ValueError(
            f"{path} has no format, so it describes no model of ours{_hint(path.parent)}"
        )
    if version > FORMAT:
        rule = f"newer than {FORMAT}, the newest this version reads; update the library"
        raise ValueError(f"{path} has format {version}, {rule}")
    try:
        model = config["model"]
        # A folder that does not say holds a world model.
        kind = str(model.get("class", WorldModel.__name__))
        names, others = {cls.__name__: entry for cls, entry in _KINDS.items()}[kind]
        parts = {n: (str(model[n]["class"]), model[n]["config"]) for n in names}
        scale = config["action_scale"]
        if scale is not None:
            both = (torch.tensor(scale[name], device="cpu") for name in ("mean", "std"))
            scale = ActionScale(*both)
        return RunConfig(kind, parts, {n: model[n] for n in others}, scale, dict(config["extra"]))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} lacks or misstates an entry: {error!r}") from error


def is_released(folder: Path) -> bool:
    """Whether a folder holds a released LeWM (`weights.pt`) and no run of this library."""
    return not (folder / WEIGHTS).exists() and any(folder.glob("*.pt"))


def digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a model's state, on any device."""
    return digest_of(model.state_dict())


def _read_json(folder: Path) -> tuple[Path, Any]:
    """The configuration that belongs to the weights, and its file.

    A save that was killed between its two renames left it as a draft beside the old one.
    """
    path = folder / CONFIG
    kept = notes_of(folder / WEIGHTS).get("sha256")
    for file in (path, draft_of(path)):
        if not file.is_file():
            continue
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        named = config.get("weights") if isinstance(config, dict) else None
        # Configs of older versions and rewritten weights have no digest.
        if named == kept or (file == path and None in (named, kept)):
            return file, config
    existing(folder, CONFIG, _hint(folder))
    raise ValueError(f"{path} and {WEIGHTS} beside it belong to two different saves")


def _load(path: Path, wanted: type[_ModelT], classes: Classes) -> _ModelT:
    config = read_config(path)
    if config.kind != wanted.__name__:
        reader = load_policy if config.kind == GCBC.__name__ else load
        wrong = f"{path} holds a {config.kind}, not a {wanted.__name__}"
        raise ValueError(f"{wrong}; worldmodel.{reader.__name__} reads it")
    state = read_weights(existing(path, WEIGHTS))
    known = {c.__name__: c for c in (*_CLASSES, *classes)}
    # First on the meta device: wrong sizes are refused before they take memory.
    for device in ("meta", "cpu"):
        with torch.random.fork_rng(devices=[]), torch.device(device):
            try:
                parts: dict[str, Any] = {
                    name: _build(name, {"class": kind, "config": given}, known, len(state))
                    for name, (kind, given) in config.parts.items()
                }
                model = wanted(**parts, **config.arguments)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path / CONFIG}: {error}") from error
        own = {name: value.shape for name, value in model.state_dict().items()}
        check_tensors(state, own, path / WEIGHTS)
    model.load_state_dict(state)
    return model.eval()


def _describe(name: str, value: Any) -> Any:
    """A constructor's argument as JSON: a module becomes its class and its own arguments."""
    if isinstance(value, nn.Module):
        config = vars(value).get("config")
        if not isinstance(config, dict):
            rule = "keep its constructor arguments in `config` and come without wrapper"
            raise TypeError(f"{name} must {rule}, got {type(value).__name__}")
        return {"class": type(value).__name__, "config": _describe(name, config)}
    if isinstance(value, dict):
        return {key: _describe(f"{name}.{key}", one) for key, one in value.items()}
    return value


def _build(name: str, value: Any, known: Mapping[str, type[nn.Module]], most: int) -> Any:
    """Rebuild an argument from `_describe`'s result, with at most `most` blocks."""
    if not isinstance(value, dict):
        return value
    if value.keys() != {"class", "config"}:
        return {key: _build(f"{name}.{key}", one, known, most) for key, one in value.items()}
    kind = str(value["class"])
    if kind not in known:
        rule = f"known are {sorted(known)}; pass your own as classes=(...)"
        raise ValueError(f"{name} has class {kind!r}, {rule}")
    arguments = _build(name, value["config"], known, most)
    if not isinstance(arguments, dict):
        raise ValueError(f"cannot build {name} {kind}: its config must be arguments by name")
    for key, value in arguments.items():
        if "depth" in key and isinstance(value, int) and value > most:
            raise ValueError(f"{name}.{key} must be at most {most}, the number of tensors")
    try:
        return known[kind](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"cannot build {name} {kind}: {error}") from error


def existing(folder: Path, name: str, hint: str = "") -> Path:
    """A file of a folder; FileNotFoundError if one of the two is absent."""
    path = folder / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing{hint}")
    return path


def _hint(folder: Path) -> str:
    found = (folder / "weights.pt").is_file()
    return "; released LeWM weights are read by from_published" if found else ""


def as_bytes(
    state: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> tuple[bytes, str]:
    """The content of a safetensors file, a function of the tensors alone, and its digest."""
    import safetensors.torch

    # Contiguous, because safetensors stores no strides (channels_last has them).
    kept = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    sha256 = digest_of(kept)
    content = safetensors.torch.save(kept, {"format": "pt", "sha256": sha256, **(notes or {})})
    # Sort the header: safetensors shuffles the metadata.
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:], sha256


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name; ValueError naming it if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    kept = notes_of(path).get("sha256")
    # A file rewritten by another tool has no digest, and that is fine.
    if kept is not None and kept != digest_of(state):
        raise ValueError(f"{path} is damaged: its values do not match their digest")
    return state


def notes_of(path: Path) -> dict[str, str]:
    """The metadata in the header of a weights file; empty if it is unreadable."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, on any device."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_tensors(
    state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], source: Path
) -> None:
    """Raise ValueError unless the state holds exactly the tensors of these names and shapes."""
    wrong = [
        f"{name} must be {list(shapes[name])}, got {list(state[name].shape)}"
        for name in shapes
        if name in state and list(state[name].shape) != list(shapes[name])
    ]
    missing, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    for names, fault in (
        (missing, f"lacks {len(missing)} of {len(shapes)} tensors"),
        (unknown, f"has {len(unknown)} tensors too many"),
        (wrong, "holds weights of another width than its config.json asks for"),
    ):
        if names:
            few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise ValueError(f"{source} {fault}: {few}")
