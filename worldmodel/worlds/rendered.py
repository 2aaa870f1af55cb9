"""Frames that are drawn when they are asked for: states travel, pictures are made on the spot."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from worldmodel.data.frames import StoredFrames
from worldmodel.worlds.contract import Floats, Pixels, World

__all__ = ["RenderedFrames"]


class RenderedFrames(StoredFrames):
    """R frames (`worldmodel.data.Frames`) that a world draws from R states [R, S].

    A picture of 224 × 224 has as many bytes as some four thousand states of Push-T: where a world
    draws as fast as a model learns, nothing but states needs to be stored.

    Args:
        world: which draws. A picklable function that makes one is called once in every process
            that reads frames, as the workers of a DataLoader do; none of them shares a simulator.
        states: [R, S].
    """

    def __init__(self, world: World | Callable[[], World], states: Floats) -> None:
        self._world, self._states, self._source = world, states, None
        here = self._here()
        if states.ndim != 2 or states.shape[1] != here.state_dim:
            raise ValueError(f"states must be [R, {here.state_dim}], got {list(states.shape)}")
        super().__init__(len(states), (3, *[here.image_size] * 2), channels_last=False)

    def _here(self) -> World:
        """The world of this process; a fork must not draw with that of its parent."""
        if not callable(self._world):
            return self._world
        if self._source is None or self._source[0] != os.getpid():
            self._source = os.getpid(), self._world()
        return self._source[1]

    def _read(self, rows: NDArray[np.int64]) -> Pixels:
        once, place = np.unique(rows, return_inverse=True)
        return self._here().draw(self._states[once])[place]
