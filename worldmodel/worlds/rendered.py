"""Frames that are drawn when they are asked for: states travel, pictures are made on the spot."""

import numpy as np
from numpy.typing import NDArray

from worldmodel.data.frames import StoredFrames
from worldmodel.worlds.contract import Floats, Pixels, World

__all__ = ["RenderedFrames"]


class RenderedFrames(StoredFrames):
    """R frames (`worldmodel.data.Frames`) that a world draws from R states [R, S].

    A picture of 224 × 224 has as many bytes as some four thousand states of Push-T: where a world
    draws as fast as a model learns, nothing but states needs to be stored.
    """

    def __init__(self, world: World, states: Floats) -> None:
        if states.ndim != 2 or states.shape[1] != world.state_dim:
            raise ValueError(f"states must be [R, {world.state_dim}], got {list(states.shape)}")
        super().__init__(len(states), (3, *[world.image_size] * 2), channels_last=False)
        self._world, self._states = world, states

    def _read(self, rows: NDArray[np.int64]) -> Pixels:
        once, place = np.unique(rows, return_inverse=True)
        return self._world.draw(self._states[once])[place]
