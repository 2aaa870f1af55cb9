"""Pictures of one disc over a background, for many states at once; colours of rooms and walls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["paint_discs", "paint_rooms", "sample_grid"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_FLOOR = (244, 241, 234)
_WALL = (62, 68, 84)
_AGENT = (222, 73, 55)
_FINE = 8  # samples a side of a pixel, for edges of walls between pixels


def paint_discs(frames: Pixels, centres: Floats, radius: float, size: float) -> Pixels:
    """Draw a disc into each frame, in place.

    Its edge is anti-aliased, so that a move of a fraction of a pixel shows.

    Args:
        frames: [N, 3, H, H], backgrounds.
        centres: [N, 2], x and y in the world's units.
        radius: of the disc, in the world's units.
        size: side of the world.
    Returns: `frames`.
    """
    side = frames.shape[-1]
    scale = side / size
    reach = int(np.ceil(radius * scale + 1))
    centre = centres * scale - 0.5
    offsets = np.arange(-reach, reach + 1)
    nearest = np.rint(centre).astype(np.int64)
    columns = np.clip(nearest[:, 0, None] + offsets, 0, side - 1)
    rows = np.clip(nearest[:, 1, None] + offsets, 0, side - 1)
    down = rows[:, :, None] - centre[:, 1, None, None]
    across = columns[:, None, :] - centre[:, 0, None, None]
    distance = np.hypot(down, across)
    cover = np.clip(radius * scale + 0.5 - distance, 0.0, 1.0)[..., None]
    each = np.arange(len(centres))[:, None, None]
    where = (each, slice(None), rows[:, :, None], columns[:, None, :])
    under = frames[where]
    frames[where] = np.rint(under + cover * (np.asarray(_AGENT, np.float32) - under))
    return frames


def sample_grid(image_size: int, size: float) -> NDArray[np.float64]:
    """Coordinates of the samples along one side, for `paint_rooms`: [image_size × 8]."""
    out: NDArray[np.float64] = (np.arange(image_size * _FINE) + 0.5) * size / (image_size * _FINE)
    return out


def paint_rooms(solid: NDArray[np.bool_]) -> Pixels:
    """Walls on a floor, each pixel the mean over its samples: [8 H, 8 H] -> [3, H, H]."""
    side = len(solid) // _FINE
    cover = solid.astype(np.float32).reshape(side, _FINE, side, _FINE).mean((1, 3))
    colours = np.asarray(_FLOOR)[:, None, None] * (1 - cover) + (
        np.asarray(_WALL)[:, None, None] * cover
    )
    out: Pixels = np.rint(colours).astype(np.uint8)
    return out
