"""Any Gymnasium environment on MuJoCo that can be set to a state, OGBench's among them."""

from collections.abc import Callable
from functools import partial

import numpy as np

from worldmodel._extras import need
from worldmodel.worlds import _mujoco
from worldmodel.worlds._gymnasium import Simulator, Told
from worldmodel.worlds.contract import Flags, Floats

__all__ = ["Gymnasium"]

# How far two values of a part of qpos are apart. A quaternion and its negative turn alike.
_GAPS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "line": lambda a, b: np.linalg.norm(a - b, axis=-1),
    "angle": lambda a, b: np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)[..., 0],
    "turn": lambda a, b: 4 * np.arcsin(np.minimum(*_chords(a, b)).clip(max=2) / 2),
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
        self.name, self.simulator = f"gymnasium:{env}", partial(Simulator, env)
        need("gymnasium", "envs", self.name)
        super().__init__(image_size, workers=workers)
        told: Told = self._workers.call("describe", np.zeros(1))[0]
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

    def idle(self, states: Floats) -> Floats:
        """Zeros, or the bound that is nearest."""
        zeros = super().idle(states)
        return zeros.clip(self.action_low, self.action_high)

    def expert(self, goals: Floats) -> None:
        """There is none."""


def _chords(a: Floats, b: Floats) -> list[Floats]:
    return [np.linalg.norm(a + sign * b, axis=-1) for sign in (-1, 1)]
