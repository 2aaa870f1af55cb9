"""OGBench's cube: a robot arm over a table with one cube, and its policies."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds import _mujoco
from worldmodel.worlds.contract import Expert, Flags, Floats, Pixels

__all__ = ["CUBE", "Cube", "CubeCollector", "CubePicker"]

Array = NDArray[np.float64]

CUBE = slice(14, 17)
"""The cube's centre in a state."""
_QPOS, _QVEL = 21, 20
_QUATERNION = slice(17, 21)
_EFFECTOR, _YAW, _CONTACT = slice(41, 44), 44, 46
_READ = ("effector_pos", "effector_yaw", "gripper_opening", "gripper_contact")

_OVER = np.array([0.0, 0.0, 0.18])  # above a cube or a target, on the way to it
_LIFTED = 0.16  # effector height for travel
_NEAR, _AT = 0.04, 0.02
_LYING = 0.03  # a cube's centre lower than this is on the table
_HELD, _FREE = 0.5, 0.1  # gripper contact
_TABLE = np.array([[0.3, -0.3], [0.55, 0.3]])  # where targets lie
_AIR = np.array([[0.25, -0.35, 0.20], [0.6, 0.35, 0.35]])  # where the arm ends


class _Simulator:
    """OGBench's environment; every call resets its physics."""

    def __init__(self, image_size: int) -> None:
        self._mujoco: Any = _mujoco.load("mujoco")
        cube: Any = _mujoco.load("ogbench.manipspace.envs.cube_env")
        size: dict[str, Any] = {"width": image_size, "height": image_size}
        self._env: Any = cube.CubeEnv(
            "single", ob_type="pixels", mode="data_collection", visualize_info=False, **size
        )
        # A reset would draw a picture as its observation, which is not needed.
        self._env.compute_observation = lambda: None
        self._env.reset(seed=0)
        _mujoco.draw_plainly(self._env.model, image_size)

    def begin(self, seed: np.int64) -> Floats:
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
            image = env.render()
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def renderer(self, _: float) -> str:
        self.draw(self._read())
        self._env._renderer._gl_context.make_current()
        return _mujoco.gl_renderer()

    def _put(self, state: Floats) -> Any:
        env, mujoco = self._env, self._mujoco
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:], env.data.qvel[:] = state[:_QPOS], state[_QPOS : _QPOS + _QVEL]
        mujoco.mj_forward(env.model, env.data)
        return env

    def _read(self) -> Floats:
        env = self._env
        seen = env.compute_ob_info()
        readings = [np.ravel(seen[f"proprio/{name}"]) for name in _READ]
        return np.concatenate([env.data.qpos, env.data.qvel, *readings]).astype(np.float32)


