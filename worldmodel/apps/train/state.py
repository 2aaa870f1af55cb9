"""A training state as one file: tensors and words with a digest, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel._weights import digest_of

__all__ = ["DamagedStateError", "read_state", "write_state"]

FORMAT = 1


class DamagedStateError(ValueError):
    """A checkpoint that is not what was written; the message names the file."""


def write_state(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and words as one safetensors file, whole or not at all; OSError names it."""
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
    version, kept = (metadata.pop(name, "") for name in ("format", "sha256"))
    if version.isdecimal() and int(version) > FORMAT:
        raise ValueError(
            f"{path} has format {version}, newer than {FORMAT}, the newest this version reads; "
            "update the library"
        )
    if kept != _digest(tensors, metadata):
        raise DamagedStateError(f"{path} is damaged: its values do not match their digest")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    return digest_of(tensors, json.dumps(metadata, sort_keys=True).encode())
