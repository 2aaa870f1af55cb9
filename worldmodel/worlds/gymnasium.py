"""Any Gymnasium environment on MuJoCo that can be set to a state, OGBench's among them."""

import importlib
import importlib.util
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from worldmodel._extras import install, need
from worldmodel.worlds import _mujoco
from worldmodel.worlds.contract import Flags, Floats, Pixels

__all__ = ["Gymnasium"]

_FREE, _BALL, _HINGE = 0, 1, 3  # joints, as MuJoCo numbers them
_ALIKE = 1e-2  # between a step after setting a state and one without: the contacts' warm start

# How far two values of a part of qpos are apart. A quaternion and its negative turn alike.
_GAPS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "line": lambda a, b: np.linalg.norm(a - b, axis=-1),
    "angle": lambda a, b: np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)[..., 0],
    "turn": lambda a, b: (
        4 * np.arcsin(np.linalg.norm([a - b, a + b], axis=-1).min(0).clip(max=2) / 2)
    ),
}


class Gymnasium(_mujoco.MujocoWorld):
    """An environment of Gymnasium's registry on MuJoCo, such as Swimmer-v5 or OGBench's mazes.

    A state is `qpos` and `qvel`; an action is one of the environment's own steps, in its units. The
    environment must offer `set_state(qpos, qvel)`, and a step after setting a state must lead where
    it goes by itself. Its reward and its ends of episodes are ignored; its resets are the starts.

    Goals are recorded states. Mazes, balls and cubes of OGBench have its own rule. Elsewhere every
    joint must be within `tolerance` (metres, radians) of the goal's, unlimited hinges counted
    around the circle; the place that Gymnasium's observations leave out is left out. A class of
    your own, as package.module:Mine, has another tolerance:

        class Mine(Gymnasium):
            tolerance = 0.1

            def __init__(self, image_size=64, **options):
                super().__init__("Swimmer-v5", image_size, **options)

    Frames come from the environment's own camera, or from its camera `track` if it has one. Below
    112 pixels they have no shadows, reflections and multisampling. OGBench's goal is not drawn.

    Args:
        env: its name in the registry, or module:name if a module registers it.
        image_size: side of the frames.
        workers: processes that simulate and draw, by default one per core up to 16; 0 uses this
            process, where importing triton after the first frame crashes.
    Raises: ImportError naming the extra if a package is missing; ValueError if the environment is
        unknown, cannot be set to a state, or has no bounded vector of actions.
    Source: Gymnasium's `MujocoEnv.set_state`; rules of OGBench, arXiv:2410.20092.
    """

    state_dim = action_dim = 0  # until the environment has said them
    tolerance = 0.2

    def __init__(self, env: str, image_size: int = 64, *, workers: int | None = None) -> None:
        self.name, self.simulator = f"gymnasium:{env}", partial(_Simulator, env)
        need("gymnasium", "envs", self.name)
        super().__init__(image_size, workers=workers)
        told: _Told = self._workers.call("describe", np.zeros(1))[0]
        self.state_dim, self.action_dim = told.state_dim, len(told.low)
        self.action_low, self.action_high, self._parts = told.low, told.high, told.parts
        if told.tolerance is not None:
            self.tolerance = told.tolerance
        self.criterion = told.criterion.format(self.tolerance)
        self.distributions = told.packages

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as the environment draws them in `reset`."""
        return self._workers.call("begin", rng.integers(0, 2**31, num))

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether every part of the goal is within the tolerance."""
        return self.distance(states, goals) <= self.tolerance

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """The largest gap of any part of the goal, metres or radians: [...]."""
        gaps = [_GAPS[kind](states[..., dims], goals[..., dims]) for kind, dims in self._parts]
        return np.max(gaps, axis=0).astype(np.float32)

    def expert(self, goals: Floats) -> None:
        """There is none."""


