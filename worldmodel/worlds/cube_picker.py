"""Scripted behaviour over the cube's table: pick it up, carry it, put it down, and away.

The rules look at the present state alone, so a slip begins the grasp anew. Heights, thresholds and
gains are those of OGBench's Markovian oracle; so are the noise and where targets lie.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUBE", "CubeCollector", "CubePicker"]

Floats = NDArray[np.float32]
Array = NDArray[np.float64]

CUBE = slice(14, 17)
"""The cube's centre in a state."""
_QUATERNION = slice(17, 21)
_EFFECTOR, _YAW, _CONTACT = slice(41, 44), 44, 46

_ABOVE = 0.18  # over a cube or a target, on the way to it
_OVER = np.array([0.0, 0.0, _ABOVE])
_LIFTED = 0.16  # effector height from which one may travel
_NEAR, _AT = 0.04, 0.02
_LYING = 0.03  # a cube's centre lower than this is on the table
_HELD, _FREE = 0.5, 0.1  # gripper contact
_TABLE = np.array([[0.3, -0.3], [0.55, 0.3]])  # where targets lie
_AIR = np.array([[0.25, -0.35, 0.20], [0.6, 0.35, 0.35]])  # where the arm goes to in the end


class CubePicker:
    """Brings each cube to its target and moves the arm off.

    Args:
        targets: [N, 3], where the cubes shall be; one above the table is held there.
        yaws: [N], how they shall be turned; None leaves them.
        rests: [N, 3], where the effectors go in the end; None leaves them above the cube.
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
        effector, cube, contact = s[:, _EFFECTOR], s[:, CUBE], s[:, _CONTACT]
        cube_yaw = _quarter(_yaw(s[:, _QUATERNION]), s[:, _YAW])
        lifted = effector[:, 2] > _LIFTED
        placed = np.linalg.norm(target - cube, axis=-1) <= _AT
        hangs = target[:, 2] > _LYING
        over = np.linalg.norm((cube - effector)[:, :2], axis=-1) <= _NEAR
        around = np.linalg.norm(cube - effector, axis=-1) <= _AT
        held = contact > _HELD
        over_target = np.linalg.norm((target - cube)[:, :2], axis=-1) <= _NEAR
        rest = self.rests if self.rests is not None else cube + _OVER
        free = contact < _FREE
        up = np.stack([cube[:, 0], cube[:, 1], np.full(len(s), 2 * _ABOVE)], axis=-1)
        aside = np.concatenate([cube[:, :2], np.full((len(s), 1), 2 * _LIFTED)], axis=-1)

        # The first rule that applies: condition, where to, gripper (1 closes).
        rules = [
            (placed & hangs, target, 1.0),
            (placed & ~free, target, -1.0),
            (placed & ~lifted, aside, -1.0),
            (placed, rest, -1.0),
            (~over, cube + _OVER, -1.0),
            (~around, cube, -1.0),
            (~held, cube, 1.0),
            (~lifted & ~over_target, up, 1.0),
            (~over_target, target + _OVER, 1.0),
            (np.ones(len(s), bool), target, 1.0),
        ]
        which = np.stack([rule[0] for rule in rules]).argmax(0)
        each = np.arange(len(s))
        goal = np.stack([rule[1] for rule in rules])[which, each]
        gripper = np.array([rule[2] for rule in rules])[which]
        self.done = (which == 3) & (np.linalg.norm(rest - effector, axis=-1) <= _NEAR)

        way = goal - effector
        length = np.linalg.norm(way, axis=-1, keepdims=True)
        # At full speed until there: a slow end would be a long one.
        move = np.where(length > _AT / 4, 2 * way / np.maximum(length, 1e-6), 5 * way)
        wanted = cube_yaw if self.yaws is None else _quarter(self.yaws, s[:, _YAW])
        turn = np.where(which < 7, cube_yaw - s[:, _YAW], wanted - cube_yaw)
        turn[placed] = 0.0
        actions: Floats = np.column_stack([move, 3 * turn, gripper]).clip(-1, 1).astype(np.float32)
        return actions


class CubeCollector:
    """The picker on its way to targets of its own, disturbed by noise: what `collect` runs.

    Args:
        num: N arms.
        rng: source of all its randomness.
        noise: each arm's own standard deviation is drawn evenly up to this; turning gets three
            times as much of it, the gripper ten times.
        patience: steps after which a target is given up.
    Source: noise of stable-worldmodel's collection with OGBench's Markovian oracle.
    """

    def __init__(
        self, num: int, rng: np.random.Generator, *, noise: float = 0.1, patience: int = 200
    ) -> None:
        self.rng, self.patience = rng, patience
        self.noise = rng.uniform(0, noise, (num, 1)) * np.array([1, 1, 1, 3, 10])
        self.picker = CubePicker(*self._targets(num))
        self.age = np.zeros(num, int)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 5] in [−1, 1] for the states [N, 47]."""
        picker = self.picker
        clean = picker.act(states)
        new = picker.done | (self.age >= self.patience)
        targets, yaws, rests = self._targets(len(states))
        picker.targets[new] = targets[new]
        if picker.yaws is not None and picker.rests is not None:
            picker.yaws[new], picker.rests[new] = yaws[new], rests[new]
        self.age = np.where(new, 0, self.age + 1)
        noise = self.noise * self.rng.standard_normal(clean.shape)
        actions: Floats = np.clip(clean + noise, -1, 1).astype(np.float32)
        return actions

    def _targets(self, num: int) -> tuple[Floats, Array, Array]:
        rng = self.rng
        xy = rng.uniform(_TABLE[0], _TABLE[1], (num, 2))
        targets = np.concatenate([xy, np.full((num, 1), 0.02)], axis=1).astype(np.float32)
        return targets, rng.uniform(-np.pi, np.pi, num), rng.uniform(_AIR[0], _AIR[1], (num, 3))


def _yaw(quaternion: Array) -> Array:
    """Rotation about the vertical of w, x, y, z: [N, 4] -> [N]."""
    w, x, y, z = quaternion.T
    yaw: Array = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return yaw


def _quarter(yaw: Array, near: Array) -> Array:
    """The same cube face: `yaw` plus quarter turns, as close to `near` as can be."""
    quarter = np.pi / 2
    return near + (yaw - near + quarter / 2) % quarter - quarter / 2
