"""Reacher: an arm of two links in the plane, dm_control behind it."""

from __future__ import annotations

import importlib
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds import _mujoco
from worldmodel.worlds._processes import SimulatedSession, Workers, check_states, cores, require
from worldmodel.worlds.contract import Expert, Session
from worldmodel.worlds.reacher_reach import steer

__all__ = ["Reacher"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Reacher:
    """The arm of dm_control's suite, without the target that its tasks draw.

    A state is [shoulder, wrist, their velocities], radians; the shoulder turns without end, the
    wrist stays within ±160°. An action in [−1, 1]² is the torque at both joints for 0.02 s.

    Every step begins from nothing but the state, so that a state is all there is: from a recorded
    state the recorded actions lead to the recorded states, bit for bit.

    Args:
        image_size: side of the frames; below 112 they are drawn without shadows, reflections and
            multisampling, many times faster in software.
        workers: processes that simulate and draw, by default one per core up to 16; 0 does it in
            this one, where importing triton after the first frame crashes.
    Source: dm_control suite, `reacher`; the hidden target and success as in stable-worldmodel's
        task `qpos_match` (LeWM, arXiv:2603.19312, Section 4).
    """

    name = "reacher"
    criterion = (
        "both joint angles closer than 0.05 rad, not counted around the circle, as in "
        "stable-worldmodel's Reacher (ReacherQPosMatchTask)"
    )
    tolerance = 0.05
    state_dim = 4
    action_dim = 2
    action_low = np.full(2, -1, np.float32)
    action_high = np.full(2, 1, np.float32)
    wrist_limit = np.deg2rad(160)

    def __init__(self, image_size: int = 64, *, workers: int | None = None) -> None:
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, got {image_size}")
        require("dm_control", "reacher")
        self.image_size = image_size
        self._workers = Workers(
            partial(_Simulator, image_size), cores() if workers is None else workers
        )

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as dm_control draws them: any angles, at rest."""
        states = np.zeros((num, self.state_dim), np.float32)
        states[:, 0] = rng.uniform(-np.pi, np.pi, num)
        states[:, 1] = rng.uniform(-self.wrist_limit, self.wrist_limit, num)
        return states

    def start(self, states: Floats) -> Session:
        """One arm in each state [N, 4].

        Raises: ValueError if the shape is another or a state is not finite.
        """
        states = check_states(states, self.state_dim)
        return SimulatedSession(self._workers, states, self.action_low, self.action_high)

    def draw(self, states: Floats) -> Pixels:
        """Pictures of states: [N, 4] -> [N, 3, H, W]."""
        return self._workers.draw(check_states(states, self.state_dim))

    def success(self, states: Floats, goals: Floats) -> NDArray[np.bool_]:
        """Whether both joints are within the tolerance."""
        out: NDArray[np.bool_] = self.distance(states, goals) < self.tolerance
        return out

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """The larger of the two joints' differences, radians: [...]."""
        out: Floats = np.abs(states[..., :2] - goals[..., :2]).max(-1).astype(np.float32)
        return out

    def idle(self, states: Floats) -> Floats:
        """Zeros: no torque, and friction brings the arm to rest."""
        return np.zeros((len(states), 2), np.float32)

    def expert(self, goals: Floats) -> Expert:
        """A spring and a damper at each joint."""
        return partial(steer, goals)

    def versions(self) -> dict[str, str]:
        """dm_control's arm, MuJoCo's physics, and the driver that draws."""
        names = ("dm_control", "mujoco", "numpy")
        return {**{name: version(name) for name in names}, "rendering": self._workers.renderer()}


class _Simulator:
    """dm_control's physics, reset for every call."""

    def __init__(self, image_size: int) -> None:
        _mujoco.choose_backend()
        self._size = image_size
        with _mujoco.named_when_it_fails():
            reacher: Any = importlib.import_module("dm_control.suite.reacher")
        self._physics: Any = reacher.Physics.from_xml_string(*reacher.get_model_and_assets())
        self._physics.named.model.mat_rgba["target", "a"] = 0.0
        self._options: dict[str, Any] = {}
        if image_size < _mujoco.PLAIN_BELOW:
            _mujoco.without_effects(self._physics.model)
            self._options["render_flag_overrides"] = {"shadow": False, "reflection": False}

    def step(self, state: Floats, action: Floats) -> Floats:
        physics = self._put(state)
        physics.set_control(action.astype(np.float64))
        physics.step()
        return np.concatenate([physics.data.qpos, physics.data.qvel]).astype(np.float32)

    def draw(self, state: Floats) -> Pixels:
        physics = self._put(state)
        with _mujoco.named_when_it_fails():
            image = physics.render(self._size, self._size, camera_id=0, **self._options)
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def renderer(self) -> str:
        self.draw(np.zeros(4, np.float32))
        gl: Any = importlib.import_module("OpenGL.GL")
        with self._physics.contexts.gl.make_current() as context:
            return str(context.call(_mujoco.gl_renderer, gl))

    def _put(self, state: Floats) -> Any:
        physics = self._physics
        with physics.reset_context():
            physics.data.qpos[:], physics.data.qvel[:] = state[:2], state[2:]
        return physics
