"""Embeddings of many frames, a few at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.model import WorldModel

__all__ = ["embed"]


@torch.no_grad()
def embed(model: WorldModel, frames: Tensor, *, chunk: int = 256) -> Tensor:
    """Encode frames one by one, each as a sequence of its own.

    Args:
        model: WorldModel in evaluation mode.
        frames: [..., 3, H, W], uint8, on any device.
        chunk: frames encoded at a time.
    Returns: [..., D], on the model's device.
    """
    device = next(model.parameters()).device
    flat = frames.flatten(0, -4)
    parts = [model.encode(part[None].to(device))[0] for part in flat.split(chunk)]
    out: Tensor = torch.cat(parts).unflatten(0, frames.shape[:-3])
    return out
