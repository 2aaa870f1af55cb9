"""Success rules: a world's own, and those of published figures."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from worldmodel.worlds.contract import Flags, Floats, World, kind_of

__all__ = ["REST", "RULES", "Rule", "rules_of"]


class Rule(NamedTuple):
    """Success in words, and as flags [...] of states [..., S] and goals [..., S]."""

    criterion: str
    success: Callable[[Floats, Floats], Flags]
    hold: int = 1  #: steps in a row
    pairs: Callable[[Floats, Floats], Flags] | None = None  #: which pairs are allowed; None: all

    def met(self, states: Floats, goals: Floats) -> Flags:
        """Whether the rule is met after each of T steps: [N, T, S], [N, S] -> [N, T]."""
        now = self.success(states, np.repeat(goals[:, None], states.shape[1], axis=1))
        met = now.copy()
        for back in range(1, self.hold):
            met[:, :back], met[:, back:] = False, met[:, back:] & now[:, :-back]
        return met


def _gap(states: Floats, goals: Floats, part: slice = slice(None)) -> Floats:
    return np.linalg.norm(states[..., part] - goals[..., part], axis=-1)


def _turn(states: Floats, goals: Floats) -> Floats:
    """The smaller angle between two directions."""
    return np.abs((states - goals + np.pi) % (2 * np.pi) - np.pi)


def _fingertip(states: Floats) -> Floats:
    """End of the two links of 12 cm: [..., 4] -> [..., 2]."""
    angles = np.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    return 0.12 * np.stack([np.cos(angles), np.sin(angles)], -1).sum(-2)


def _cube_turn(states: Floats, goals: Floats) -> Floats:
    """The smallest angle to any of the cube's 24 equivalent orientations."""
    from scipy.spatial.transform import Rotation

    now, then = (
        Rotation.from_quat(np.reshape(part[..., [18, 19, 20, 17]], (-1, 4)))
        for part in (states, goals)
    )
    same = (now.inv() * then).as_quat() @ Rotation.create_group("O").as_quat().T
    return 2 * np.arccos(np.abs(same).max(-1).clip(max=1)).reshape(states.shape[:-1])


def _other_room(states: Floats, goals: Floats) -> Flags:
    return (states[..., 0] > 112) != (goals[..., 0] > 112)


REST = {"push-t": slice(5, None), "reacher": slice(2, 4), "cube": slice(21, 41)}
"""Velocities in a state; CLEAR starts at rest."""

_DEGREE = np.pi / 180
_CLEAR = "as in CLEAR-LeWM v0.9, Strict"
RULES: dict[str, dict[str, Rule]] = {
    "two-room": {
        "clear-moderate": Rule(
            "centres closer than 16 of 224 units, from one room to the other, as in CLEAR-LeWM "
            "v0.9, Moderate",
            lambda s, g: _gap(s, g) < 16, pairs=_other_room,
        ),
        "clear-strict": Rule(
            f"centres closer than 8 of 224 units, from one room to the other, {_CLEAR}",
            lambda s, g: _gap(s, g) < 8, pairs=_other_room,
        ),
    },
    "reacher": {
        "published": Rule(
            "both joint angles closer than 0.05 rad, not counted around the circle, as in "
            "stable-worldmodel's Reacher (ReacherQPosMatchTask)",
            lambda s, g: np.abs(s[..., :2] - g[..., :2]).max(-1) < 0.05,
        ),
        "clear-strict": Rule(
            f"the fingertip within 1 cm of its goal, for 2 steps, {_CLEAR}",
            lambda s, g: _gap(_fingertip(s), _fingertip(g)) <= 0.01, hold=2,
        ),
    },
    "push-t": {
        "clear-strict": Rule(
            "the block closer than 10 of 512 units and 10 degrees, whatever the agent does, for 3 "
            f"steps, {_CLEAR}",
            lambda s, g: (_gap(s, g, slice(2, 4)) < 10)
            & (_turn(s[..., 4], g[..., 4]) < 10 * _DEGREE),
            hold=3,
        ),
    },
    "cube": {
        "clear-strict": Rule(
            "the cube's centre within 3 cm of its goal and turned by at most 15 degrees, sides "
            f"alike, for 3 steps, {_CLEAR}",
            lambda s, g: (_gap(s, g, slice(14, 17)) <= 0.03)
            & (_cube_turn(s, g) <= 15 * _DEGREE),
            hold=3,
        ),
    },
}  # fmt: skip
"""By world, then by name, without the world's own rule."""


def rules_of(world: World) -> dict[str, Rule]:
    """The world's own rule, "own", and its published ones."""
    return {"own": Rule(world.criterion, world.success)} | RULES.get(kind_of(world.name), {})
