"""OGBench's cube: a robot arm over a table with one cube, ogbench behind it."""

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
from worldmodel.worlds.cube_picker import CUBE, CubePicker

__all__ = ["Cube"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_QPOS, _QVEL = 21, 20
_READ = (
    "proprio/effector_pos",
    "proprio/effector_yaw",
    "proprio/gripper_opening",
    "proprio/gripper_contact",
)


class Cube:
    """The single cube of OGBench, its arm drawn nearly transparent as its pixels are.

    A state is the published `qpos` [21] and `qvel` [20], and behind them what a policy reads from
    them: effector x, y, z and yaw, gripper opening and contact. `start` looks at the first 41, so
    published states of 41 dims are taken too. An action in [−1, 1]⁵ moves the effector by up to
    5 cm along each axis, turns it by up to 0.3 rad and opens or closes the gripper, for 0.05 s.

    Every step begins from nothing but the state, so that a state is all there is: from a recorded
    state the recorded actions lead to the recorded states, bit for bit.

    Args:
        image_size: side of the frames, seen by the camera `front_pixels`; below 112 they are drawn
            without shadows, reflections and multisampling, many times faster in software.
        workers: processes that simulate and draw, by default one per core up to 16; 0 does it in
            this one, where importing triton after the first frame crashes.
    Source: OGBench, `cube-single`; success as in its data collection mode and in
        stable-worldmodel's cube (LeWM, arXiv:2603.19312, Section 4).
    """

    name = "cube"
    criterion = (
        "the cube's centre within 4 cm of its goal, whatever the arm does, as in OGBench and "
        "stable-worldmodel's cube (_compute_successes)"
    )
    tolerance = 0.04
    state_dim = _QPOS + _QVEL + 6
    action_dim = 5
    action_low = np.full(5, -1, np.float32)
    action_high = np.full(5, 1, np.float32)

    def __init__(self, image_size: int = 64, *, workers: int | None = None) -> None:
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, got {image_size}")
        require("ogbench", "cube")
        self.image_size = image_size
        self._workers = Workers(
            partial(_Simulator, image_size), cores() if workers is None else workers
        )

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as OGBench draws them for its data: arm, cube and cube's angle anywhere."""
        return self._workers.begin(rng.integers(0, 2**31, num))

    def start(self, states: Floats) -> Session:
        """One arm in each state, [N, 47] or [N, 41].

        Raises: ValueError if the shape is another or a state is not finite.
        """
        return SimulatedSession(
            self._workers, self._whole(states), self.action_low, self.action_high
        )

    def draw(self, states: Floats) -> Pixels:
        """Pictures of states [N, 47] or [N, 41]: [N, 3, H, W]."""
        return self._workers.draw(self._whole(states))

    def success(self, states: Floats, goals: Floats) -> NDArray[np.bool_]:
        """Whether each cube is within the tolerance of its goal."""
        out: NDArray[np.bool_] = self.distance(states, goals) <= self.tolerance
        return out

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """Distance of the cube from its goal, metres: [...]."""
        out: Floats = np.linalg.norm(states[..., CUBE] - goals[..., CUBE], axis=-1)
        return out.astype(np.float32)

    def idle(self, states: Floats) -> Floats:
        """Zeros: the effector is held where it is."""
        return np.zeros((len(states), self.action_dim), np.float32)

    def expert(self, goals: Floats) -> Expert:
        """The scripted picker without noise: the cube to its goal, where it lies or hangs."""
        return CubePicker(goals[:, CUBE]).act

    def versions(self) -> dict[str, str]:
        """OGBench's scene, MuJoCo's physics, and the driver that draws."""
        names = ("ogbench", "dm_control", "mujoco", "numpy")
        return {**{name: version(name) for name in names}, "rendering": self._workers.renderer()}

    def _whole(self, states: Floats) -> Floats:
        if states.ndim == 2 and states.shape[1] == _QPOS + _QVEL:
            states = np.pad(states, ((0, 0), (0, self.state_dim - states.shape[1])))
        return check_states(states, self.state_dim)


class _Simulator:
    """OGBench's environment, its physics reset for every call."""

    def __init__(self, image_size: int) -> None:
        _mujoco.choose_backend()
        with _mujoco.named_when_it_fails():
            self._mujoco: Any = importlib.import_module("mujoco")
            cube: Any = importlib.import_module("ogbench.manipspace.envs.cube_env")
        self._env: Any = cube.CubeEnv(
            env_type="single",
            ob_type="pixels",
            mode="data_collection",
            visualize_info=False,
            width=image_size,
            height=image_size,
        )
        # A reset returns an observation, which is a picture: nobody has asked for one yet.
        self._env.compute_observation = lambda: None
        self._env.reset(seed=0)
        self._plain = image_size < _mujoco.PLAIN_BELOW
        if self._plain:
            _mujoco.without_effects(self._env.model)

    def begin(self, seed: np.int64) -> Floats:
        """A start of OGBench's own."""
        self._env.reset(seed=int(seed))
        return self._read()

    def step(self, state: Floats, action: Floats) -> Floats:
        env = self._put(state)
        env.set_control(action.astype(np.float64))
        self._mujoco.mj_step(env.model, env.data, nstep=env._n_steps)
        self._mujoco.mj_rnePostConstraint(env.model, env.data)
        return self._read()

    def draw(self, state: Floats) -> Pixels:
        env = self._put(state)
        with _mujoco.named_when_it_fails():
            image = env.render(scene_callback=self._unreflected if self._plain else None)
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def renderer(self) -> str:
        self.draw(self._read())
        gl: Any = importlib.import_module("OpenGL.GL")
        self._env._renderer._gl_context.make_current()
        return _mujoco.gl_renderer(gl)

    def _unreflected(self, scene: Any) -> None:
        flags = self._mujoco.mjtRndFlag
        scene.flags[[int(flags.mjRND_SHADOW), int(flags.mjRND_REFLECTION)]] = 0

    def _put(self, state: Floats) -> Any:
        env, mujoco = self._env, self._mujoco
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:], env.data.qvel[:] = state[:_QPOS], state[_QPOS : _QPOS + _QVEL]
        mujoco.mj_forward(env.model, env.data)
        return env

    def _read(self) -> Floats:
        env = self._env
        seen = env.compute_ob_info()
        parts = [env.data.qpos, env.data.qvel, *(np.ravel(seen[name]) for name in _READ)]
        return np.concatenate(parts).astype(np.float32)
