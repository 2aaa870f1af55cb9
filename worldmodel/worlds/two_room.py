"""Two-Room: a disc, two rooms, a wall and a door; a gymnasium-like environment, and walkers."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel._arguments import checked
from worldmodel.records import as_seed
from worldmodel.worlds._discs import BORDER, THICKNESS, DiscWorld, paint_rooms, sample_grid
from worldmodel.worlds.contract import Floats, Pixels

__all__ = ["TwoRoom", "TwoRoomEnv", "TwoRoomExpert", "Walks", "collect"]


@checked()
class TwoRoom(DiscWorld):
    """The rules and the pictures of Two-Room; a state is the disc's centre x, y, from the top left.

    Source: world size, disc and success radius as in stable-worldmodel's Two-Room
        (LeWM, arXiv:2603.19312, Section 4); rules and pictures are our own.
    """

    name = "two-room"
    criterion = (
        "centres closer than 16 of 224 units, as in stable-worldmodel's Two-Room (LeWM, "
        "arXiv:2603.19312, Section 4)"
    )
    door = (112.0, 20.0)  #: centre and half height of the door along y
    state_dim = 2

    def __init__(self, image_size: int = 64) -> None:
        super().__init__(image_size)
        grid = sample_grid(image_size, self.size)
        x, y = grid[None, :], grid[:, None]
        border = (np.minimum(x, self.size - x) < BORDER) | (np.minimum(y, self.size - y) < BORDER)
        centre, half = self.door
        wall = (np.abs(x - self.size / 2) < THICKNESS / 2) & (np.abs(y - centre) > half)
        self._rooms = paint_rooms(border | wall)

    @checked(num="[0, inf)")
    def sample_states(self, rng: np.random.Generator, num: int) -> Floats:
        """Positions drawn evenly over both rooms, clear of the walls: [num, 2]."""
        low, high, left, right = self.limits()
        states = rng.uniform(low, high, (num, 2))
        inside = (states[:, 0] > left) & (states[:, 0] < right)
        states[inside, 0] = np.where(
            rng.random(inside.sum()) < 0.5,
            rng.uniform(low, left, inside.sum()),
            rng.uniform(right, high, inside.sum()),
        )
        return states.astype(np.float32)

    def waypoint(self, states: Floats, targets: Floats) -> Floats:
        """The target, or the near or far side of the door if the wall is in between."""
        _, _, left, right = self.limits()
        centre, half = self.door
        side, target_side = self.room(states), self.room(targets)
        x, y = states[:, 0], states[:, 1]
        near = np.where(side == 0, left - 2.0, right + 2.0)
        far = np.where(target_side == 0, left - 2.0, right + 2.0)
        lined_up = np.abs(y - centre) < 0.8 * (half - self.radius)
        in_door = (x > left) & (x < right)
        door_x = np.where(lined_up | in_door, far, near)
        door = np.stack([door_x, np.full_like(door_x, centre)], axis=-1)
        blocked = (side != target_side) | (in_door & (np.abs(targets[:, 1] - centre) > half))
        return np.where(blocked[:, None], door, targets).astype(np.float32)

    def room(self, states: Floats) -> NDArray[np.int64]:
        """0 for the left room, 1 for the right one: [..., 2] -> [...]."""
        return (states[..., 0] > self.size / 2).astype(np.int64)

    def new_targets(self, rng: np.random.Generator, states: Floats, cross: float) -> Floats:
        """Targets from `states`, in the other room with probability `cross`: [N, 2]."""
        targets = self.sample_states(rng, len(states))
        room = self.room(states)
        wanted = np.where(rng.random(len(states)) < cross, 1 - room, room)
        mirror = self.room(targets) != wanted
        targets[mirror, 0] = self.size - targets[mirror, 0]
        return targets

    def limits(self) -> tuple[float, float, float, float]:
        """Lowest and highest coordinate of the centre, and its left and right limit at the wall."""
        low, reach = BORDER + self.radius, THICKNESS / 2 + self.radius
        return low, self.size - low, self.size / 2 - reach, self.size / 2 + reach

    def _moved(self, states: Floats, delta: Floats) -> Floats:
        low, high, left, right = self.limits()
        centre, gap = self.door[0], self.door[1] - self.radius
        x, y = states[:, 0], states[:, 1]
        to_x = np.clip(x + delta[:, 0], low, high)
        in_wall = (to_x > left) & (to_x < right) & ~(np.abs(y - centre) <= gap)
        to_x = np.where(in_wall, np.where(x <= left, left, right), to_x)
        to_y = np.clip(y + delta[:, 1], low, high)
        in_door = (to_x > left) & (to_x < right)
        to_y = np.where(in_door, np.clip(to_y, centre - gap, centre + gap), to_y)
        return np.stack([to_x, to_y], axis=-1).astype(np.float32)

    def _empty(self, states: Floats) -> Pixels:
        return np.repeat(self._rooms[None], len(states), axis=0)


@checked()
class TwoRoomEnv:
    """One agent of Two-Room with gymnasium's `reset` and `step`.

    Observations are frames [H, W, 3], uint8; `info` has "state" and "goal", each [2]. Reaching the
    goal gives reward 1 and ends the episode.
    """

    def __init__(self, image_size: int = 64) -> None:
        self.world = TwoRoom(image_size)
        self.rng = np.random.default_rng()
        self.state, self.goal = self.world.sample_states(self.rng, 2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Floats] | None = None
    ) -> tuple[Pixels, dict[str, Any]]:
        """Start an episode; `options` may set "state" and "goal", each [2] in world units."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        drawn = {name: self.world.sample_states(self.rng, 1)[0] for name in ("state", "goal")}
        chosen = options or {}
        if not set(chosen) <= set(drawn):
            raise ValueError(f"options must be among 'state' and 'goal', got {sorted(chosen)}")
        for name, given in (drawn | chosen).items():
            value = np.asarray(given, np.float32)
            if value.shape != (2,):
                raise ValueError(f"options[{name!r}] must be [2], got {list(value.shape)}")
            setattr(self, name, value)
        return self.render(), self._info()

    def step(self, action: Floats) -> tuple[Pixels, float, bool, bool, dict[str, Any]]:
        """Act once: observation, reward, terminated, truncated (never), info."""
        self.state = self.world.step(self.state[None], np.asarray(action, np.float32)[None])[0]
        reached = bool(self.world.success(self.state, self.goal))
        return self.render(), float(reached), reached, False, self._info()

    def render(self) -> Pixels:
        """The current frame, [H, W, 3]."""
        return self.world.render(self.state[None])[0].transpose(1, 2, 0)

    def _info(self) -> dict[str, Any]:
        return {"state": self.state.copy(), "goal": self.goal.copy()}


