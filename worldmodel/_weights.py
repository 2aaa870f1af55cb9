"""Tensors as a safetensors file that knows its own digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["as_bytes", "digest_of", "kept_digest", "read_weights"]


def as_bytes(
    state: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> tuple[bytes, str]:
    """The content of a safetensors file, the same for the same tensors, and its digest.

    Args:
        state: tensors by name.
        notes: more entries of the header.
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
            kept = (file.metadata() or {}).get("sha256")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    # A file rewritten by another tool has no digest, and that is fine.
    if kept is not None and kept != digest_of(state):
        raise ValueError(f"{path} is damaged: its values do not match their digest")
    return state


def kept_digest(path: Path) -> str | None:
    """The digest in the header of a weights file; None if there is no readable one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None


def digest_of(state: Mapping[str, Tensor], before: bytes = b"") -> str:
    """SHA-256 over `before`, names, types, shapes and bytes, on whatever device."""
    total = hashlib.sha256(before)
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: safetensors shuffles the metadata."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]
