"""Models from a folder or from the Hugging Face hub, ours and released LeWM ones alike.

A model on the hub is a folder there: `config.json` and `model.safetensors` (or `weights.pt` of a
released LeWM), the layout of PyTorchModelHubMixin in huggingface_hub. Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from worldmodel import checkpoint
from worldmodel.published import from_published

if TYPE_CHECKING:
    from os import PathLike

    from worldmodel.gcbc import GCBC
    from worldmodel.model import WorldModel

__all__ = ["from_pretrained", "is_released", "locate", "push_to_hub"]

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FILES = ("*.json", "*.safetensors", "weights.pt", "README.md", "*.png", "*.csv")


def from_pretrained(
    source: str | PathLike[str],
    *,
    revision: str | None = None,
    map_location: str | torch.device = "cpu",
    classes: Sequence[type[nn.Module]] = (),
) -> WorldModel | GCBC:
    """The model of a run folder, of a released LeWM folder, or of either on the hub.

    Args:
        source: a folder, or an "owner/name" of the hub; a folder of that name wins.
        revision: commit, tag or branch on the hub; give a commit to get the same weights for ever.
        map_location: device of the result.
        classes: your own part classes, found by their names; ours need not be listed.
    Returns: WorldModel in evaluation mode, float32; GCBC if the folder holds a cloned policy.
    Raises: FileNotFoundError if there is no such folder or repository; ImportError if the hub is
        asked and huggingface_hub is missing; ValueError, naming the file at fault.
    """
    folder = locate(source, revision=revision)
    if is_released(folder):
        return from_published(folder, map_location)
    if checkpoint.read_config(folder).kind == "GCBC":
        return checkpoint.load_policy(folder, map_location, classes=classes)
    return checkpoint.load(folder, map_location, classes=classes)


def locate(source: str | PathLike[str], *, revision: str | None = None) -> Path:
    """The folder of a model on this machine, fetched from the hub if it is not here.

    Raises: as `from_pretrained`.
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise ValueError(f"revision is of models on the hub, got {revision!r} with {path}")
        return path
    if not _REPOSITORY.fullmatch(str(source)):
        raise FileNotFoundError(f"{source} is neither a folder nor an owner/name of the hub")
    hub = _hub()
    try:
        found = hub.snapshot_download(str(source), revision=revision, allow_patterns=list(_FILES))
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and the hub does not give it: {_line(error)}"
        ) from error
    return Path(found)


def is_released(folder: Path) -> bool:
    """Whether a folder holds a released LeWM (`weights.pt`), not a run of this library."""
    return not (folder / checkpoint.WEIGHTS).exists() and any(folder.glob("*.pt"))


def push_to_hub(
    folder: str | PathLike[str],
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload a world model",
) -> str:
    """Upload a run folder; `from_pretrained(repository)` reads it back.

    Weights, settings, figures and pictures go; checkpoints and event files stay here. The hub shows
    README.md of the folder as the model's card.

    Args:
        folder: a run folder, or one that `worldmodel.save` wrote.
        repository: "owner/name"; made if it is not there.
        private: whether only its owner sees it, where it is made.
        token: of the hub; None takes the one that `hf auth login` kept.
        message: of the commit.
    Returns: the commit, for `revision=`.
    Raises: ImportError if huggingface_hub is missing; FileNotFoundError or ValueError if the folder
        holds no model; ValueError if `repository` is no owner/name; OSError if the hub refuses.
    """
    path = Path(folder)
    checkpoint.read_config(path)
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"repository must be owner/name, got {repository!r}")
    hub = _hub()
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=path,
            allow_patterns=list(_FILES),
            ignore_patterns=["checkpoints/*", "tensorboard/*", ".*"],
            commit_message=message,
        )
    except hub.errors.HfHubHTTPError as error:
        raise OSError(f"the hub refused {repository}: {_line(error)}") from error
    return str(done.oid)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError("the hub needs huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
