"""Shared by the MuJoCo worlds: workers, the graphics backend, and errors without one."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from worldmodel.worlds._box import BoxWorld
from worldmodel.worlds._processes import Workers
from worldmodel.worlds.contract import Floats, Pixels

__all__ = ["MujocoWorld", "draw_plainly", "gl_renderer", "load", "named_when_it_fails"]

_CELL = 0.006  # side in metres: less than half a pixel of the cube's frames at 64 px


class MujocoWorld(BoxWorld):
    """A world with simulators for one image size; `workers=None` is one per core, up to 16."""

    simulator: Callable[[int], Any]

    def __init__(self, image_size: int = 64, *, workers: int | None = None) -> None:
        super().__init__(image_size)
        num = min(16, os.cpu_count() or 1) if workers is None else workers
        self._workers = Workers(partial(self.simulator, image_size), num)

    def step(self, states: Floats, actions: Floats) -> Floats:
        return self._workers.call("step", states, actions)

    def render(self, states: Floats) -> Pixels:
        return self._workers.call("draw", states)

    def renderer(self) -> str:
        return str(self._workers.call("renderer", np.zeros(1))[0])


def load(module: str) -> Any:
    """Import what draws with MuJoCo: on Linux without a screen, unless MUJOCO_GL is set."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
        # Otherwise PyOpenGL chooses X11.
        os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
        # There is one worker per core, so Mesa needs no threads of its own.
        os.environ.setdefault("LP_NUM_THREADS", "1")
    with named_when_it_fails():
        return importlib.import_module(module)


def draw_plainly(model: Any, image_size: int) -> None:
    """In small frames no shadows, reflections, multisampling, and no details of meshes.

    They are slow in software. Call it before the first frame.
    """
    if image_size < 112:
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        model.mat_reflectance[:] = model.light_castshadow[:] = 0
        for mesh in range(model.nmesh):
            _coarsen(model, mesh)


def _coarsen(model: Any, mesh: int) -> None:
    """Draw fewer triangles: each corner moves to the first vertex in its cell of a grid.

    Triangles that become lines or equal others are dropped. Physics reads the vertices, which stay.
    """
    first, num = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    cells = np.floor(model.mesh_vert[first : first + num] / _CELL).astype(int)
    _, kept, place = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    first, num = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    of_corners = model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord
    faces, normals, textures = (own[first : first + num] for own in of_corners)
    corners = place.ravel()[faces]
    sides = np.sort(corners, axis=1)
    _, once = np.unique(sides, axis=0, return_index=True)
    some = once[(np.diff(sides[once]) > 0).all(1)]
    if len(some):
        faces[: len(some)] = kept[corners[some]]
        normals[: len(some)], textures[: len(some)] = normals[some], textures[some]
        model.mesh_facenum[mesh] = len(some)


@contextmanager
def named_when_it_fails() -> Iterator[None]:
    """Turn any error while drawing into one that names the remedy."""
    try:
        yield
    except Exception as error:
        used = os.environ.get("MUJOCO_GL", "the system's default")
        raise OSError(
            f"cannot draw with MUJOCO_GL={used} ({type(error).__name__}: {error}); "
            "MUJOCO_GL=egl needs libEGL (Debian: libegl1 and libgl1-mesa-dri, or NVIDIA's driver), "
            "MUJOCO_GL=osmesa needs libosmesa6"
        ) from error


def gl_renderer() -> str:
    """The name of the graphics driver, in the current context."""
    gl: Any = importlib.import_module("OpenGL.GL")
    gl.glGetError()  # clear an error that MuJoCo left
    name = gl.glGetString(gl.GL_RENDERER)
    return f"{os.environ.get('MUJOCO_GL', 'default')}: {name.decode() if name else 'unknown'}"
