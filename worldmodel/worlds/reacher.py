"""Reacher: dm_control's arm of two links in the plane, and its policies."""

from functools import partial
from typing import Any

import numpy as np

from worldmodel.worlds import _mujoco
from worldmodel.worlds.contract import Expert, Flags, Floats, Pixels

__all__ = ["Reacher", "ReacherReach", "steer"]

_STIFFNESS = np.array([6.0, 3.0])
_DAMPING = np.array([0.9, 0.2])
_NOISE = 0.3  # standard deviation of what `ReacherReach` adds to each torque
_PATIENCE = 60  # steps after which it gives a pose up


class _Simulator:
    """dm_control's physics; every call resets it."""

    def __init__(self, image_size: int) -> None:
        self._size = image_size
        reacher: Any = _mujoco.load("dm_control.suite.reacher")
        self._physics: Any = reacher.Physics.from_xml_string(*reacher.get_model_and_assets())
        self._physics.named.model.mat_rgba["target", "a"] = 0.0
        _mujoco.draw_plainly(self._physics.model, image_size)

    def step(self, state: Floats, action: Floats) -> Floats:
        physics = self._put(state)
        physics.set_control(action.astype(np.float64))
        physics.step()
        return np.concatenate([physics.data.qpos, physics.data.qvel]).astype(np.float32)

    def draw(self, state: Floats) -> Pixels:
        physics = self._put(state)
        with _mujoco.named_when_it_fails():
            image = physics.render(self._size, self._size, camera_id=0)
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def renderer(self, _: float) -> str:
        self.draw(np.zeros(4, np.float32))
        with self._physics.contexts.gl.make_current() as context:
            return str(context.call(_mujoco.gl_renderer))

    def _put(self, state: Floats) -> Any:
        physics = self._physics
        with physics.reset_context():
            physics.data.qpos[:], physics.data.qvel[:] = state[:2], state[2:]
        return physics


class Reacher(_mujoco.MujocoWorld):
    """The arm of dm_control's suite, without the target of its tasks.

    A state is [shoulder, wrist, their velocities], radians; the shoulder turns without limit, the
    wrist stays within ±160°. An action is the torque at both joints for 0.02 s.

    Args:
        image_size: side of the frames; below 112 without shadows, reflections and multisampling.
        workers: processes that simulate and draw, by default one per core up to 16; 0 uses this
            process, where importing triton after the first frame crashes.
    Source: dm_control suite, `reacher`; the hidden target and success as in stable-worldmodel's
        task `qpos_match` (LeWM, arXiv:2603.19312, Section 4). That task refuses the same pose on
        another winding of the shoulder: its rule is "published" in `worldmodel.worlds.rules`.
    """

    name = "reacher"
    criterion = (
        "both joint angles closer than 0.05 rad, the shoulder's counted around the circle; "
        "otherwise as in stable-worldmodel's Reacher (ReacherQPosMatchTask)"
    )
    tolerance = 0.05
    state_dim = 4
    action_dim = 2
    wrist_limit = np.deg2rad(160)
    package = "dm_control"
    simulator = _Simulator
    distributions = ("dm_control", "mujoco", "numpy")

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as dm_control draws them: random angles, at rest."""
        states = np.zeros((num, self.state_dim), np.float32)
        states[:, 0] = rng.uniform(-np.pi, np.pi, num)
        states[:, 1] = rng.uniform(-self.wrist_limit, self.wrist_limit, num)
        return states

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether both joints are within the tolerance."""
        return self.distance(states, goals) < self.tolerance

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """The larger of the two joints' differences, radians: [...]."""
        gap = states[..., :2] - goals[..., :2]
        # The shoulder turns without limit, so the same pose has many angles.
        shoulder = (gap[..., 0] + np.pi) % (2 * np.pi) - np.pi
        return np.maximum(np.abs(shoulder), np.abs(gap[..., 1])).astype(np.float32)

    def expert(self, goals: Floats) -> Expert:
        """A spring and a damper at each joint."""
        return partial(steer, goals)


def steer(goals: Floats, states: Floats) -> Floats:
    """Torques [N, 2] of a spring and a damper, at states [N, 4] towards goals [N, >= 2]."""
    pull = _STIFFNESS * (goals[:, :2] - states[:, :2]) - _DAMPING * states[:, 2:4]
    return np.clip(pull, -1, 1).astype(np.float32)


class ReacherReach:
    """Moves N arms to random poses, with noise; a new pose near the old one, or after 60 steps."""

    def __init__(self, num: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.goals = np.zeros((num, 2), np.float32)
        self.age = np.full(num, _PATIENCE)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, 4]."""
        rng, num = self.rng, len(states)
        near = np.abs(states[:, :2] - self.goals).max(-1) < 0.1
        new = near | (self.age >= _PATIENCE)
        turned = states[:, 0] + rng.uniform(-np.pi, np.pi, num)
        goals = np.stack([turned, rng.uniform(-2.5, 2.5, num)], axis=1)
        self.goals[new] = goals[new]
        self.age = np.where(new, 0, self.age + 1)
        noise = _NOISE * rng.standard_normal((num, 2))
        return np.clip(steer(self.goals, states) + noise, -1, 1).astype(np.float32)
