"""Scripted policies in Push-T, in the frame of the block.

Lengths are the world's, a square of 512. The origin of the block's frame is the middle of the bar's
top, the position in the states; the body turns about `CENTRE`.
"""

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds.contract import Floats

__all__ = ["PushTExplorer", "PushTPusher", "clearance", "near_block", "to_block", "to_world"]

Array = NDArray[np.float64]

AGENT = 15.0  #: radius of the agent
CENTRE = np.array([0.0, 45.0])  #: centre of gravity: the mean of the two boxes' centres
MOMENT = 3000.0  #: moment of inertia over mass, in squared lengths

_BOXES = np.array([[0, 15, 60, 15], [0, 75, 15, 45]], float)  # middle x, y and half sides
_CORNERS = ((-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30))
_SPACING = 6.0

_LEVER = 57.3  # length that weighs like one radian: both tolerances weigh the same
_RING = 108.0  # radius of the detour around the block
_LOW, _HIGH = 18.0, 494.0  # where the agent's centre may go
_SIDE = 5.0  # how far beside a contact's normal a push may begin
_STAND = 9.0  # gap to the block before a push begins
_SETTLED = 6.0  # nearer to its goal the block is left, a radian counted as `_LEVER`
_PATIENCE = 80  # steps after which the explorer gives a goal up
_MEMORY = 0.5  # share of the explorer's noise that stays to the next step


def to_world(points: Array, position: Array, angle: Array) -> Array:
    """From the block's frame [N, P, 2] to the world's, for blocks at [N, 2] turned by [N]."""
    return points @ _turn(angle).transpose(0, 2, 1) + position[:, None]


def to_block(points: Array, position: Array, angle: Array) -> Array:
    """From the world's frame [N, P, 2] to the block's."""
    return (points - position[:, None]) @ _turn(angle)


def clearance(points: Array) -> Array:
    """Distance of points [..., 2] in the block's frame to the T; 0 or less inside it."""
    beyond = np.abs(points[..., None, :] - _BOXES[:, :2]) - _BOXES[:, 2:]  # of each box
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    return (outside + np.minimum(beyond.max(-1), 0)).min(-1)


def _turn(angle: Array) -> Array:
    """Rotation matrices [N, 2, 2]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _outline() -> tuple[Array, Array]:
    """Contacts of the agent with the T, and the direction of its push: [P, 2] each."""
    points, inward = [], []
    for start, end in zip(_CORNERS, (*_CORNERS[1:], _CORNERS[0]), strict=True):
        a, b = np.array(start, float), np.array(end, float)
        length = np.linalg.norm(b - a)
        along = (b - a) / length
        spots = np.arange(_SPACING / 2, length, _SPACING)
        points += [a + t * along for t in spots]
        inward += [np.array([-along[1], along[0]])] * len(spots)  # clockwise, y downwards
    contacts, normals = np.stack(points), np.stack(inward)
    # In the inner corners the agent touches the other arm first.
    free = clearance(contacts - AGENT * normals) > AGENT - 1e-6
    return contacts[free], normals[free]


CONTACTS, INWARD = _outline()


class PushTPusher:
    """Pushes each block to its goal pose, then walks to the goal's agent position.

    Damping stops the block between two steps, so a push moves it like a force on a body at rest:
    along the contact's normal, and about its centre by the lever. The pusher chooses the contact
    whose motion is closest to the missing one, and keeps it until another one is clearly better.

    Goals are states [N, >= 5].
    """

    def __init__(self, goals: Floats) -> None:
        self.goals = goals.astype(np.float64)
        self.contact = np.full(len(goals), -1)
        self.settled = np.zeros(len(goals), bool)

    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, >= 5]."""
        s = states.astype(np.float64)
        agent, position, angle = s[:, :2], s[:, 2:4], s[:, 4]
        # What the block's pose lacks, in its own frame: a shift of its centre, and a turn.
        centre = np.broadcast_to(CENTRE, (len(s), 1, 2))
        there = to_world(centre, self.goals[:, 2:4], self.goals[:, 4])
        shift = to_block(there, position, angle)[:, 0] - CENTRE
        turn = (self.goals[:, 4] - angle + np.pi) % (2 * np.pi) - np.pi
        error = np.hypot(np.linalg.norm(shift, axis=-1), _LEVER * turn)
        # The thresholds to leave the block and to return differ.
        self.settled = error < np.where(self.settled, 2 * _SETTLED, _SETTLED)

        gain = self._gains(shift, turn, position, angle)
        each = np.arange(len(s))
        best = gain.argmax(-1)
        keep = (self.contact >= 0) & (gain[each, self.contact] > 0.75 * gain[each, best])
        self.contact = np.where(keep, self.contact, best)
        point, inward = CONTACTS[self.contact], INWARD[self.contact]

        offset = to_block(agent[:, None], position, angle)[:, 0] - point
        ahead = -(offset * inward).sum(-1) - AGENT  # gap along the normal
        beside = np.abs(offset[:, 0] * inward[:, 1] - offset[:, 1] * inward[:, 0])
        pushing = ~self.settled & (beside < _SIDE) & (ahead > -8) & (ahead < 2 * _STAND)

        depth = np.clip(0.8 * gain[each, self.contact], 4.0, 30.0)[:, None]
        through = point + inward * (depth - AGENT)
        before = point - inward * (AGENT + _STAND)
        wanted = np.where(pushing[:, None], through, before)[:, None]
        wanted = to_world(wanted, position, angle)[:, 0]
        wanted = np.where(self.settled[:, None], self.goals[:, :2], wanted)
        target = np.where(pushing[:, None], wanted, self._around(agent, wanted, position, angle))
        actions = (np.clip(target, _LOW, _HIGH) - agent) / 100.0
        # A push aims further than it goes: the spring closes half of the gap per step.
        longest = np.where(pushing, 0.35, 0.6)
        length = np.linalg.norm(actions, axis=-1)
        actions = actions * np.minimum(1.0, longest / np.maximum(length, 1e-9))[:, None]
        return actions.astype(np.float32)

    def _gains(self, shift: Array, turn: Array, position: Array, angle: Array) -> Array:
        """The part of the missing motion that a push at each contact makes: [N, P]."""
        lever = CONTACTS - CENTRE
        spin = (lever[:, 0] * INWARD[:, 1] - lever[:, 1] * INWARD[:, 0]) / MOMENT
        size = np.sqrt(1 + (_LEVER * spin) ** 2)
        gain = (shift @ INWARD.T + _LEVER**2 * turn[:, None] * spin) / size
        stand = CONTACTS - INWARD * AGENT
        where = to_world(np.broadcast_to(stand, (len(turn), *stand.shape)), position, angle)
        out = ((where < _LOW) | (where > _HIGH)).any(-1)
        return np.where(out, -1e6, gain)

    def _around(self, agent: Array, target: Array, position: Array, angle: Array) -> Array:
        """The target, or a point of the detour while the block is in between: [N, 2]."""
        both = to_block(np.stack([agent, target], 1), position, angle)
        a, b = both[:, 0], both[:, 1]
        along = np.linspace(0, 1, 24)[None, :, None]
        gaps = clearance(a[:, None] + along * (b - a)[:, None])
        touching = np.minimum(gaps[:, 0], AGENT + 3)
        free = gaps.min(-1) > np.minimum(touching, gaps[:, -1]) - 1.0
        from_a, from_b = a - CENTRE, b - CENTRE
        at_a, at_b = (np.arctan2(way[:, 1], way[:, 0]) for way in (from_a, from_b))
        rest = (at_b - at_a + np.pi) % (2 * np.pi) - np.pi
        inside = np.linalg.norm(from_a, axis=-1) < 0.8 * _RING
        ahead = at_a + np.where(inside, 0.15, 0.7) * np.clip(rest, -1, 1)
        ring = CENTRE + _RING * np.stack([np.cos(ahead), np.sin(ahead)], -1)
        detour = to_world(ring[:, None], position, angle)[:, 0]
        return np.where(free[:, None], target, detour)