class Cube(_mujoco.MujocoWorld):
    """The single cube of OGBench, with a nearly transparent arm as in its pixel tasks.

    A state is the published `qpos` [21] and `qvel` [20], then the readings of a policy: effector x,
    y, z and yaw, gripper opening and contact. Only the first 41 determine the future, so published
    states of 41 dims are accepted. An action moves the effector by up to 5 cm along each axis,
    turns it by up to 0.3 rad and opens or closes the gripper, for 0.05 s.

    Args:
        image_size: side of the frames, seen by the camera `front_pixels`; below 112 they are drawn
            without shadows, reflections and multisampling.
        workers: processes that simulate and draw, by default one per core up to 16; 0 uses this
            process, where importing triton after the first frame crashes.
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
    published = _QPOS + _QVEL
    package = "ogbench"
    simulator = _Simulator
    distributions = ("ogbench", "dm_control", "mujoco", "numpy")

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as OGBench draws them for its data: arm, cube and cube's angle random."""
        return self._workers.call("begin", rng.integers(0, 2**31, num))

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether each cube is within the tolerance of its goal."""
        return self.distance(states, goals) <= self.tolerance

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """Distance of the cube from its goal in metres: [...]."""
        out: Floats = np.linalg.norm(states[..., CUBE] - goals[..., CUBE], axis=-1)
        return out.astype(np.float32)

    def expert(self, goals: Floats) -> Expert:
        """The scripted picker without noise: the cube to its goal, on or above the table."""
        return CubePicker(goals[:, CUBE]).act


class CubePicker:
    """Picks each cube up, carries it to its target, releases it and moves the arm away.

    The rules depend on the present state alone, so the grasp restarts after a slip. Heights,
    thresholds and gains are those of OGBench's Markovian oracle, whose targets lie on the table.

    A cube is held at a target [N, 3] above the table. Cubes are turned to `yaws` [N], or not at
    all; the effectors end at `rests` [N, 3], or above the cube.
    """

    def __init__(
        self, targets: Floats, yaws: Array | None = None, rests: Array | None = None
    ) -> None:
        self.targets = targets.astype(np.float64)
        self.yaws, self.rests = yaws, rests
        self.done = np.zeros(len(targets), bool)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 5] in [−1, 1] for the states [N, 47]."""
        s, target = states.astype(np.float64), self.targets
        effector, cube, contact, at_yaw = s[:, _EFFECTOR], s[:, CUBE], s[:, _CONTACT], s[:, _YAW]
        w, x, y, z = s[:, _QUATERNION].T
        cube_yaw = _quarter(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)), at_yaw)
        lifted = effector[:, 2] > _LIFTED
        placed = np.linalg.norm(target - cube, axis=-1) <= _AT
        over = np.linalg.norm((cube - effector)[:, :2], axis=-1) <= _NEAR
        around = np.linalg.norm(cube - effector, axis=-1) <= _AT
        over_target = np.linalg.norm((target - cube)[:, :2], axis=-1) <= _NEAR
        rest = self.rests if self.rests is not None else cube + _OVER
        up = np.column_stack([cube[:, :2], np.full(len(s), 2 * _OVER[2])])
        aside = np.column_stack([cube[:, :2], np.full(len(s), 2 * _LIFTED)])

        # The first rule that applies: condition, where to, gripper (1 closes).
        rules = [
            (placed & (target[:, 2] > _LYING), target, 1.0),
            (placed & (contact >= _FREE), target, -1.0),
            (placed & ~lifted, aside, -1.0),
            (placed, rest, -1.0),
            (~over, cube + _OVER, -1.0),
            (~around, cube, -1.0),
            (contact <= _HELD, cube, 1.0),
            (~lifted & ~over_target, up, 1.0),
            (~over_target, target + _OVER, 1.0),
            (np.ones(len(s), bool), target, 1.0),
        ]
        which = np.stack([rule[0] for rule in rules]).argmax(0)
        goal = np.stack([rule[1] for rule in rules])[which, np.arange(len(s))]
        gripper = np.array([rule[2] for rule in rules])[which]
        self.done = (which == 3) & (np.linalg.norm(rest - effector, axis=-1) <= _NEAR)

        way = goal - effector
        length = np.linalg.norm(way, axis=-1, keepdims=True)
        # Full speed until close: slowing down earlier takes too long.
        move = np.where(length > _AT / 4, 2 * way / np.maximum(length, 1e-6), 5 * way)
        wanted = cube_yaw if self.yaws is None else _quarter(self.yaws, at_yaw)
        turn = np.where(which < 7, cube_yaw - at_yaw, wanted - cube_yaw)
        turn[placed] = 0.0
        return np.column_stack([move, 3 * turn, gripper]).clip(-1, 1).astype(np.float32)


class CubeCollector:
    """The picker with random targets and noise, for data collection.

    The noise of an arm has a standard deviation drawn evenly up to 0.1, three times as much for
    turning and ten times for the gripper. A target is dropped after 200 steps.

    Source: noise of stable-worldmodel's collection with OGBench's Markovian oracle.
    """

    def __init__(self, num: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.noise = rng.uniform(0, 0.1, (num, 1)) * np.array([1, 1, 1, 3, 10])
        self.picker = CubePicker(*self._targets(num))
        self.age = np.zeros(num, int)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 5] in [−1, 1] for the states [N, 47]."""
        picker = self.picker
        clean = picker.act(states)
        new = picker.done | (self.age >= 200)
        targets, yaws, rests = self._targets(len(states))
        picker.targets[new] = targets[new]
        if picker.yaws is not None and picker.rests is not None:
            picker.yaws[new], picker.rests[new] = yaws[new], rests[new]
        self.age = np.where(new, 0, self.age + 1)
        noise = self.noise * self.rng.standard_normal(clean.shape)
        return np.clip(clean + noise, -1, 1).astype(np.float32)

    def _targets(self, num: int) -> tuple[Floats, Array, Array]:
        rng = self.rng
        xy = rng.uniform(_TABLE[0], _TABLE[1], (num, 2))
        targets = np.concatenate([xy, np.full((num, 1), 0.02)], axis=1).astype(np.float32)
        return targets, rng.uniform(-np.pi, np.pi, num), rng.uniform(_AIR[0], _AIR[1], (num, 3))


def _quarter(yaw: Array, near: Array) -> Array:
    """`yaw` plus quarter turns, as close to `near` as possible: the same cube face."""
    quarter = np.pi / 2
    return near + (yaw - near + quarter / 2) % quarter - quarter / 2
