"""Push-T's physics by Chipmunk's own functions, which pymunk's library holds.

Every step begins in a space that is set up anew, so that a state is all there is. pymunk's objects
make that dear: four fifths of a step went into them. The same calls in the same order without the
objects give the same bits.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Physics"]

Floats = NDArray[np.float32]

_SUBSTEPS = 10  # of 0.01 s
_REACH = 100.0  # of an action of 1


class Physics:
    """Steps of gym-pusht's world from any state.

    Args:
        env: gym-pusht's environment; its constants are read, and it is left alone afterwards.
    """

    def __init__(self, env: Any) -> None:
        chipmunk = importlib.import_module("pymunk._chipmunk_cffi")
        self._lib, ffi = chipmunk.lib, chipmunk.ffi
        env._setup()
        self._k_p, self._k_v, self._dt = float(env.k_p), float(env.k_v), float(env.dt)
        self._damping = float(env.space.damping)
        block = env.block
        self._mass, self._moment = float(block.mass), float(block.moment)
        self._gravity = tuple(block.center_of_gravity)
        (disc,) = env.agent.shapes
        self._radius = float(disc.radius)
        self._polygons = []
        for shape in env._block_shapes:
            corners = [tuple(v) for v in shape.get_vertices()]
            self._polygons.append((len(corners), ffi.new("cpVect[]", corners)))
        walls = [shape for shape in env.space.shapes if type(shape).__name__ == "Segment"]
        self._walls = [(tuple(w.a), tuple(w.b), float(w.radius)) for w in walls]

    def step(self, state: Floats, action: Floats) -> Floats:
        """A tenth of a second: [10], [2] -> [10]."""
        lib, dt = self._lib, self._dt
        ax, ay, bx, by, angle, vx, vy, ux, uy, spin = state.tolist()
        space = lib.cpSpaceNew()
        lib.cpSpaceSetDamping(space, self._damping)
        ground, agent = lib.cpBodyNewStatic(), lib.cpBodyNewKinematic()
        block = lib.cpBodyNew(self._mass, self._moment)
        shapes = [lib.cpSegmentShapeNew(ground, *wall) for wall in self._walls]
        shapes.append(lib.cpCircleShapeNew(agent, self._radius, (0.0, 0.0)))
        for count, corners in self._polygons:
            shapes.append(lib.cpPolyShapeNewRaw(block, count, corners, 0.0))
        lib.cpBodySetCenterOfGravity(block, self._gravity)
        try:
            lib.cpSpaceAddBody(space, ground)
            for shape in shapes[:-3]:
                lib.cpSpaceAddShape(space, shape)
            lib.cpSpaceAddBody(space, agent)
            lib.cpSpaceAddShape(space, shapes[-3])
            lib.cpSpaceAddBody(space, block)
            lib.cpSpaceAddShape(space, shapes[-2])
            lib.cpSpaceAddShape(space, shapes[-1])
            lib.cpBodySetPosition(agent, (ax, ay))
            lib.cpBodySetVelocity(agent, (vx, vy))
            # The angle first: turning about the centre of gravity moves the position.
            lib.cpBodySetAngle(block, angle)
            lib.cpBodySetPosition(block, (bx, by))
            lib.cpBodySetVelocity(block, (ux, uy))
            lib.cpBodySetAngularVelocity(block, spin)
            ahead = np.clip(np.array([ax, ay]) + _REACH * action.astype(np.float64), 0.0, 512.0)
            x, y = ahead.tolist()
            k_p, k_v, at, step = self._k_p, self._k_v, lib.cpBodyGetPosition, lib.cpSpaceStep
            place = at(agent)
            for _ in range(_SUBSTEPS):
                vx += (k_p * (x - place.x) - k_v * vx) * dt
                vy += (k_p * (y - place.y) - k_v * vy) * dt
                lib.cpBodySetVelocity(agent, (vx, vy))
                step(space, dt)
                place = at(agent)
            middle, going = at(block), lib.cpBodyGetVelocity(block)
            turned = np.float32(lib.cpBodyGetAngle(block) % (2 * np.pi)) % np.float32(2 * np.pi)
            spin = lib.cpBodyGetAngularVelocity(block)
            moving = (vx, vy, going.x, going.y, spin)
            return np.array([place.x, place.y, middle.x, middle.y, turned, *moving], np.float32)
        finally:
            lib.cpSpaceFree(space)
            for shape in shapes:
                lib.cpShapeFree(shape)
            for body in (ground, agent, block):
                lib.cpBodyFree(body)
