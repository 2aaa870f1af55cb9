"""Push-T: a round agent, a block in the shape of a T, and gym-pusht behind them."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds import _tee
from worldmodel.worlds._processes import SimulatedSession, Workers, check_states, require
from worldmodel.worlds._push_t_physics import Physics
from worldmodel.worlds._push_t_pictures import WORLD, Pictures
from worldmodel.worlds.contract import Expert, Session
from worldmodel.worlds.push_t_pusher import PushTPusher

__all__ = ["PushT"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_PUBLISHED = 7  # dims of a state as published


class PushT:
    """The world of gym-pusht, with states and actions as in the published data.

    A state is [agent x, y, block x, y, angle in [0, 2π), agent velocity x, y], the published seven,
    and behind them the block's velocity x, y and spin. Lengths are the world's, a square of 512, y
    downwards. States of seven dims are taken too: their block is at rest.

    An action in [−1, 1]² names a point 100 × action from the agent, held inside the square; a
    spring draws the agent towards it for a tenth of a second.

    After every step the physics is set up anew from the state it has just reported, so that a
    state is all there is: from a recorded state the recorded actions lead to the recorded states,
    bit for bit. A simulator that runs on keeps contact forces that no state holds, and where the
    agent is pressed into the block a rounding error decides on which side it comes out.

    The green T in the picture lies where gym-pusht draws it and is not the goal of a pair. At 512
    pixels gym-pusht draws; every other size is drawn for many states at once by signed distances,
    which differ from its shrunken raster by a sixth of a grey level on average.

    Args:
        image_size: side of the frames.
        workers: processes that simulate; 0 does it in this one.
    Source: gym-pusht; relative actions and success as in stable-worldmodel's Push-T
        (LeWM, arXiv:2603.19312, Section 4), whose reset also lets a hundredth of a second pass.
    """

    name = "push-t"
    criterion = (
        "agent and block together (4 coordinates) closer than 20 of 512 units and the block's "
        "angle closer than 20 degrees, as in stable-worldmodel's Push-T (eval_state), after DINO-WM"
    )
    position_tolerance = 20.0
    angle_tolerance = np.pi / 9
    state_dim = 10
    action_dim = 2
    action_low = np.full(2, -1, np.float32)
    action_high = np.full(2, 1, np.float32)

    def __init__(self, image_size: int = 64, *, workers: int = 0) -> None:
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, got {image_size}")
        require("gym_pusht", "push-t")
        self.image_size = image_size
        self._simulation = _Simulation(image_size, workers)

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as gym-pusht draws them, everything at rest, none with the agent in the block."""
        states = np.zeros((num, self.state_dim), np.float32)
        todo = np.arange(num)
        while len(todo):
            states[todo, :2] = rng.integers(50, 450, (len(todo), 2))
            states[todo, 2:4] = rng.integers(100, 400, (len(todo), 2))
            states[todo, 4] = rng.uniform(0, 2 * np.pi, len(todo))
            todo = todo[self.clearance(states[todo]) < 2.0]
        return states

    def start(self, states: Floats) -> Session:
        """One agent in each state, [N, 10] or [N, 7].

        Raises: ValueError if the shape is another or a state is not finite.
        """
        return SimulatedSession(
            self._simulation, self._whole(states), self.action_low, self.action_high
        )

    def draw(self, states: Floats) -> Pixels:
        """Pictures of states [N, 10] or [N, 7]: [N, 3, H, W]."""
        return self._simulation.draw(self._whole(states))

    def success(self, states: Floats, goals: Floats) -> NDArray[np.bool_]:
        """Whether positions and angle are both within their tolerances."""
        out: NDArray[np.bool_] = self.distance(states, goals) < 1
        return out

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """The larger of the two differences, each as a multiple of its tolerance: [...]."""
        position = np.linalg.norm(states[..., :4] - goals[..., :4], axis=-1)
        turn = np.abs(states[..., 4] - goals[..., 4]) % (2 * np.pi)
        angle = np.minimum(turn, 2 * np.pi - turn)
        out: Floats = np.maximum(
            position / self.position_tolerance, angle / self.angle_tolerance
        ).astype(np.float32)
        return out

    def clearance(self, states: Floats) -> NDArray[np.float64]:
        """Gap between agent and block, below 0 where they overlap: [N]."""
        s = states.astype(np.float64)
        return _tee.clearance(_tee.to_block(s[:, None, :2], s[:, 2:4], s[:, 4]))[:, 0] - _tee.AGENT

    def idle(self, states: Floats) -> Floats:
        """Zeros: the spring holds the agent where it is."""
        return np.zeros((len(states), 2), np.float32)

    def expert(self, goals: Floats) -> Expert:
        """The scripted pusher without noise: block first, then the agent."""
        return PushTPusher(goals).act

    def versions(self) -> dict[str, str]:
        """gym-pusht's physics is pymunk; its pictures come from pygame, ours from its drawing."""
        # gym-pusht asks for opencv-python; its headless build does as well.
        names = (
            "gym-pusht",
            "pymunk",
            "pygame",
            "opencv-python",
            "opencv-python-headless",
            "numpy",
        )
        found = {name: known for name in names if (known := _version(name)) is not None}
        return {**found, "rendering": self._simulation.renderer()}

    def _whole(self, states: Floats) -> Floats:
        if states.ndim == 2 and states.shape[1] == _PUBLISHED:
            states = np.pad(states, ((0, 0), (0, self.state_dim - _PUBLISHED)))
        return check_states(states, self.state_dim)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class _Simulation:
    """Physics in this process or in workers, pictures in this one."""

    def __init__(self, image_size: int, workers: int) -> None:
        self._size = image_size
        self._workers = Workers(_Simulator, workers)
        self._pictures: Pictures | None = None
        self._painter: _Painter | None = None

    def step(self, states: Floats, actions: Floats) -> Floats:
        return self._workers.step(states, actions)

    def draw(self, states: Floats) -> Pixels:
        self._painter = self._painter or _Painter()
        if self._size == WORLD:
            return np.stack([self._painter.draw(state) for state in states])
        if self._pictures is None:
            self._pictures = Pictures(self._painter.empty(), self._size)
        return self._pictures.draw(states)

    def renderer(self) -> str:
        return "pygame" if self._size == WORLD else "signed distances"


class _Simulator:
    """gym-pusht's physics, set up anew for every call."""

    def __init__(self) -> None:
        self.step = Physics(_environment()).step


class _Painter:
    """gym-pusht's own pictures of 512 pixels."""

    def __init__(self) -> None:
        self._env = _environment()

    def draw(self, state: Floats) -> Pixels:
        """[S] -> [3, 512, 512]."""
        env, values = self._env, state.tolist()
        env._setup()
        env.agent.position, env.block.angle = values[:2], values[4]
        env.block.position = values[2:4]
        for body in (env.agent, env.block):
            env.space.reindex_shapes_for_body(body)  # pictures show where the shapes last were
        return np.ascontiguousarray(self._picture().transpose(2, 0, 1))

    def empty(self) -> Pixels:
        """Walls and the green T alone, [512, 512, 3]."""
        env = self._env
        env._setup()
        env.space.remove(env.agent, *env.agent.shapes, env.block, *env.block.shapes)
        return self._picture()

    def _picture(self) -> Pixels:
        drawn: Pixels = self._env._get_img(self._env._draw(), WORLD, WORLD)
        return drawn


def _environment() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    return importlib.import_module("gym_pusht.envs.pusht").PushTEnv()
