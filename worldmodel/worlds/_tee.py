"""The T of Push-T, seen from itself: two boxes, their outline, and how a push moves them.

Lengths are the world's, a square of 512. In the block's own frame the origin is the middle of the
bar's top, which is the position that states hold; the body turns about `CENTRE`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["AGENT", "CENTRE", "CONTACTS", "INWARD", "MOMENT", "clearance", "to_block", "to_world"]

Array = NDArray[np.float64]

AGENT = 15.0  #: radius of the agent
CENTRE = np.array([0.0, 45.0])  #: centre of gravity: the mean of the two boxes' centres
MOMENT = 3000.0  #: moment of inertia over mass, in squared lengths

_BOXES = np.array([[0, 15, 60, 15], [0, 75, 15, 45]], float)  # middle x, y and half sides
_CORNERS = ((-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30))
_SPACING = 6.0


def to_world(points: Array, position: Array, angle: Array) -> Array:
    """From the block's frame [N, P, 2] to the world's, for blocks at [N, 2] turned by [N]."""
    return points @ _turn(angle).transpose(0, 2, 1) + position[:, None]


def to_block(points: Array, position: Array, angle: Array) -> Array:
    """From the world's frame [N, P, 2] to the block's."""
    return (points - position[:, None]) @ _turn(angle)


def clearance(points: Array) -> Array:
    """Distance of points [..., 2] in the block's frame to the T; 0 or less inside it."""
    gaps = []
    for box in _BOXES:
        beyond = np.abs(points - box[:2]) - box[2:]
        outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
        gaps.append(outside + np.minimum(beyond.max(-1), 0))
    gap: Array = np.minimum(*gaps)
    return gap


def _turn(angle: Array) -> Array:
    """Rotation matrices [N, 2, 2]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _outline() -> tuple[Array, Array]:
    """Where the agent can touch the T, and the direction in which it then pushes: [P, 2] each."""
    points, inward = [], []
    for start, end in zip(_CORNERS, (*_CORNERS[1:], _CORNERS[0]), strict=True):
        a, b = np.array(start, float), np.array(end, float)
        length = np.linalg.norm(b - a)
        along = (b - a) / length
        spots = np.arange(_SPACING / 2, length, _SPACING)
        points += [a + t * along for t in spots]
        inward += [np.array([-along[1], along[0]])] * len(spots)  # clockwise, y downwards
    contacts, normals = np.stack(points), np.stack(inward)
    # In the inner corners the agent would touch the other arm first.
    free = clearance(contacts - AGENT * normals) > AGENT - 1e-6
    return contacts[free], normals[free]


CONTACTS, INWARD = _outline()
