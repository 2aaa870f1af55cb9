"""Tensors as a safetensors file that knows its own digest, and checks of what was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["as_bytes", "check_tensors", "digest_of", "notes_of", "read_weights"]


def as_bytes(
    state: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> tuple[bytes, str]:
    """The content of a safetensors file, the same for the same tensors, and its digest.

    `notes` are more entries of the header.
    """
    import safetensors.torch

    # Contiguous, because safetensors knows no strides (channels_last convolutions have them).
    kept = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    digest = digest_of(kept)
    header = {"format": "pt", "sha256": digest, **(notes or {})}
    return _in_order(safetensors.torch.save(kept, header)), digest


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises: ValueError naming the file if it is damaged.
    """
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
    """What the header of a weights file notes beside the tensors; nothing if it is unreadable."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, on whatever device."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_tensors(
    state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], source: Path
) -> None:
    """Every tensor that a model asks for, no other, each of its shape.

    Raises: ValueError naming `source` and the first tensors at fault.
    """
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


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: safetensors shuffles the metadata."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]
