"""Receding horizon: shifting, executing, blocks, resets, and control that works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from planners import (
    CEM,
    GRASP,
    ICEM,
    MPC,
    MPPI,
    AugmentedLagrangian,
    BestSoFar,
    Bounds,
    CategoricalCEM,
    GradientDescent,
    PredictiveSampling,
    Refine,
    from_dynamics,
    optimize,
    split_blocks,
)


def towards(goal: Tensor) -> Callable[[Tensor], Tensor]:
    """Cost whose minimiser is the sequence `goal` [B, H, A]."""

    def cost(candidates: Tensor) -> Tensor:
        return (candidates - goal.unsqueeze(1)).square().flatten(2).contiguous().sum(-1)

    return cost


GOAL = torch.tensor([[[0.1], [0.2], [0.3], [0.4]]])
METHODS = {
    "CEM": CEM(16, 4),
    "ICEM": ICEM(20, 5),
    "sampled MPPI": MPPI(16, top_k=4, returns="sample"),
    "Gradient": GradientDescent(num_restarts=2),
    "Refine": Refine(ICEM(20, 5), GradientDescent(), after=1),
    "BestSoFar": BestSoFar(ICEM(20, 5)),
    "AugmentedLagrangian": AugmentedLagrangian(ICEM(20, 5), lambda a: a[..., 0, :] - 0.2, every=2),
}


@pytest.mark.parametrize(("tail", "last"), [("zero", 0.0), ("repeat", 0.4)])
def test_the_next_search_starts_from_the_shifted_plan(tail: str, last: float) -> None:
    """After k actions are executed the rest of the plan leads the next start, then the tail."""
    mpc = MPC(CEM(), horizon=4, action_dim=1, iterations=20, execute=3, tail=tail)  # type: ignore[arg-type]
    actions = mpc.act(towards(GOAL))
    torch.testing.assert_close(actions, GOAL[:, :3], atol=1e-3, rtol=0)
    expected = torch.tensor([[[0.4], [last], [last], [last]]])
    torch.testing.assert_close(mpc.start, expected, atol=1e-3, rtol=0)
    assert mpc.last is not None
    assert torch.equal(mpc.start[:, 0], mpc.last.actions[:, 3])


def test_blocks_become_environment_steps_in_order() -> None:
    """An action of 3 steps × 2 controls is handed out as three steps, first step first."""
    blocked = torch.arange(12.0).view(1, 2, 6)
    assert torch.equal(split_blocks(blocked, 3), torch.arange(12.0).view(1, 6, 2))
    goal = torch.linspace(-0.5, 0.5, 12).view(1, 2, 6)
    mpc = MPC(CEM(), horizon=2, action_dim=6, iterations=25, execute=2, block=3)
    torch.testing.assert_close(mpc.act(towards(goal)), goal.view(1, 6, 2), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="block must divide"):
        split_blocks(blocked, 4)


def test_actions_come_in_the_environments_units() -> None:
    """The model's action 1 is mean + std in the environment, and never beyond its box."""
    goal = torch.tensor([[[1.0, 9.0]]])
    bounds = Bounds(-1.0, 2.0, mean=[0.5, 0.5], std=[0.25, 0.5])
    mpc = MPC(CEM(init_std=2.0), horizon=1, action_dim=2, iterations=25, bounds=bounds)
    actions = mpc.act(towards(goal))
    torch.testing.assert_close(actions, torch.tensor([[[0.75, 2.0]]]), atol=1e-3, rtol=0)
    assert actions.max() <= 2.0
    assert mpc.last is not None
    torch.testing.assert_close(mpc.last.actions[0, 0, 1], torch.tensor(3.0))


def test_each_call_draws_anew_and_a_run_repeats() -> None:
    """Two calls use different noise; a second controller with the same seed repeats the first."""
    made = [
        MPC(PredictiveSampling(8), horizon=2, action_dim=2, iterations=1, seed=4) for _ in range(2)
    ]
    cost = towards(torch.full((1, 2, 2), 5.0))
    first = [made[0].act(cost) for _ in range(3)]
    again = made[0].act(cost, start=torch.zeros(1, 2, 2))
    assert not torch.equal(first[0], again)
    assert all(torch.equal(made[1].act(cost), action) for action in first)


