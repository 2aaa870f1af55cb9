"""Pictures of Push-T for many states at once, by signed distances instead of a 512-pixel raster.

gym-pusht draws polygons and discs on 512 × 512 pixels and shrinks the raster. Here a shape covers a
sample by how far the sample lies inside its edge, and only the samples around block and agent are
looked at. Colours, order and line widths are those of gym-pusht.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORLD", "Pictures"]

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]

WORLD = 512  # side of the world, and of gym-pusht's own pictures
_MANY = 32  # states drawn together: what is in use fits a processor's cache
_LINE = 2.3  # of the outline, beyond the edge and within it
_RIM = 4.0  # of the agent's disc
_AGENT_RADIUS = 14.6  # as the raster of a disc of 15 comes out
_RADIUS = 78.0  # of a circle around the block and its outline
_MIDDLE = (0.0, 46.0)  # of that circle, in the block's frame
_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))  # middle x, y and half sides
_SLATE = np.array([119, 136, 153], np.float32)
_BLUE = np.array([65, 105, 225], np.float32)
_BRIGHTER = np.float32(1.2)


class Pictures:
    """Draws states over a picture of the world without agent and block.

    Args:
        background: [512, 512, 3], uint8.
        size: side of the pictures.
    """

    def __init__(self, background: Pixels, size: int) -> None:
        self.size = size
        self._cell = np.float32(WORLD / size)
        # Samples a side of a pixel: enough that a line of the outline is not stepped over.
        self._fine = max(1, round(float(self._cell) / 4))
        self._margin = int(np.ceil(2 * _RADIUS / float(self._cell))) + 2
        frame = _shrunk(background, size).transpose(2, 0, 1)
        pad = (self._margin, self._margin)
        self._empty = np.pad(frame, ((0, 0), pad, pad))
        self._clear = np.rint(self._empty).astype(np.uint8)

    def draw(self, states: NDArray[np.floating]) -> Pixels:
        """Pictures [N, 3, H, W] of states [N, >= 5]: agent x, y, block x, y, angle."""
        parts = np.array_split(states, max(1, -(-len(states) // _MANY)))
        return np.concatenate([self._some(part.astype(np.float32)) for part in parts])

    def _some(self, states: Values) -> Pixels:
        canvas = np.repeat(self._clear[None], len(states), axis=0)
        self._agent(canvas, states[:, :2])
        self._block(canvas, states[:, 2:4], states[:, 4])
        inner = slice(self._margin, self._margin + self.size)
        return np.ascontiguousarray(canvas[:, :, inner, inner])

    def _agent(self, canvas: Pixels, position: Values) -> None:
        # pygame draws discs around whole pixels.
        centre = np.rint(position)
        x, y, places = self._samples(centre, _AGENT_RADIUS + 1)
        distance: Values = np.hypot(
            x - centre[:, 0, None, None], y - centre[:, 1, None, None], dtype=np.float32
        )
        light = np.minimum(_BRIGHTER * _BLUE, 255)
        self._paint(canvas, places, [
            (self._cover(distance - np.float32(_AGENT_RADIUS)), _BLUE),
            (self._cover(distance - np.float32(_AGENT_RADIUS - _RIM)), light),
        ])  # fmt: skip

    def _block(self, canvas: Pixels, position: Values, angle: Values) -> None:
        cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
        mx, my = np.float32(_MIDDLE[0]), np.float32(_MIDDLE[1])
        middle = position + np.concatenate(
            [cos[:, :, 0] * mx - sin[:, :, 0] * my, sin[:, :, 0] * mx + cos[:, :, 0] * my], axis=1
        )
        x, y, places = self._samples(middle, _RADIUS)
        x = x - position[:, 0, None, None]
        y = y - position[:, 1, None, None]
        u, v = cos * x + sin * y, cos * y - sin * x
        layers = []
        for at_u, at_v, half_u, half_v in _BOXES:
            beyond_u = np.abs(u - np.float32(at_u)) - np.float32(half_u)
            beyond_v = np.abs(v - np.float32(at_v)) - np.float32(half_v)
            edge = np.maximum(beyond_u, beyond_v)
            layers += [
                (self._cover(edge - np.float32(_LINE)), _SLATE),
                (self._cover(edge + np.float32(_LINE)), np.minimum(_BRIGHTER * _SLATE, 255)),
            ]
        self._paint(canvas, places, layers)

    def _samples(self, middle: Values, radius: float) -> tuple[Values, Values, tuple[Any, ...]]:
        """World coordinates of the samples around each point, and the pixels they belong to."""
        fine, cell = self._fine, self._cell
        side = min(int(np.ceil(2 * radius / float(cell))) + 1, self.size + self._margin)
        first = np.floor((middle - np.float32(radius)) / cell).astype(np.int64)
        # What lies off the picture altogether is drawn in the margin, which is cut off.
        first = np.clip(first, -self._margin, self.size + self._margin - side)
        step = (np.arange(side * fine, dtype=np.float32) + np.float32(0.5)) * (cell / fine)
        # A raster's pixel i has its middle at i, since pygame rounds.
        begin = first.astype(np.float32) * cell - np.float32(0.5)
        x = (begin[:, 0, None] + step)[:, None, :]
        y = (begin[:, 1, None] + step)[:, :, None]
        along = np.arange(side)
        rows = (first[:, 1, None] + along + self._margin)[:, :, None]
        columns = (first[:, 0, None] + along + self._margin)[:, None, :]
        return x, y, (np.arange(len(middle))[:, None, None], rows, columns)

    def _cover(self, distance: Values) -> Values:
        """How much of each pixel lies within an edge, from the samples' signed distances."""
        fine = self._fine
        width = np.float32(self._cell / fine)
        inside: Values = np.clip(0.5 - distance / width, 0, 1, dtype=np.float32)
        if fine == 1:
            return inside
        n, height, across = inside.shape
        inside = inside.reshape(n, height // fine, fine, across // fine, fine)
        mean: Values = inside.mean((2, 4), dtype=np.float32)
        return mean

    def _paint(
        self, canvas: Pixels, places: tuple[Any, ...], layers: list[tuple[Values, Values]]
    ) -> None:
        """Lay colours over the pixels, each as far as it covers them."""
        n, rows, columns = places
        for c in range(3):
            value = canvas[n, c, rows, columns].astype(np.float32)
            for cover, colour in layers:
                value += cover * (colour[c] - value)
            canvas[n, c, rows, columns] = np.rint(value).astype(np.uint8)


def _shrunk(picture: Pixels, size: int) -> Values:
    """The mean of each pixel's area: [512, 512, 3] -> [size, size, 3]."""
    edges = np.linspace(0, WORLD, size + 1)
    summed = picture.astype(np.float64)
    for axis in (0, 1):
        total = np.concatenate([np.zeros_like(summed.take([0], axis)), summed.cumsum(axis)], axis)
        whole = np.floor(edges).astype(int)
        rest = (edges - whole).reshape([-1 if a == axis else 1 for a in range(3)])
        after = total.take(np.minimum(whole + 1, WORLD), axis)
        at = total.take(whole, axis)
        at = at + rest * (after - at)
        summed = np.diff(at, axis=axis) / (WORLD / size)
    return summed.astype(np.float32)
