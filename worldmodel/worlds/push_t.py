"""Push-T: a round agent and a block in the shape of a T, simulated by gym-pusht's physics."""

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds._box import BoxWorld
from worldmodel.worlds._processes import Workers
from worldmodel.worlds._push_t_pictures import WORLD, Pictures
from worldmodel.worlds.contract import Expert, Flags, Floats, Pixels
from worldmodel.worlds.push_t_pusher import AGENT, PushTPusher, clearance, to_block

__all__ = ["PushT"]

_OPENCV = ("opencv-python", "opencv-python-headless")  # either will do
_SUBSTEPS = 10  # of 0.01 s
_REACH = 100.0  # of an action of 1


class PushT(BoxWorld):
    """The world of gym-pusht, with states and actions as in the published data.

    A state is [agent x, y, block x, y, angle in [0, 2π), agent velocity x, y], the published seven,
    then the block's velocity x, y and spin. Lengths are the world's, a square of 512, y downwards.
    States of seven dims are accepted, with a block at rest. An action names a point 100 × action
    from the agent, kept inside the square; a spring pulls the agent there for a tenth of a second.
    `workers` processes simulate; 0 means this one.

    The green T in the picture is where gym-pusht draws it; it is not the goal of a pair. At 512
    pixels gym-pusht draws. Every other size is drawn for many states at once by signed distances,
    which differ from its shrunken picture by a sixth of a grey level on average.

    Source: gym-pusht; relative actions and success as in stable-worldmodel's Push-T (LeWM,
        arXiv:2603.19312, Section 4), whose reset also simulates a hundredth of a second.
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
    published = 7
    package = "gym_pusht"
    distributions = ("gym-pusht", "pymunk", "pygame", "numpy", *_OPENCV)

    def __init__(self, image_size: int = 64, *, workers: int = 0) -> None:
        super().__init__(image_size)
        self._workers = Workers(_Physics, workers)
        self._pictures: Pictures | None = None
        self._env: Any = None  # gym-pusht's, which draws

    def step(self, states: Floats, actions: Floats) -> Floats:
        """A tenth of a second, in the workers: [N, 10], [N, 2] -> [N, 10]."""
        return self._workers.call("step", states, actions)

    def render(self, states: Floats) -> Pixels:
        """Pictures, in this process: [N, 10] -> [N, 3, H, W]."""
        self._env = self._env or _environment()
        if self.image_size == WORLD:
            return np.stack([self._picture(state).transpose(2, 0, 1) for state in states])
        self._pictures = self._pictures or Pictures(self._picture(None), self.image_size)
        return self._pictures.draw(states)

    def renderer(self) -> str:
        """Name of the renderer of this size."""
        return "pygame" if self.image_size == WORLD else "signed distances"

    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Starts as gym-pusht draws them, at rest, with the agent outside the block."""
        states = np.zeros((num, self.state_dim), np.float32)
        todo = np.arange(num)
        while len(todo):
            states[todo, :2] = rng.integers(50, 450, (len(todo), 2))
            states[todo, 2:4] = rng.integers(100, 400, (len(todo), 2))
            states[todo, 4] = rng.uniform(0, 2 * np.pi, len(todo))
            todo = todo[self.clearance(states[todo]) < 2.0]
        return states

    def success(self, states: Floats, goals: Floats) -> Flags:
        """Whether positions and angle are both within their tolerances."""
        return self.distance(states, goals) < 1

    def distance(self, states: Floats, goals: Floats) -> Floats:
        """The larger of the two differences, in units of its tolerance: [...]."""
        position = np.linalg.norm(states[..., :4] - goals[..., :4], axis=-1)
        turn = np.abs(states[..., 4] - goals[..., 4]) % (2 * np.pi)
        angle = np.minimum(turn, 2 * np.pi - turn)
        worse = np.maximum(position / self.position_tolerance, angle / self.angle_tolerance)
        return worse.astype(np.float32)

    def clearance(self, states: Floats) -> NDArray[np.float64]:
        """Gap between agent and block, below 0 where they overlap: [N]."""
        s = states.astype(np.float64)
        return clearance(to_block(s[:, None, :2], s[:, 2:4], s[:, 4]))[:, 0] - AGENT

    def expert(self, goals: Floats) -> Expert:
        """The scripted pusher without noise: block first, then the agent."""
        return PushTPusher(goals).act

    def _picture(self, state: Floats | None) -> Pixels:
        """gym-pusht's picture of a state, or of walls and the green T alone: [512, 512, 3]."""
        env = self._env
        env._setup()
        if state is None:
            env.space.remove(env.agent, *env.agent.shapes, env.block, *env.block.shapes)
        else:
            values = state.tolist()
            env.agent.position, env.block.angle = values[:2], values[4]
            env.block.position = values[2:4]
            for body in (env.agent, env.block):
                env.space.reindex_shapes_for_body(body)  # or the picture is out of date
        return env._get_img(env._draw(), WORLD, WORLD)


class _Physics:
    """gym-pusht's steps from any state, by direct calls of Chipmunk in pymunk's library.

    Every step sets a new space up, four times faster without pymunk's objects, with the same bits.
    """

    def __init__(self) -> None:
        chipmunk = importlib.import_module("pymunk._chipmunk_cffi")
        self._lib, ffi = chipmunk.lib, chipmunk.ffi
        env = _environment()
        env._setup()
        block, (disc,) = env.block, env.agent.shapes
        self._k_p, self._k_v, self._dt = float(env.k_p), float(env.k_v), float(env.dt)
        self._damping, self._radius = float(env.space.damping), float(disc.radius)
        self._mass, self._moment = float(block.mass), float(block.moment)
        self._gravity = tuple(block.center_of_gravity)
        outlines = [[tuple(v) for v in shape.get_vertices()] for shape in env._block_shapes]
        self._polygons = [(len(o), ffi.new("cpVect[]", o)) for o in outlines]
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
        walls = [lib.cpSegmentShapeNew(ground, *wall) for wall in self._walls]
        disc = [lib.cpCircleShapeNew(agent, self._radius, (0.0, 0.0))]
        tee = [lib.cpPolyShapeNewRaw(block, n, corners, 0.0) for n, corners in self._polygons]
        lib.cpBodySetCenterOfGravity(block, self._gravity)
        try:
            for body, shapes in ((ground, walls), (agent, disc), (block, tee)):
                lib.cpSpaceAddBody(space, body)
                for shape in shapes:
                    lib.cpSpaceAddShape(space, shape)
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
            moving = (vx, vy, going.x, going.y, lib.cpBodyGetAngularVelocity(block))
            return np.array([place.x, place.y, middle.x, middle.y, turned, *moving], np.float32)
        finally:
            lib.cpSpaceFree(space)
            for shape in (*walls, *disc, *tee):
                lib.cpShapeFree(shape)
            for body in (ground, agent, block):
                lib.cpBodyFree(body)


def _environment() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    return importlib.import_module("gym_pusht.envs.pusht").PushTEnv()
