"""Rules of success: holding, angles, fingertips and sides of a cube; protocols built on them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodel.apps.evaluate import RandomPolicy, evaluate, make_manifest
from worldmodel.apps.evaluate.manifest import PROTOCOLS, rule_of
from worldmodel.apps.evaluate.policies import IdlePolicy, attempt
from worldmodel.apps.settings import TrialSettings
from worldmodel.worlds import Maze, TwoRoom, collect
from worldmodel.worlds.rules import RULES, Rule

WORLD = TwoRoom(16)
WALKS = list(collect(WORLD, 30, 130, seed=1).states)
NAMES = [f"walk {n}" for n in range(30)]


def test_a_goal_that_is_held_counts_from_the_last_of_its_steps() -> None:
    """Of a step that meets, three that meet and two that meet, only the third in a row counts."""
    flags = np.asarray([[1, 0, 1, 1, 1, 0, 1, 1]], np.float32)[..., None]
    rule = Rule("", lambda s, g: s[..., 0] == g[..., 0], hold=3)
    met = rule.met(flags, np.ones((1, 1), np.float32))
    assert met[0].tolist() == [False] * 4 + [True] + [False] * 3


def _states(width: int, **entries: float) -> NDArray[np.float32]:
    state = np.zeros((1, width), np.float32)
    for name, value in entries.items():
        state[0, int(name[1:])] = value
    return state


def test_reachers_published_rule_counts_no_winding_and_clears_rule_the_tip() -> None:
    """A full turn fails the published rule; an arm bent the other way has its tip elsewhere."""
    rules, goal = RULES["reacher"], _states(4, _0=1.0, _1=-1.0)
    turned = goal + _states(4, _0=2 * np.pi)
    assert rules["published"].success(goal, goal).all()
    assert not rules["published"].success(turned, goal).any()
    assert rules["clear-strict"].success(turned, goal).all()
    # The elbow's mirror image has the same tip, two links of one length apart.
    mirror = _states(4, _0=0.0, _1=1.0)
    assert rules["clear-strict"].success(mirror, goal).all()
    assert not rules["clear-strict"].success(goal + _states(4, _0=0.06), goal).any()


def test_clears_push_t_looks_at_the_block_alone() -> None:
    """The agent may be anywhere; 11 units or 11 degrees are too far, a whole turn is not."""
    rule, goal = RULES["push-t"]["clear-strict"], _states(10, _0=50, _2=200, _3=200, _4=0.05)
    assert rule.success(goal + _states(10, _0=300), goal).all()
    assert rule.success(goal + _states(10, _4=2 * np.pi - 0.1), goal).all()
    assert not rule.success(goal + _states(10, _2=11), goal).any()
    assert not rule.success(goal + _states(10, _4=np.deg2rad(11)), goal).any()


@pytest.mark.parametrize("axis", [18, 19, 20])
def test_clears_cube_looks_the_same_from_six_sides(axis: int) -> None:
    """A quarter turn about an axis is no turn; 16 degrees are one, 14 are allowed."""

    def turned(degrees: float) -> NDArray[np.float32]:
        half = np.deg2rad(degrees) / 2
        return _states(47, _17=np.cos(half), **{f"_{axis}": np.sin(half)})

    rule, goal = RULES["cube"]["clear-strict"], turned(0)
    reached = [bool(rule.success(turned(d), goal)[0]) for d in (14, 16, 45, 76, 90, 104, 106, 180)]
    assert reached == [True, False, False, True, True, True, False, True]


def test_every_protocol_names_its_rule_and_clear_has_no_other_worlds() -> None:
    """Two-Room has a rule under each; a maze has none of CLEAR's."""
    for name, terms in PROTOCOLS.items():
        assert rule_of(WORLD, name).criterion
        if terms.clear:
            with pytest.raises(ValueError, match=f"protocol {name} is of two-room, reacher"):
                rule_of(Maze(32), name)


def test_strict_asks_for_its_own_distance_and_counts_the_end() -> None:
    """Offset 25 is refused; at 50 success is to be there at the end, nothing else."""
    near = make_manifest(WORLD, WALKS, NAMES, num=5, offset=25, budget=50, seed=0, source="")
    with pytest.raises(ValueError, match=r"needs a manifest drawn for it.* offset 25, budget 50"):
        evaluate(RandomPolicy(), near, TrialSettings(protocol="strict"))
    far = make_manifest(WORLD, WALKS, NAMES, num=20, offset=50, budget=100, seed=0, source="")
    strict = evaluate(RandomPolicy(), far, TrialSettings(protocol="strict"))
    loose = evaluate(RandomPolicy(), far, TrialSettings())
    assert strict.success_rate == strict.success_rate_at_end == loose.success_rate_at_end
    assert loose.success_rate > strict.success_rate


def test_what_is_told_beside_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The no-op policy is smooth and makes no progress; another rule has its own rate."""
    monkeypatch.setitem(RULES["two-room"], "published", Rule("never", lambda s, g: s[..., 0] < -1))
    task = make_manifest(WORLD, WALKS, NAMES, num=12, offset=25, budget=50, seed=0, source="")
    idle = evaluate(IdlePolicy(), task, TrialSettings())
    assert (idle.progress_to_goal, idle.action_roughness, idle.median_steps_to_goal) == (0, 0, None)
    acted = evaluate(RandomPolicy(), task, TrialSettings())
    # Of two even draws from −1 to 1 the squared difference is 2/3.
    assert acted.action_roughness == pytest.approx(2 / 3, abs=0.05)
    assert acted.by_rule["published"].success_rate == 0
    historical = evaluate(RandomPolicy(), task, TrialSettings(protocol="historical"))
    assert historical.success_rate == 0
    assert historical.by_rule["own"].success_rate == acted.success_rate
    found = attempt(WORLD, task, IdlePolicy(), budget=1)
    assert not found.roughness.any()