@dataclass(frozen=True)
class _Told:
    """What an environment says of itself."""

    state_dim: int
    low: Floats  #: [A]
    high: Floats  #: [A]
    parts: list[tuple[str, list[int]]]  #: of a goal: kind of gap, and entries of the state
    tolerance: float | None  #: of its own rule, or None
    criterion: str  #: with a place for the tolerance
    packages: tuple[str, ...]


class _Simulator:
    """A Gymnasium environment; every call sets its state."""

    def __init__(self, env: str, image_size: int) -> None:
        self._name, self._size = f"gymnasium:{env}", image_size
        here = importlib.util.find_spec("mujoco") is not None
        self._mujoco: Any = _mujoco.load("mujoco") if here else None
        self._env: Any = self._make(env)
        self._bare: Any = self._env.unwrapped
        kinds = type(self._bare).__mro__
        self._kinds = {k.__name__ for k in kinds if k.__module__.startswith("ogbench.")}
        self._reset(0)
        wanted = ("set_state", "model", "data")
        if missing := [name for name in wanted if getattr(self._bare, name, None) is None]:
            raise self._stuck(f"its class lacks {', '.join(missing)}")
        space, box = self._env.action_space, importlib.import_module("gymnasium.spaces").Box
        if not (isinstance(space, box) and len(space.shape) == 1 and space.is_bounded()):
            raise ValueError(f"{self._name} must take actions from a bounded Box [A], got {space}")
        self._physical = self._mujoco and isinstance(self._bare.data, self._mujoco.MjData)
        self._check()
        self._first, self._drawn = self.begin(np.int64(0)), False
        if self._physical:
            self._prepare_drawing()

    def begin(self, seed: np.int64) -> Floats:
        self._reset(int(seed))
        state = self._read()
        self._reset(0)  # goals and the like, which no state holds, are always the same
        return state

    def step(self, state: Floats, action: Floats) -> Floats:
        self._put(state)
        return self._act(state, action)

    def draw(self, state: Floats) -> Pixels:
        with _mujoco.named_when_it_fails():
            if not self._drawn:  # a free camera looks where the agent is in the first frame
                self._put(self._first)
                self._env.render()
                self._drawn = True
            self._put(state)
            image = self._env.render()
        if image.shape[:2] != (self._size, self._size):
            from PIL import Image

            small = Image.fromarray(image).resize((self._size,) * 2, Image.Resampling.BOX)
            image = np.asarray(small)
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def renderer(self, _: float) -> str:
        if not self._physical:
            return "the environment's own"
        self.draw(self._first)
        return _mujoco.gl_renderer()

    def describe(self, _: float) -> _Told:
        space, package = self._env.action_space, type(self._bare).__module__.partition(".")[0]
        return _Told(
            len(self._first), space.low.astype(np.float32), space.high.astype(np.float32),
            *self._rule(), tuple(dict.fromkeys(("gymnasium", package, "mujoco", "numpy"))),
        )  # fmt: skip

    def _rule(self) -> tuple[list[tuple[str, list[int]]], float | None, str]:
        """OGBench's rule for mazes, balls and cubes; for the others, how near a pose must be."""
        bare, model = self._bare, self._bare.model
        if "MazeEnv" in self._kinds:
            ball = "BallEnv" in self._kinds
            words = "x and y within {} of the goal's, as OGBench's compute_success"
            dims = [model.nq - 7, model.nq - 6] if ball else [0, 1]
            return [("line", dims)], bare._goal_tol, f"the ball's {words}" if ball else words
        if "CubeEnv" in self._kinds:
            joints = (model.joint(f"object_joint_{i}") for i in range(bare._num_cubes))
            parts = [("line", list(range(j.qposadr[0], j.qposadr[0] + 3))) for j in joints]
            words = "every cube's centre within {} of its goal, as OGBench's _compute_successes"
            return parts, 0.04, words
        # A place that Gymnasium keeps out of its observation is kept out of the goal, too.
        hidden = (getattr(bare, "observation_structure", None) or {}).get("skipped_qpos", 0)
        parts, kinds = [], (model.jnt_type, model.jnt_qposadr, model.jnt_limited)
        for kind, at, limited in zip(*kinds, strict=True):
            if kind == _FREE:
                parts.append(("line", list(range(max(at, hidden), at + 3))))
            if kind in (_FREE, _BALL):
                end = at + (7 if kind == _FREE else 4)
                parts.append(("turn", list(range(end - 4, end))))
            elif at >= hidden:
                parts.append(("angle" if kind == _HINGE and not limited else "line", [int(at)]))
        but = f", but for the first {hidden} of qpos, which its observation lacks" if hidden else ""
        return parts, None, (
            f"every joint within {{}} (m, rad) of the goal's{but}; this tolerance is ours, the "
            "environment has no rule for such goals"
        )  # fmt: skip

    def _make(self, env: str) -> Any:
        gymnasium: Any = importlib.import_module("gymnasium")
        if ":" not in env and env not in gymnasium.registry:
            with suppress(ModuleNotFoundError):
                importlib.import_module("ogbench")
        make = partial(gymnasium.make, env, render_mode="rgb_array", disable_env_checker=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of render modes and newer versions
                try:
                    return make(width=self._size, height=self._size)
                except TypeError:  # it knows no size: its frames are shrunk
                    return make()
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            module = env.rpartition(":")[0]
            if module and f"'{module}'" in str(error):
                none = f"there is no module {module!r} on Python's path or in the current folder"
                raise ValueError(f"{self._name}: {none}") from None
            hint = f"MuJoCo and OGBench come with {install('envs')}"
            raise ImportError(f"{self._name} lacks a package ({_line(error)}); {hint}") from error
        except Exception as error:
            raise ValueError(f"{self._name} cannot be made: {_line(error)}") from error

    def _check(self) -> None:
        """A step after setting a state must lead where the environment goes by itself."""
        space, after = self._env.action_space, self._read()
        for _ in range(5):
            before, action = after, space.sample()
            after = self._act(before, action)
        try:
            again = self.step(before, action)
        except Exception as error:
            raise self._stuck(f"set_state(qpos, qvel) fails, {_line(error)}") from error
        if not np.allclose(again, after, rtol=_ALIKE, atol=_ALIKE):
            raise self._stuck("after set_state(qpos, qvel) the next step leads elsewhere")

    def _stuck(self, why: str) -> ValueError:
        return ValueError(f"{self._name} cannot be set to a state: {why}")

    def _prepare_drawing(self) -> None:
        """Plain light for small frames, a camera that follows, no goal that no state holds."""
        model, mujoco = self._bare.model, self._mujoco
        _mujoco.draw_plainly(model, self._size)
        renderer = getattr(self._bare, "mujoco_renderer", None)
        if renderer is not None and renderer.camera_id == -1:
            follow = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
            renderer.camera_id = follow  # -1 again if there is none
        if "MazeEnv" in self._kinds:
            with suppress(KeyError):  # the tasks from pixels have none
                model.geom("target").rgba[3] = 0

    def _put(self, state: Floats) -> None:
        bare, values = self._bare, state.astype(np.float64)
        if self._physical:
            self._mujoco.mj_resetData(bare.model, bare.data)
        cut = len(bare.data.qpos)
        bare.set_state(values[:cut], values[cut:])

    def _act(self, state: Floats, action: Floats) -> Floats:
        # Where an environment leaves a step to chance, its state decides.
        seed = zlib.crc32(state.tobytes())
        self._bare.np_random = np.random.default_rng(seed)
        with _chance(seed):
            self._env.step(action)
        return self._read()

    def _reset(self, seed: int) -> None:
        with _chance(seed):
            self._env.action_space.seed(seed)
            self._env.reset(seed=seed)

    def _read(self) -> Floats:
        data = self._bare.data
        return np.concatenate([data.qpos, data.qvel]).astype(np.float32)


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which OGBench draws from, and put it back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
