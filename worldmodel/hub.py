"""Models from a folder or from the Hugging Face hub, ours and released LeWM ones.

A model on the hub is a folder there: `config.json` and `model.safetensors` (or `weights.pt` of a
released LeWM), the layout of PyTorchModelHubMixin in huggingface_hub. Nothing is unpickled.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodel._arguments import checked
from worldmodel._extras import need
from worldmodel.checkpoint import is_released, load, load_policy, read_config
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel
from worldmodel.published import from_published
from worldmodel.records import Classes, Device, Folder

__all__ = ["from_pretrained", "locate", "push_to_hub"]

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FILES = ["*.json", "*.safetensors", "weights.pt", "README.md", "*.png", "*.csv"]


@checked()
def from_pretrained(
    source: Folder,
    *,
    revision: str | None = None,
    map_location: Device = "cpu",
    classes: Classes = (),
) -> WorldModel | GCBC:
    """Load the model of a run folder, of a released LeWM folder, or of either on the hub.

    Args:
        source: a folder, or an "owner/name" of the hub; a folder of that name wins.
        revision: commit, tag or branch on the hub; a commit always gives the same weights.
        map_location, classes: as `load`.
    Returns: WorldModel in evaluation mode, float32; GCBC if the folder holds a cloned policy.
    Raises: FileNotFoundError if there is no such folder or repository; ImportError if the hub is
        needed and huggingface_hub is missing; ValueError, naming the file at fault.
    """
    folder = locate(source, revision=revision)
    if is_released(folder):
        return from_published(folder, map_location)
    if read_config(folder).kind == GCBC.__name__:
        return load_policy(folder, map_location, classes=classes)
    return load(folder, map_location, classes=classes)


def locate(source: Folder, *, revision: str | None = None) -> Path:
    """The local folder of a model, downloaded if needed; raises as `from_pretrained`."""
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise ValueError(f"revision is of models on the hub, got {revision!r} with {path}")
        return path
    if not _REPOSITORY.fullmatch(str(source)):
        raise FileNotFoundError(f"{source} is neither a folder nor an owner/name of the hub")
    refused = f"{source} is no local folder, and the hub refused it"
    with _hub(FileNotFoundError, refused, f"{source} is no local folder, and the hub") as hub:
        return Path(hub.snapshot_download(str(source), revision=revision, allow_patterns=_FILES))


@checked()
def push_to_hub(
    folder: Folder,
    repository: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload a world model",
) -> str:
    """Upload a run folder; `from_pretrained(repository)` reads it back.

    It uploads weights, settings, figures, pictures and README.md, the model card; no checkpoints.

    Args:
        folder: a run folder, or one that `worldmodel.save` wrote.
        repository, private: "owner/name"; created if absent, visible to its owner alone.
        token: of the hub; None uses the one that `hf auth login` stored.
        message: of the commit.
    Returns: the commit, for `revision=`.
    Raises: ImportError if huggingface_hub is missing; FileNotFoundError or ValueError if the folder
        holds no model; ValueError if `repository` is no owner/name; OSError if the hub refuses.
    """
    read_config(folder)
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"repository must be owner/name, got {repository!r}")
    with _hub(OSError, f"the hub refused {repository}") as hub:
        api = hub.HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=_FILES,
            ignore_patterns=["checkpoints/*", "tensorboard/*", ".*"],
            commit_message=message,
        )
    return str(done.oid)


@contextmanager
def _hub(kind: type[OSError], refused: str, what: str = "the hub") -> Iterator[Any]:
    """huggingface_hub; its errors become one-line errors of the given type."""
    hub, errors = (need(name, "hub", what)
                   for name in ("huggingface_hub", "huggingface_hub.errors"))  # fmt: skip
    try:
        yield hub
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        raise kind(f"{refused}: {' '.join(str(error).split())[:300]}") from error
