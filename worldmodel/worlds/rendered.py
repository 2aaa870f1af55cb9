"""Frames that are drawn when they are asked for: states travel, pictures are made on the spot."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.worlds.contract import Floats, World

__all__ = ["RenderedFrames"]


class RenderedFrames:
    """R frames (`worldmodel.data.Frames`) that a world draws from R states [R, S].

    A picture of 224 × 224 has as many bytes as some four thousand states of Push-T: where a world
    draws as fast as a model learns, nothing but states needs to be stored.
    """

    dtype = torch.uint8

    def __init__(self, world: World, states: Floats) -> None:
        if states.ndim != 2 or states.shape[1] != world.state_dim:
            raise ValueError(f"states must be [R, {world.state_dim}], got {list(states.shape)}")
        self._world, self._states = world, states
        self.shape: tuple[int, ...] = (len(states), 3, world.image_size, world.image_size)

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows [...] -> frames [..., 3, H, W], each state drawn once."""
        flat, place = rows.flatten().unique(return_inverse=True)
        drawn = torch.from_numpy(self._world.draw(self._states[flat.numpy()]))
        frames: Tensor = drawn[place].unflatten(0, rows.shape)
        return frames
