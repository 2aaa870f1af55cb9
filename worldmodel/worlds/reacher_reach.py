"""Scripted behaviour in Reacher: an arm that is drawn to one pose after another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReacherReach", "steer"]

Floats = NDArray[np.float32]

_STIFFNESS = np.array([6.0, 3.0])
_DAMPING = np.array([0.9, 0.2])


def steer(goals: Floats, states: Floats) -> Floats:
    """Torques of a spring and a damper towards the goals' angles: [N, 2].

    Args:
        goals: [N, >= 2], angles to reach.
        states: [N, 4].
    """
    pull = _STIFFNESS * (goals[:, :2] - states[:, :2]) - _DAMPING * states[:, 2:4]
    torques: Floats = np.clip(pull, -1, 1).astype(np.float32)
    return torques


class ReacherReach:
    """Towards random poses, disturbed by noise; a new one when the old one is near.

    Args:
        num: N arms.
        rng: source of all its randomness.
        noise: standard deviation added to each torque.
        patience: steps after which a pose is given up.
    """

    def __init__(
        self, num: int, rng: np.random.Generator, *, noise: float = 0.3, patience: int = 60
    ) -> None:
        self.rng, self.noise, self.patience = rng, noise, patience
        self.goals = np.zeros((num, 2), np.float32)
        self.age = np.full(num, patience)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, 4]."""
        rng, num = self.rng, len(states)
        near = np.abs(states[:, :2] - self.goals).max(-1) < 0.1
        new = near | (self.age >= self.patience)
        turned = states[:, 0] + rng.uniform(-np.pi, np.pi, num)
        goals = np.stack([turned, rng.uniform(-2.5, 2.5, num)], axis=1)
        self.goals[new] = goals[new]
        self.age = np.where(new, 0, self.age + 1)
        noise = self.noise * rng.standard_normal((num, 2))
        return np.clip(steer(self.goals, states) + noise, -1, 1).astype(np.float32)
