"""Planning as a policy: inside the box, repeatable, and independent of other pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel import Futures, Imagination, WorldModel, presets
from worldmodel.apps.evaluate.manifest import Pairs
from worldmodel.apps.evaluate.policies import (
    Actor,
    PlannerPolicy,
    Scene,
    Task,
    attempt,
    method_of,
)
from worldmodel.apps.settings import EvaluateSettings, PlannerSettings
from worldmodel.data import ActionScale
from worldmodel.heads import Head
from worldmodel.worlds import TwoRoom

WORLD = TwoRoom(16)
SCALE = ActionScale(torch.tensor([0.1, -0.2]), torch.tensor([0.6, 0.5]))
RNG = np.random.default_rng(0)
STARTS, GOALS = WORLD.sample_states(RNG, 7), WORLD.sample_states(RNG, 7)
SEEDS = np.arange(7) + 40
# Proposals need a run that has them: test_proposing.py.
PLANNERS = get_args(PlannerSettings.model_fields["planner"].annotation)[:-1]


def tiny(planner: str = "cem", **words: Any) -> PlannerSettings:
    """A search of two iterations over two blocks."""
    given: dict[str, Any] = {"samples": 6, "iterations": 2, "horizon": 2, "together": 4}
    if planner in ("cem", "icem", "mppi"):
        given["elites"] = 3
    return PlannerSettings(planner=planner, **(given | words))  # type: ignore[arg-type]


TINY = tiny()


@pytest.fixture(scope="module")
def policy() -> PlannerPolicy:
    """A fresh model of 16-pixel frames behind a small search."""
    torch.manual_seed(0)
    model = presets.small(6, image_size=16, dim=8).eval()
    # A fresh predictor's gates are shut, and every plan costs the same.
    with torch.no_grad():
        for block in model.predictor.blocks:
            block.modulation.weight.normal_(0, 0.5)
    return PlannerPolicy(model, SCALE, 3, TINY)


def two_decisions(policy: PlannerPolicy, which: list[int], planner: PlannerSettings) -> np.ndarray:
    """Actions of two decisions in a row for some of the pairs: [n, 2, steps, 2]."""
    policy = replace(policy, planner=planner)
    states = STARTS[which]
    actor = policy.begin(Task(WORLD, GOALS[which], SEEDS[which]))
    return np.stack([actor(Scene(states, lambda _=0: WORLD.draw(states))) for _ in range(2)], 1)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_depends_on_its_own_pair_alone(policy: PlannerPolicy, name: str) -> None:
    """One at a time, three at a time, all at once or in another order: the same bits."""
    planner = tiny(name)
    whole = two_decisions(policy, list(range(7)), planner)
    for size in (1, 3):
        for first in range(0, 7, size):
            some = list(range(7))[first : first + size]
            assert np.array_equal(two_decisions(policy, some, planner), whole[some])
    mixed = [5, 0, 6, 2, 1, 4, 3]
    assert np.array_equal(two_decisions(policy, mixed, planner), whole[mixed])


@pytest.mark.parametrize("name", PLANNERS)
def test_actions_are_held_over_a_block_inside_the_box(policy: PlannerPolicy, name: str) -> None:
    """A held block is one raw action; every action lies in [−1, 1]; `execute` blocks come out."""
    actions = two_decisions(policy, [0, 1], tiny(name, execute=2))
    assert actions.shape == (2, 2, 6, 2)
    assert (np.abs(actions) <= 1).all()
    blocks = actions.reshape(2, 2, 2, 3, 2)
    assert (blocks == blocks[..., :1, :]).all()


def test_a_free_block_moves_within_itself(policy: PlannerPolicy) -> None:
    """Searching every raw action gives blocks that are not constant, inside the box too."""
    actions = two_decisions(policy, [0, 1], tiny(free=True))
    assert actions.shape == (2, 2, 3, 2)
    assert (actions != actions[:, :, :1]).any()
    assert (np.abs(actions) <= 1).all()


def test_a_last_step_cost_warns_where_less_than_the_plan_is_executed(policy: PlannerPolicy) -> None:
    """The goal's mark reaches the controller, though the problems are scored in groups."""
    for free in (True, False):
        with pytest.warns(RuntimeWarning, match="last of 2 actions alone, but 1 are exec") as told:
            two_decisions(policy, list(range(7)), tiny(cost="last", free=free))
        assert len(told) == 1
        two_decisions(policy, [0, 1], tiny(cost="last", execute=2, free=free))
        two_decisions(policy, [0, 1], tiny(cost="nearest", free=free))