@pytest.mark.parametrize("name", METHODS)
def test_a_reset_problem_begins_anew_and_the_others_do_not_notice(name: str) -> None:
    """After reset, problem 1 plans as a new controller would; problems 0 and 2 go on."""
    goal = torch.linspace(-1, 1, 12).view(3, 2, 2)
    seeds = torch.tensor([5, 6, 7])

    def make(index: list[int]) -> MPC[Any]:
        return MPC(
            METHODS[name],
            horizon=2,
            action_dim=2,
            iterations=2,
            seed=seeds[index],
            batch=len(index),
        )

    whole, rest, new = make([0, 1, 2]), make([0, 2]), make([1])
    for _ in range(2):
        whole.act(towards(goal))
        rest.act(towards(goal[[0, 2]]))
    whole.reset(torch.tensor([False, True, False]))
    for _ in range(2):
        actions = whole.act(towards(goal))
        assert torch.equal(actions[[0, 2]], rest.act(towards(goal[[0, 2]])))
        assert torch.equal(actions[[1]], new.act(towards(goal[[1]])))


def test_a_full_reset_is_a_new_controller() -> None:
    """reset() without a mask forgets everything."""
    mpc = MPC(CEM(16, 4), horizon=4, action_dim=1, iterations=2)
    first = [mpc.act(towards(GOAL)) for _ in range(2)]
    mpc.reset()
    assert all(torch.equal(mpc.act(towards(GOAL)), action) for action in first)
    with pytest.raises(ValueError, match=r"done must be \[1\], got \[2\]"):
        mpc.reset(torch.tensor([True, False]))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda method: method,
        BestSoFar,
        lambda method: Refine(method, GradientDescent(), after=3),
        lambda method: Refine(CEM(40, 4), method, after=1),
        lambda method: AugmentedLagrangian(method, lambda a: a[..., 0] - 9, every=3),
        lambda method: BestSoFar(Refine(method, MPPI(8), after=9)),
    ],
    ids=["alone", "BestSoFar", "Refine", "Refine then", "AugmentedLagrangian", "nested"],
)
def test_kept_elites_help_the_next_control_step(wrap: Callable[[Any], Any]) -> None:
    """The shifted elites of iCEM are among the candidates of the next call, however wrapped."""
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates.detach())
        return towards(GOAL)(candidates)

    mpc = MPC(wrap(ICEM(40, 10, decay=1.0)), horizon=4, action_dim=1, iterations=3)
    mpc.act(cost)
    # Under Refine(…, after=3) all three are iCEM's, with after=1 the last two.
    elites = seen[2][0][towards(GOAL)(seen[2])[0].argsort()[:3]]
    mpc.act(cost)
    shifted = torch.cat([elites[:, 1:], elites[:, -1:]], 1)
    tried = torch.cat(seen[3:5], 1)[0]
    for elite in shifted:
        assert (tried == elite).all(-1).all(-1).any()


def controller(name: str, **given: Any) -> MPC[Any]:
    """A controller of two problems that keeps three observations."""
    return MPC(
        METHODS[name], horizon=4, action_dim=2, iterations=3, batch=2, history=3, block=2,
        bounds=Bounds(-2.0, 2.0, mean=0.1, std=0.5), committed=1, seed=3, **given,
    )  # fmt: skip


def looked_at(t: int) -> dict[str, Tensor]:
    """What two sensors show at a moment."""
    return {"pixels": torch.full((2, 3), t, dtype=torch.uint8), "pose": torch.full((2, 1), t / 3)}


def drive(mpc: MPC[Any], moments: range) -> list[Tensor]:
    """Look, plan for a goal that moves, look again."""
    actions = []
    for t in moments:
        mpc.see(looked_at(t))
        actions.append(mpc.act(towards(torch.full((2, 4, 2), t / 10))))
    return actions


