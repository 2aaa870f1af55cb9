"""Pictures of Push-T for many states at once, by signed distances.

gym-pusht draws polygons and discs on 512 × 512 pixels and shrinks the picture. Here the coverage of
a sample follows from its signed distance to an edge, and only samples around block and agent are
computed. Colours, order and line widths are those of gym-pusht.
"""

from typing import Any

import numpy as np

from worldmodel.worlds.contract import Floats, Pixels

__all__ = ["WORLD", "Pictures"]

WORLD = 512  # side of the world, and of gym-pusht's own pictures
_MANY = 32  # states drawn together, to fit a processor's cache
_LINE = np.float32(2.3)  # of the outline, beyond the edge and within it
_RIM = 4.0  # of the agent's disc
_AGENT_RADIUS = 14.6  # as the raster of a disc of 15 comes out
_RADIUS = 78.0  # of a circle around the block and its outline
_MIDDLE = np.float32(46.0)  # of that circle, on the block's own y axis
_BOXES = np.array([[0, 15, 60, 15], [0, 75, 15, 45]], np.float32)  # middle x, y and half sides
_SLATE = np.array([119, 136, 153], np.float32)
_BLUE = np.array([65, 105, 225], np.float32)
_BRIGHTER = np.float32(1.2)


class Pictures:
    """Draws states on a background [512, 512, 3] without agent and block."""

    def __init__(self, background: Pixels, size: int) -> None:
        self.size = size
        self._cell = np.float32(WORLD / size)
        # Samples per side of a pixel: enough to hit every line of the outline.
        self._fine = max(1, round(float(self._cell) / 4))
        self._margin = int(np.ceil(2 * _RADIUS / float(self._cell))) + 2
        frame = np.rint(_shrunk(background, size)).astype(np.uint8).transpose(2, 0, 1)
        self._empty = np.pad(frame, ((0, 0), (self._margin,) * 2, (self._margin,) * 2))

    def draw(self, states: Floats) -> Pixels:
        """Pictures [N, 3, H, W] of states [N, >= 5]: agent x, y, block x, y, angle."""
        parts = np.array_split(states, max(1, -(-len(states) // _MANY)))
        return np.concatenate([self._some(part) for part in parts])

    def _some(self, states: Floats) -> Pixels:
        canvas = np.repeat(self._empty[None], len(states), axis=0)
        self._agent(canvas, states[:, :2])
        self._block(canvas, states[:, 2:4], states[:, 4])
        inner = slice(self._margin, self._margin + self.size)
        return np.ascontiguousarray(canvas[:, :, inner, inner])

    def _agent(self, canvas: Pixels, position: Floats) -> None:
        # pygame draws discs around whole pixels.
        centre = np.rint(position)
        x, y, places = self._samples(centre, _AGENT_RADIUS + 1)
        x, y = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
        distance: Floats = np.hypot(x, y, dtype=np.float32)
        disc = self._cover(distance - np.float32(_AGENT_RADIUS))
        inner = self._cover(distance - np.float32(_AGENT_RADIUS - _RIM))
        _paint(canvas, places, [(disc, _BLUE), (inner, np.minimum(_BRIGHTER * _BLUE, 255))])

    def _block(self, canvas: Pixels, position: Floats, angle: Floats) -> None:
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        middle = position + _MIDDLE * np.concatenate([-sin, cos], axis=1, dtype=np.float32)
        x, y, places = self._samples(middle, _RADIUS)
        x, y = x - position[:, 0, None, None], y - position[:, 1, None, None]
        cos, sin = cos[:, None], sin[:, None]
        u, v = cos * x + sin * y, cos * y - sin * x
        layers = []
        for at_u, at_v, half_u, half_v in _BOXES:
            edge = np.maximum(np.abs(u - at_u) - half_u, np.abs(v - at_v) - half_v)
            layers.append((self._cover(edge - _LINE), _SLATE))
            layers.append((self._cover(edge + _LINE), np.minimum(_BRIGHTER * _SLATE, 255)))
        _paint(canvas, places, layers)

    def _samples(self, middle: Floats, radius: float) -> tuple[Floats, Floats, tuple[Any, ...]]:
        """World coordinates of the samples around each point, and the pixels they belong to."""
        fine, cell, margin = self._fine, self._cell, self._margin
        side = min(int(np.ceil(2 * radius / float(cell))) + 1, self.size + margin)
        first = np.floor((middle - np.float32(radius)) / cell).astype(np.int64)
        # Shapes outside the picture are drawn in the margin, which is cut off.
        first = np.clip(first, -margin, self.size + margin - side)
        step = (np.arange(side * fine, dtype=np.float32) + np.float32(0.5)) * (cell / fine)
        # A raster's pixel i has its middle at i, since pygame rounds.
        begin = first.astype(np.float32) * cell - np.float32(0.5)
        x, y = (begin[:, axis, None] + step for axis in (0, 1))
        columns, rows = (first[:, axis, None] + np.arange(side) + margin for axis in (0, 1))
        each = np.arange(len(middle))[:, None, None]
        return x[:, None, :], y[:, :, None], (each, rows[:, :, None], columns[:, None, :])

    def _cover(self, distance: Floats) -> Floats:
        """The covered share of each pixel, from the samples' signed distances to an edge."""
        fine = self._fine
        width = np.float32(self._cell / fine)
        inside: Floats = np.clip(0.5 - distance / width, 0, 1, dtype=np.float32)
        if fine == 1:
            return inside
        n, height, across = inside.shape
        inside = inside.reshape(n, height // fine, fine, across // fine, fine)
        return inside.mean((2, 4), dtype=np.float32)


def _paint(canvas: Pixels, places: tuple[Any, ...], layers: list[tuple[Floats, Floats]]) -> None:
    """Blend colours into the pixels, by the covered share."""
    n, rows, columns = places
    for c in range(3):
        value = canvas[n, c, rows, columns].astype(np.float32)
        for cover, colour in layers:
            value += cover * (colour[c] - value)
        canvas[n, c, rows, columns] = np.rint(value).astype(np.uint8)


def _shrunk(picture: Pixels, size: int) -> Floats:
    """The mean of each pixel's area: [512, 512, 3] -> [size, size, 3]."""
    edges = np.linspace(0, WORLD, size + 1)
    whole = np.floor(edges).astype(int)
    mean = picture.astype(np.float64)
    for axis in (0, 1):
        total = np.concatenate([np.zeros_like(mean.take([0], axis)), mean.cumsum(axis)], axis)
        rest = np.expand_dims(edges - whole, (1, 2) if axis == 0 else (0, 2))
        at, after = total.take(whole, axis), total.take(np.minimum(whole + 1, WORLD), axis)
        mean = np.diff(at + rest * (after - at), axis=axis) / (WORLD / size)
    return mean.astype(np.float32)
