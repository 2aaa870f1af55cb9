"""What the two MuJoCo worlds share: workers, which graphics library draws, and what without one."""

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

__all__ = ["PLAIN_BELOW", "MujocoWorld", "choose_backend", "gl_renderer", "named_when_it_fails"]

# Smaller frames are drawn without shadows, reflections and multisampling, on which a software
# renderer spends nearly all its time. The published frames of 224 are drawn with all of it.
PLAIN_BELOW = 112

_REMEDY = (
    "MUJOCO_GL=egl needs libEGL (Debian: libegl1 and libgl1-mesa-dri, or NVIDIA's driver), "
    "MUJOCO_GL=osmesa needs libosmesa6"
)


class MujocoWorld(BoxWorld):
    """A world whose simulators are made for an image size; None means one per core, up to 16."""

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


def choose_backend() -> None:
    """Draw without a screen on Linux unless MUJOCO_GL says otherwise; before mujoco is imported."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
        # PyOpenGL looks for its platform by itself, and finds X11.
        os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
        # One worker per core: Mesa's own threads would fight over them.
        os.environ.setdefault("LP_NUM_THREADS", "1")


@contextmanager
def named_when_it_fails() -> Iterator[None]:
    """Whatever goes wrong while drawing becomes one error that names the remedy."""
    try:
        yield
    except Exception as error:
        used = os.environ.get("MUJOCO_GL", "the system's default")
        raise OSError(
            f"cannot draw with MUJOCO_GL={used} ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error


def gl_renderer(gl: Any) -> str:
    """The graphics driver's name, in the context that is current."""
    gl.glGetError()  # one that MuJoCo left behind is not ours
    name = gl.glGetString(gl.GL_RENDERER)
    return f"{os.environ.get('MUJOCO_GL', 'default')}: {name.decode() if name else 'unknown'}"