@pytest.mark.parametrize("name", METHODS)
def test_a_record_goes_through_a_file_and_a_thread(name: str) -> None:
    """Restored from named tensors in another thread, a controller goes on to the last bit."""
    one, other = controller(name), controller(name)
    drive(one, range(3))
    saved = one.save()
    assert all(type(x) is Tensor and x.device.type == "cpu" for x in saved.values())
    assert {"start", "steps", "history.observations.pixels", "history.done"} <= saved.keys()

    found: list[Tensor] = []

    def go_on() -> None:
        other.restore({key: x.clone() for key, x in saved.items()})
        found.extend(drive(other, range(3, 6)))

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert len(found) == 3
    for ours, theirs in zip(drive(one, range(3, 6)), found, strict=True):
        assert torch.equal(ours, theirs)
    for key, x in one.save().items():
        assert torch.equal(x, other.save()[key]), key
    with pytest.raises(ValueError, match="tensors must hold calls, "):
        other.restore({})


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_pure(name: str) -> None:
    """It changes neither the record nor the controller, and gives the same again."""
    mpc = controller(name)
    drive(mpc, range(2))
    mpc.see(looked_at(2))
    record, before = mpc.record, mpc.save()
    cost = towards(torch.full((2, 4, 2), 0.3))
    first, after, plan = mpc.step(record, cost)
    assert mpc.record is record
    assert all(torch.equal(x, before[key]) for key, x in mpc.save().items())
    again = mpc.step(record, cost)
    assert torch.equal(first, again[0])
    assert torch.equal(first, mpc.act(cost))
    assert torch.equal(after.start, mpc.start)
    assert mpc.last is not None
    assert torch.equal(plan.actions, mpc.last.actions)