class PushTExplorer:
    """The pusher with random goals and noise, for data collection.

    A goal lies a push or two from the block, so that most steps are in contact. A new one is drawn
    when the old one is reached, or after 80 steps.

    `noise` is the standard deviation added to each component of an action, or several values, which
    agents get in turn; half of the noise stays from one step to the next.
    """

    def __init__(
        self, num: int, rng: np.random.Generator, noise: float | tuple[float, ...] = 0.1
    ) -> None:
        self.rng, self.noise = rng, np.resize(noise, num)[:, None]
        self.pusher = PushTPusher(np.zeros((num, 5), np.float32))
        self.age = np.full(num, _PATIENCE)
        self.drift = np.zeros((num, 2))

    def act(self, states: Floats) -> Floats:
        """Actions [N, 2] in [−1, 1] for the states [N, >= 5]."""
        pusher, rng, num = self.pusher, self.rng, len(states)
        there = np.linalg.norm(states[:, :2] - pusher.goals[:, :2], axis=-1) < 20
        new = (pusher.settled & there) | (self.age >= _PATIENCE)
        # Drawn for all agents, so that their random numbers do not depend on each other.
        block = np.clip(states[:, 2:4] + rng.normal(0, 90, (num, 2)), 80, 432)
        angle = states[:, 4] + rng.normal(0, 1.0, num)
        agent = np.clip(block + rng.uniform(-200, 200, (num, 2)), 40, 472)
        goals = np.concatenate([agent, block, angle[:, None]], axis=1)
        pusher.goals[new] = goals[new]
        pusher.contact[new], pusher.settled[new] = -1, False
        self.age = np.where(new, 0, self.age + 1)
        fresh = rng.standard_normal(self.drift.shape) * np.sqrt(1 - _MEMORY**2)
        self.drift = _MEMORY * self.drift + fresh
        return np.clip(pusher.act(states) + self.noise * self.drift, -1, 1).astype(np.float32)


def near_block(rng: np.random.Generator, states: Floats) -> Floats:
    """Actions [N, 2] to random points, clipped to a square of half side 100 around the block.

    Source: rule and number of stable-worldmodel's WeakPolicy.
    """
    agent, block = states[:, :2], states[:, 2:4]
    points = agent + rng.uniform(-100, 100, agent.shape)
    points = np.clip(points, block - 100, block + 100)
    return np.clip((points - agent) / 100, -1, 1).astype(np.float32)
