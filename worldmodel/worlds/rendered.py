"""Frames that are drawn from states when they are read."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from worldmodel.data.frames import StoredFrames
from worldmodel.worlds.contract import Floats, Pixels, World

__all__ = ["RenderedFrames"]


class RenderedFrames(StoredFrames):
    """R frames (`worldmodel.data.Frames`) that a world draws from R states [R, S].

    A picture of 224 × 224 has as many bytes as some four thousand states of Push-T. If a world
    draws as fast as a model trains, only the states need to be stored.

    Args:
        world: draws the frames. A picklable function that makes a world is called once in every
            process that reads frames, such as a DataLoader's workers.
        states: [R, S].
    """

    def __init__(self, world: World | Callable[[], World], states: Floats) -> None:
        self._world, self._states, self._source = world, states, None
        here = self._here()
        if states.ndim != 2 or states.shape[1] != here.state_dim:
            raise ValueError(f"states must be [R, {here.state_dim}], got {list(states.shape)}")
        super().__init__(len(states), (3, *[here.image_size] * 2), channels_last=False)

    def _here(self) -> World:
        """The world of this process; a forked process makes its own."""
        return self._own(self._world) if callable(self._world) else self._world

    def _read(self, rows: NDArray[np.int64]) -> Pixels:
        once, place = np.unique(rows, return_inverse=True)
        return self._here().draw(self._states[once])[place]