def test_a_metric_changes_the_cost_alone(policy: PlannerPolicy) -> None:
    """The identity as metric plans the same actions; one that sees a coordinate plans others."""
    usual = two_decisions(policy, [0, 1, 2], TINY)
    metric = Head(8, 8)
    torch.nn.init.zeros_(metric.net[0].bias)  # type: ignore[arg-type]
    for row, alike in ((torch.ones(8), True), (torch.eye(8)[0], False)):
        with torch.no_grad():
            metric.net[0].weight.copy_(row.diag())  # type: ignore[operator]
        found = two_decisions(replace(policy, metric=metric), [0, 1, 2], TINY)
        assert np.allclose(found, usual, atol=1e-5) is alike


def test_seeds_decide(policy: PlannerPolicy) -> None:
    """Two pairs that differ in nothing but the seed are planned for differently."""
    states = np.repeat(STARTS[:1], 2, axis=0)
    task = Task(WORLD, np.repeat(GOALS[:1], 2, axis=0), np.asarray([1, 2]))
    actions = policy.begin(task)(Scene(states, lambda _=0: WORLD.draw(states)))
    assert not np.array_equal(actions[0], actions[1])


def test_what_a_plan_expects_is_the_rollout_of_its_actions(policy: PlannerPolicy) -> None:
    """`on_plan` receives the model's own rollout of the chosen plan, beside the goal."""
    seen: list[tuple[Tensor, Tensor]] = []
    watched = replace(
        policy, planner=tiny(execute=2), on_plan=lambda z, goal: seen.append((z, goal))
    )
    actor = watched.begin(Task(WORLD, GOALS, SEEDS))
    actions = actor(Scene(STARTS, lambda _=0: WORLD.draw(STARTS)))
    blocks = SCALE.normalise(torch.from_numpy(actions).reshape(7, 2, 6))
    with torch.no_grad():
        z = policy.model.encode(torch.from_numpy(WORLD.draw(STARTS))[:, None])
        expected = policy.model.rollout(z, blocks)
        goal = policy.model.encode(torch.from_numpy(WORLD.draw(GOALS))[:, None])[:, 0]
    torch.testing.assert_close(seen[0][0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen[0][1], goal)


@pytest.mark.parametrize("execute", [1, 2])
@pytest.mark.parametrize("free", [True, False])
def test_a_plan_starts_from_the_models_history(
    policy: PlannerPolicy, execute: int, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan gets the last three frames, a block apart, and the actions between them."""
    seen: list[tuple[Tensor, Tensor | None]] = []
    look = Imagination.look

    def watched(self: Imagination, frames: Tensor, past: Tensor | None = None) -> Futures:
        seen.append((frames, past))
        return look(self, frames, past)

    monkeypatch.setattr(Imagination, "look", watched)
    planner, acted = tiny(history=None, execute=execute, free=free, together=7), list[Tensor]()

    class Watched:
        def begin(self, task: Task) -> Actor:
            actor = replace(policy, planner=planner).begin(task)

            def act(scene: Scene) -> np.ndarray:
                acted.append(torch.from_numpy(actor(scene)))
                return acted[-1].numpy()

            return act

    none = np.zeros(7, np.int64)
    found = attempt(WORLD, Pairs(STARTS, GOALS, none, none, 0), Watched(), budget=12)
    raw = torch.cat(acted, dim=1)
    for decision, (frames, past) in enumerate(seen):
        now = 3 * decision * execute
        first = max(0, now - 6)
        for t, at in enumerate(range(first, now + 1, 3)):
            drawn = torch.from_numpy(WORLD.draw(found.paths[:, at]))
            assert torch.equal(frames[:, t], drawn)
        if now == 0:
            assert past is None
        else:
            blocks = SCALE.normalise(raw[:, first:now].reshape(7, -1, 6))
            torch.testing.assert_close(past, blocks)
    assert seen[-1][0].shape[1] == 3


def test_the_usual_settings_cost_the_same_number_of_rollouts() -> None:
    """Planners are compared at equal work: 384 rollouts a decision each."""
    for name in PLANNERS:
        samples, iterations = PlannerSettings(planner=name).budget
        assert samples * iterations == 384


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"planner": "magic"}, "Input should be 'cem', 'icem', 'mppi'"),
        ({"horizon": 0}, "greater than or equal to 1"),
        ({"std": float("nan")}, "finite number"),
        ({"execute": 6}, "execute must be at most horizon = 5, got 6"),
        ({"elites": 65}, "samples must be at least 65 for cem with elites 65, got 64"),
        ({"planner": "icem", "elites": 33}, "samples must be at least 66 for icem"),
        ({"planner": "mppi", "elites": 65}, "samples must be at least 65 for mppi"),
        ({"elites": 1}, "elites must be at least 2 for cem, got 1"),
        ({"planner": "predictive-sampling", "samples": 1}, "samples must be at least 2"),
        (
            {"planner": "gradient", "elites": 4},
            "elites is a setting of cem, icem, mppi, prop",
        ),
        ({"temperature": 2.0}, "temperature is a setting of mppi, got it with planner cem"),
        ({"planner": "gradient", "cuda_graph": True}, "cuda_graph records no gradients"),
    ],
)
def test_impossible_settings_are_refused(words: dict[str, object], part: str) -> None:
    """The message names the setting, the rule and what came, before torch is needed."""
    with pytest.raises(ValueError, match=part):
        PlannerSettings(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("planner", PLANNERS)
def test_whatever_settings_allow_the_planner_takes(planner: str) -> None:
    """The smallest numbers that settings let through make a method of that planner."""
    elites = {"cem": 2, "icem": 2, "mppi": 1}.get(planner)
    least = {"cem": 2, "icem": 4, "predictive-sampling": 2}.get(planner, 1)
    given: dict[str, Any] = {} if elites is None else {"elites": elites}
    method_of(PlannerSettings(planner=planner, samples=least, **given))  # type: ignore[arg-type]


def test_a_planner_is_described_by_its_own_settings_alone() -> None:
    """Keys are those of results, and what else a command was told is not among them."""
    words = {"run": "r", "manifest": "m", "out": "o", "free": True, "seeds": 3}
    found = EvaluateSettings(**words).described()  # type: ignore[arg-type]
    assert found == PlannerSettings(free=True).described()
    assert (found["name"], found["samples"], found["iterations"], found["held"]) == (
        "cem", 64, 6, False,
    )  # fmt: skip
    assert not {"planner", "free", "seeds", "config"} & set(found)


def test_precision_of_the_search_reaches_the_cost(
    policy: PlannerPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dtype`, `compile` and `cuda_graph` make one imagination, and not one a decision."""
    seen: list[tuple[Any, ...]] = []
    plain = WorldModel.imagine

    def watched(self: WorldModel, dtype: torch.dtype, *options: bool) -> Imagination:
        seen.append((dtype, *options))
        return plain(self, dtype)

    monkeypatch.setattr(WorldModel, "imagine", watched)
    low = two_decisions(
        policy, [0, 1], tiny("mppi", dtype="bfloat16", compile=True, cuda_graph=True)
    )
    assert seen == [(torch.bfloat16, True, True)]
    assert not np.array_equal(low, two_decisions(policy, [0, 1], tiny("mppi")))


@pytest.mark.parametrize("num", [1, 3, 4, 7])
def test_the_model_always_sees_as_many_problems_at_once(
    policy: PlannerPolicy, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding depends on how many stand in a call: whatever the batch, four do."""
    seen: list[int] = []
    embed, look, plans_of = Imagination.embed, Imagination.look, Futures.__call__
    for kind, name, plain in (
        (Imagination, "embed", embed), (Imagination, "look", look), (Futures, "__call__", plans_of),
    ):  # fmt: skip

        def counted(self: Any, given: Tensor, *rest: Any, plain: Any = plain) -> Any:
            seen.append(len(given))
            return plain(self, given, *rest)

        monkeypatch.setattr(kind, name, counted)
    two_decisions(policy, list(range(num)), TINY)
    assert set(seen) == {4}
