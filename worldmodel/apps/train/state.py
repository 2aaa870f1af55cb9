"""Checkpoints: whole files or none, the last two kept, a damaged one stepped over."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps.progress import say

if TYPE_CHECKING:
    from worldmodel.apps.train.loop import Training

__all__ = ["Checkpoints", "DamagedStateError", "read_state", "write_state"]

FORMAT = 1
_OWN = ("format", "sha256")


class DamagedStateError(ValueError):
    """A checkpoint that is not what was written; the message names the file."""


def write_state(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and words as one safetensors file, whole or not at all.

    Raises: OSError naming `path` if the disk is full or the folder cannot be written.
    """
    # safetensors knows no strides, and two names of one storage are written twice.
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    own = {"format": str(FORMAT), "sha256": _digest(plain, metadata)}
    write_atomically(path, save(plain, metadata | own))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_state` was given.

    Raises: FileNotFoundError; DamagedStateError if it is no safetensors file or one bit differs;
        ValueError if a newer version wrote it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no training state to resume from at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DamagedStateError(f"{path} is damaged: {error}") from error
    version, kept = (metadata.pop(name, "") for name in _OWN)
    if version.isdecimal() and int(version) > FORMAT:
        raise ValueError(
            f"{path} has format {version}, newer than {FORMAT}, the newest this version reads; "
            "update the library"
        )
    if kept != _digest(tensors, metadata):
        raise DamagedStateError(f"{path} is damaged: its values do not match their digest")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


class Checkpoints:
    """The training states of a run folder, named after their step.

    A new one is whole on the disk before an old one goes, so that at every moment the last two
    finished ones are there: whatever kills the run costs the steps since the last of them.

    Args:
        folder: made with the first checkpoint.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Newest first."""
        found = self.folder.glob("step-*.safetensors")
        return sorted(found, key=lambda path: path.name, reverse=True)

    def write(self, training: Training[Any]) -> Path:
        """Add the present state and let the oldest go; every rank must call it.

        Raises: OSError naming the file if it cannot be written; the older ones stay.
        """
        if training.ranks.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{training.step:09d}.safetensors"
        training.save(path)
        for old in self.paths()[self.keep :] if training.ranks.rank == 0 else ():
            old.unlink(missing_ok=True)
        return path

    def restore(self, training: Training[Any], *, quiet: bool = False) -> Path | None:
        """Go on from the newest checkpoint that is whole; say so if that is not the newest.

        Args:
            training: with the settings and the model that the checkpoints were written with.
            quiet: on ranks whose words nobody reads.
        Returns: the file, or None if there is no checkpoint at all.
        Raises: DamagedStateError if there are checkpoints and none is whole; ValueError if one is
            of other settings or of another model.
        """
        damaged: list[str] = []
        for path in self.paths():
            try:
                training.restore(path)
            except DamagedStateError as error:
                damaged.append(str(error))
                continue
            for sentence in () if quiet else damaged:
                say(f"{sentence}; going on from the one before, {path.name}")
            return path
        if damaged:
            raise DamagedStateError(
                f"no checkpoint in {self.folder} can be read: {'; '.join(damaged)}"
            )
        return None