def test_committed_actions_lead_the_plan_and_the_next_ones_are_handed_out() -> None:
    """Each call plans around what is being executed and returns what comes after it."""
    mpc = MPC(CEM(), horizon=4, action_dim=1, iterations=15, committed=2, tail="repeat")
    assert torch.equal(mpc.start[:, :2], torch.zeros(1, 2, 1))
    handed: list[float] = [0.0, 0.0]
    goal = torch.linspace(0.1, 1.0, 10)
    for t in range(4):
        actions = mpc.act(towards(goal[t : t + 4].view(1, 4, 1)))
        assert mpc.last is not None
        assert mpc.last.actions[0, :2, 0].tolist() == handed[t : t + 2]
        handed.append(actions.item())
        assert mpc.last.actions[0, 2, 0].item() == handed[t + 2]
    assert handed[2:] == pytest.approx(goal[2:6].tolist(), abs=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_that_came_too_late_is_left_out(name: str) -> None:
    """The robot goes on with the old plan, and the next search knows what is being done."""
    mpc = controller(name)
    drive(mpc, range(2))
    mpc.see(looked_at(2))
    due = mpc.start[:, 1]
    mpc.step(mpc.record, towards(torch.zeros(2, 4, 2)))
    actions = mpc.skip()
    assert mpc.bounds is not None
    assert torch.equal(actions.flatten(1), mpc.bounds.to_environment(due))
    assert torch.equal(mpc.start[:, 0], due)
    drive(mpc, range(3, 4))
    assert mpc.last is not None
    assert torch.equal(mpc.last.actions[:, 0], due)
    assert mpc.past_actions is not None
    assert mpc.record.steps.tolist() == [4, 4]


def test_an_episode_begins_at_rest_and_searches_inside_the_box() -> None:
    """The no-op is the allowed value nearest to zero; the free part starts in the middle."""
    box = Bounds([5.0, -1.0], [10.0, 1.0])
    mpc = MPC(
        ICEM(300, 10), horizon=3, action_dim=2, iterations=30, committed=1, execute=2, bounds=box
    )
    assert mpc.start.tolist() == [[[5.0, 0.0], [7.5, 0.0], [7.5, 0.0]]]
    best = torch.tensor([8.8, 0.3])
    actions = mpc.act(lambda a: (a - best).square().sum((-1, -2)))
    torch.testing.assert_close(actions, best.expand(1, 2, 2), atol=0.05, rtol=0)
    torch.testing.assert_close(mpc.start[0, 0], best, atol=0.05, rtol=0)
    assert mpc.start[0, 1:].tolist() == [[7.5, 0.0], [7.5, 0.0]]
    with pytest.raises(ValueError, match="committed must be 0 for choices"):
        MPC(CategoricalCEM(), horizon=3, action_dim=2, iterations=1, committed=1)


def test_goals_and_constraints_may_change_from_step_to_step() -> None:
    """A method given to `act` is this step's; the price of a constraint stays."""

    def sum_below(most: float) -> Callable[[Tensor], Tensor]:
        return lambda a: a.sum((-1, -2))[..., None] - most

    limited = AugmentedLagrangian(CEM(), sum_below(0.0), every=10)
    mpc = MPC(limited, horizon=2, action_dim=1, iterations=60)
    cost = towards(torch.ones(1, 2, 1))
    prices = []
    for most in (0.0, 1.0, -1.0):
        mpc.act(cost, method=replace(limited, constraint=sum_below(most)))
        assert mpc.last is not None
        assert mpc.last.actions.sum().item() == pytest.approx(most, abs=0.02)
        prices.append(mpc.last.state.multiplier.item())
    assert prices == pytest.approx([2.0, 1.0, 3.0], abs=0.05)
    two = replace(limited, constraint=lambda a: a[..., 0] - 2)
    mpc.act(cost, method=two)
    with pytest.raises(ValueError, match="constraint must keep its C = 2, got 1"):
        mpc.act(cost)

    goal = torch.tensor([[3.0]])
    grasp = GRASP(lambda s, a: s + a, torch.zeros(1, 1), goal, lifted_steps=3)
    lifted = MPC(grasp, horizon=3, action_dim=1, iterations=40)
    state = torch.zeros(1, 1)
    for _ in range(2):
        at = state.clone()
        action = lifted.act(
            lambda a, at=at: (at[:, None] + a.sum(2) - goal).square().sum(-1),  # type: ignore[misc]
            method=replace(grasp, initial=state),
        )
        state = state + action[:, 0]
        assert lifted.last is not None
        assert lifted.last.state.states.shape == (1, 8, 2, 1)
        assert (at + lifted.last.actions.sum(1) - goal).abs().max() < 0.05


def test_a_start_of_ones_own_leads_and_the_elites_stay() -> None:
    """A proposal given to `act` is the first candidate, among the shifted elites."""
    seen: list[Tensor] = []

    def cost(candidates: Tensor) -> Tensor:
        seen.append(candidates)
        return towards(GOAL)(candidates)

    mpc = MPC(ICEM(40, 10), horizon=4, action_dim=1, iterations=1)
    mpc.act(cost)
    elite = seen[0][0][towards(GOAL)(seen[0])[0].argmin()]
    proposal = torch.full((1, 4, 1), 0.25)
    mpc.act(cost, start=proposal)
    assert torch.equal(seen[1][:, 0], proposal)
    assert (seen[1][0] == torch.cat([elite[1:], elite[-1:]])).all(-1).all(-1).any()
    with pytest.raises(ValueError, match=r"start must be a float tensor \[1, 4, 1\]"):
        mpc.act(cost, start=torch.zeros(1, 3, 1))


def test_observations_and_the_actions_between_them_are_kept() -> None:
    """The last three frames, and in the environment's units what was done between them."""
    mpc = MPC(
        CEM(16, 4), horizon=4, action_dim=2, iterations=2, execute=1, history=3, block=2,
        bounds=Bounds(-2.0, 2.0, mean=0.1, std=0.5),
    )  # fmt: skip
    assert mpc.observations is None
    handed: list[Tensor] = []
    for t in range(5):
        mpc.see(torch.full((1, 4), float(t)))
        first = max(0, t - 2)
        assert isinstance(mpc.observations, Tensor)
        assert mpc.observations[0, :, 0].tolist() == [float(k) for k in range(first, t + 1)]
        if t == 0:
            assert mpc.past_actions is None
            assert mpc.executed is None
        else:
            assert mpc.executed is not None
            assert mpc.past_actions is not None
            torch.testing.assert_close(mpc.executed, torch.cat(handed[first:t], 1))
            torch.testing.assert_close(
                mpc.past_actions.view(1, -1, 1) * 0.5 + 0.1, torch.cat(handed[first:t], 1)
            )
        handed.append(mpc.act(towards(GOAL.expand(1, 4, 2))))
    with pytest.raises(ValueError, match="see must be called after each action, 1 were not seen"):
        mpc.act(towards(GOAL.expand(1, 4, 2)))
    # A person took over: what was done in truth is told.
    mpc.see(torch.zeros(1, 4), executed=[[[0.6], [-0.4]]])
    assert mpc.past_actions is not None
    torch.testing.assert_close(mpc.past_actions[0, -1], torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="executed must be given if act returned nothing"):
        mpc.see(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"executed must be a float tensor \[1, 2, 1\]"):
        mpc.see(torch.zeros(1, 4), executed=[[[0.6]]])


def test_what_is_done_before_a_plan_is_there_belongs_to_the_history() -> None:
    """With one action committed, the first action between two frames is the no-op."""
    mpc = controller("CEM")
    first, second, _ = drive(mpc, range(3))
    assert mpc.executed is not None
    torch.testing.assert_close(mpc.executed, torch.cat([torch.zeros(2, 2, 1), first], 1))
    mpc.see(looked_at(3))
    torch.testing.assert_close(mpc.executed, torch.cat([first, second], 1))


def test_a_problem_that_begins_anew_has_stood_still() -> None:
    """After a reset its window holds the first frame and no-ops; the others keep theirs."""
    np = pytest.importorskip("numpy")
    mpc = MPC(CEM(16, 4), horizon=3, action_dim=1, iterations=2, history=3, batch=2)
    buffer = np.zeros((2, 1))
    actions = []
    for t in range(3):
        buffer[:] = t
        mpc.see(buffer)
        assert isinstance(mpc.observations, Tensor)
        assert mpc.observations[0, :, 0].tolist() == [float(k) for k in range(t + 1)]
        actions.append(mpc.act(towards(torch.full((2, 3, 1), 0.5))))
    mpc.reset(np.array([False, True]))
    buffer[:] = 9
    mpc.see(buffer)
    assert isinstance(mpc.observations, Tensor)
    assert mpc.observations[..., 0].tolist() == [[1.0, 2.0, 9.0], [9.0, 9.0, 9.0]]
    assert mpc.past_actions is not None
    assert torch.equal(mpc.past_actions[0], torch.cat([actions[1][0], actions[2][0]]))
    assert (mpc.past_actions[1] == 0).all()
    mpc.act(towards(torch.full((2, 3, 1), 0.5)))
    mpc.reset([False, True])
    mpc.see(buffer, executed=torch.ones(2, 1, 1))
    assert mpc.past_actions[:, -1].tolist() == [[1.0], [0.0]]
    mpc.reset()
    mpc.see(buffer)
    assert mpc.observations.shape == (2, 1, 1)
    for wrong in ({"a": buffer}, torch.zeros(3, 1)):
        mpc.act(towards(torch.zeros(2, 3, 1)))
        with pytest.raises(ValueError, match="observation must"):
            mpc.see(wrong)
        mpc.reset()
        mpc.see(buffer)


def test_the_number_of_iterations_may_fall() -> None:
    """Many for a cold start, few for a warm one; a reset makes it cold again."""
    calls: list[int] = []

    def cost(candidates: Tensor) -> Tensor:
        calls.append(0)
        return towards(GOAL)(candidates)

    def schedule(step: int) -> int:
        return 7 if step == 0 else 2

    mpc = MPC(CEM(16, 4), horizon=4, action_dim=1, iterations=schedule, batch=2)
    counts = []
    for t in range(6):
        if t == 3:
            mpc.reset()
        if t == 5:
            mpc.reset([False, True])
        calls.clear()
        mpc.act(cost)
        counts.append(len(calls))
    assert counts == [7, 2, 2, 7, 2, 7]
    with pytest.raises(TypeError, match="iterations must be an integer of at least 1"):
        MPC(CEM(), horizon=1, action_dim=1, iterations=lambda _: 2.5).act(bowl)  # type: ignore[arg-type, return-value]


def bowl(candidates: Tensor) -> Tensor:
    """|a|²."""
    return candidates.square().sum((-1, -2))


def marked(candidates: Tensor) -> Tensor:
    """A goal that says of its tensor that it looks at the last step alone."""
    costs = candidates[:, :, -1].square().sum(-1)
    costs.last_step = True  # type: ignore[attr-defined]
    return costs


def test_a_last_step_cost_warns_where_less_than_the_plan_is_executed() -> None:
    """Marked on the function or on its tensor, through a lambda; once; not if all is executed."""
    of_function = partial(bowl)
    of_function.last_step = True  # type: ignore[attr-defined]
    for cost in (of_function, marked, lambda a: marked(a)):
        mpc = MPC(CEM(16, 4), horizon=3, action_dim=1, iterations=4)
        with pytest.warns(RuntimeWarning, match="last of 3 actions alone, but 1 are exec") as told:
            mpc.act(cost)
        assert len(told) == 1
        mpc.act(cost)
        MPC(CEM(16, 4), horizon=3, action_dim=1, iterations=2, execute=3).act(cost)
        MPC(CEM(16, 4), horizon=3, action_dim=1, iterations=2).act(bowl)
        optimize(CEM(16, 4), cost, torch.zeros(1, 3, 1), iterations=2)


def test_a_cost_that_cannot_be_called_is_named() -> None:
    """The controller says so itself, before it looks for a mark."""
    with pytest.raises(TypeError, match=r"cost must be callable, \[B, S, H, A\] -> \[B, S\]"):
        MPC(CEM(), horizon=3, action_dim=1, iterations=1).act(torch.zeros(1))  # type: ignore[arg-type]


def test_a_deadline_and_a_tolerance_reach_the_search() -> None:
    """`MPC` passes both on, and the plan says what ended it."""
    mpc = MPC(CEM(), horizon=2, action_dim=1, iterations=400, stop=0.01)
    mpc.act(bowl)
    assert mpc.last is not None
    assert mpc.last.stopped == "converged"
    late = MPC(CEM(), horizon=2, action_dim=1, iterations=100_000, deadline=0.05)
    late.act(bowl)
    assert late.last is not None
    assert late.last.stopped == "deadline"


def test_it_brings_a_mass_to_rest() -> None:
    """In closed loop a double integrator ends near 0, from 16 places at once."""
    torch.manual_seed(0)
    state = torch.randn(16, 2)

    def step(s: Tensor, a: Tensor) -> Tensor:
        return torch.stack([s[:, 0] + 0.2 * s[:, 1], s[:, 1] + 0.2 * a[:, 0]], 1)

    cost_from = from_dynamics(step, lambda s, a: s.square().sum(1) + 0.01 * a.square().sum(1))
    mpc = MPC(
        CEM(64, 8),
        horizon=10,
        action_dim=1,
        iterations=4,
        batch=16,
        bounds=Bounds(-3.0, 3.0),
        tail="repeat",
    )
    for _ in range(30):
        state = step(state, mpc.act(cost_from(state))[:, 0])
    assert state.norm(dim=1).max() < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"execute": 5}, r"execute must be an integer in \[1, 4\], got 5"),
        ({"execute": 0}, "execute"),
        ({"block": 2}, "block must divide action_dim = 1"),
        ({"tail": "ones"}, "tail"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, int], message: str) -> None:
    """A setting outside its range names itself."""
    given = {"horizon": 4, "action_dim": 1, "iterations": 1, **change}
    with pytest.raises(ValueError, match=message):
        MPC(CEM(), **given)  # type: ignore[arg-type]