@checked(noise="[0, inf)", repeat="[0, 1]", cross="[0, 1]", bump="[0, 1]")
@dataclass
class TwoRoomExpert:
    """A scripted walker with noise, in Two-Room or a maze: to a random target, through doors.

    A new target is drawn when the old one is reached. Noise and repeats make the data more than
    straight lines. With `bump` it also walks into walls, so that a model sees them.
    """

    world: DiscWorld
    num: int  #: N agents
    rng: np.random.Generator
    _: KW_ONLY
    noise: float = 0.3  #: standard deviation of what is added to each component of an action
    repeat: float = 0.05  #: probability of repeating the last action
    cross: float = 0.6  #: probability that a new target lies in another room
    bump: float = 0.0  #: probability of walking straight to a new target, even into a wall

    def __post_init__(self) -> None:
        self.targets = np.full((self.num, self.world.state_dim), np.nan, np.float32)
        self.last = np.zeros((self.num, 2), np.float32)
        self.bumping = np.zeros(self.num, bool)

    @checked(states="N S")
    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, S]."""
        world, rng = self.world, self.rng
        done = ~(world.distance(states, self.targets) >= world.speed)
        # An agent that walks straight gives up after 20 steps on average.
        done |= self.bumping & (rng.random(len(states)) < 0.05)
        if done.any():
            self.targets[done] = world.new_targets(rng, states[done], self.cross)
            self.bumping[done] = rng.random(int(done.sum())) < self.bump
        route = world.waypoint(states, self.targets)
        waypoint = np.where(self.bumping[:, None], self.targets[:, :2], route)
        noise = self.noise * rng.standard_normal((len(states), 2))
        actions = world.steer(states, waypoint) + noise
        again = rng.random(len(states)) < self.repeat
        actions = np.where(again[:, None], self.last, np.clip(actions, -1, 1))
        self.last = actions.astype(np.float32)
        return self.last


class Walks(NamedTuple):
    """Recorded episodes of equal length: T + 1 states around T actions."""

    states: Floats  #: [E, T + 1, S], world units
    actions: Floats  #: [E, T, 2]; `actions[:, t]` leads from `states[:, t]` to `states[:, t + 1]`


@checked(bump="[0, 1]")
def collect(world: DiscWorld, num: int, length: int, seed: int, *, bump: float = 0.0) -> Walks:
    """Record `num` episodes of `length` actions by the noisy walker, both positive."""
    rng = np.random.default_rng(as_seed(seed) % 2**64)
    expert = TwoRoomExpert(world, num, rng, bump=bump)
    states, actions = [world.sample_states(rng, num)], []
    for _ in range(length):
        actions.append(expert.act(states[-1]))
        states.append(world.step(states[-1], actions[-1]))
    return Walks(np.stack(states, axis=1), np.stack(actions, axis=1))
