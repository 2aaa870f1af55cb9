"""Goals are closed forms of futures; they add, scale, and say which futures they look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from planners import CEM, AugmentedLagrangian, optimize
from worldmodel import goals, presets
from worldmodel.goals import SOON, Goal

B, S, H, D = 2, 5, 3, 4

Make = Callable[..., Goal]


@pytest.fixture
def z() -> Tensor:
    """Futures [B, S, H, D]."""
    return torch.randn(B, S, H, D, generator=torch.Generator().manual_seed(0))


def first_two(z: Tensor) -> Tensor:
    """A head that reads off the first two coordinates."""
    return z[..., :2]


def gap(z: Tensor, goal: Tensor) -> Tensor:
    """A distance that is no squared one."""
    return (z - goal).abs().sum(-1)


TARGET = torch.tensor([[0.5, -0.5], [1.0, 2.0]])
GOAL = torch.arange(8.0).view(2, 4) / 4
UNITS = torch.tensor([1.0, 10.0, 0.1, 0.0])
# Each goal beside d_h, what it takes a future for.
KINDS: dict[str, tuple[Make, Callable[[Tensor], Tensor]]] = {
    "near": (
        lambda **k: goals.near(GOAL, **k),
        lambda z: (z - GOAL[:, None, None]).square().sum(-1),
    ),
    "near by a metric": (
        lambda **k: goals.near(GOAL, metric=lambda z: z * UNITS, **k),
        lambda z: ((z - GOAL[:, None, None]) * UNITS).square().sum(-1),
    ),
    "state": (
        lambda **k: goals.state(first_two, TARGET, scale=torch.tensor([1.0, 2.0]), **k),
        lambda z: (
            (z[..., 0] - TARGET[:, None, None, 0]).square()
            + ((z[..., 1] - TARGET[:, None, None, 1]) / 2).square()
        ),
    ),
    "region": (
        lambda **k: goals.region(first_two, TARGET - 0.1, TARGET + 0.1, **k),
        lambda z: ((z[..., :2] - TARGET[:, None, None]).abs() - 0.1).clamp_min(0).square().sum(-1),
    ),
    "reward": (
        lambda **k: goals.reward(first_two, **({"frames": "last"} | k)),
        lambda z: -z[..., :2].amin(-1),
    ),
    "temporal": (
        lambda **k: goals.temporal(gap, GOAL, **k),
        lambda z: (z - GOAL[:, None, None]).abs().sum(-1),
    ),
    "charge": (
        lambda **k: goals.charge(lambda z: z[..., 0] - 0.2, **({"frames": "last"} | k)),
        lambda z: (z[..., 0] - 0.2).clamp_min(0).square(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_which_futures_count(kind: str, z: Tensor) -> None:
    """The last, the mean, the nearest with a twentieth of the mean, or a weighted sum of d_h."""
    make, score = KINDS[kind]
    d = score(z)
    torch.testing.assert_close(make()(z), d[..., -1])
    torch.testing.assert_close(make(frames="mean")(z), d.mean(-1))
    torch.testing.assert_close(make(frames="nearest")(z), d.amin(-1) + d.mean(-1) / 20)
    assert pytest.approx(1 / 20) == SOON
    weights = [0.0, 0.5, 2.0]
    torch.testing.assert_close(make(weights=weights)(z), 0.5 * d[..., 1] + 2 * d[..., 2])


def test_goals_add_and_scale(z: Tensor) -> None:
    """A sum of goals costs the sum of their costs, a multiple its multiple."""
    near, state = goals.near(GOAL), goals.state(first_two, TARGET, "nearest")
    both = near + 0.5 * state * 3
    torch.testing.assert_close(both(z), near(z) + 1.5 * state(z))
    torch.testing.assert_close((2 * (near + state))(z), 2 * near(z) + 2 * state(z))


def test_a_cost_says_that_it_looks_at_the_last_step_alone(z: Tensor) -> None:
    """Goal, cost and the tensor they return are marked, sums only where every term is."""
    last, mean = goals.near(GOAL), goals.near(GOAL, "mean")
    cases = {last: True, mean: False, last + 2 * last: True, last + mean: False}
    for goal, expected in cases.items():
        assert goal.last_step is expected
        assert goal.of(lambda actions: actions)(z).last_step is expected  # type: ignore[attr-defined]
        assert goal(z).last_step is expected  # type: ignore[attr-defined]
    assert not goals.near(GOAL, weights=[0.0, 0.0, 1.0]).last_step


def test_what_does_not_matter_is_left_out(z: Tensor) -> None:
    """A NaN in the target takes its quantity out of the distance, and out of the gradient."""
    target = torch.tensor([[0.5, torch.nan]] * B)
    leaf = z.clone().requires_grad_()
    cost = goals.state(first_two, target)(leaf)
    torch.testing.assert_close(cost, (z[..., -1, 0] - 0.5).square())
    (gradient,) = torch.autograd.grad(cost.sum(), leaf)
    assert gradient.isfinite().all()
    assert not gradient[..., 1].any()


def test_one_goal_serves_all_problems(z: Tensor) -> None:
    """[D] is the same goal for every problem; [1, D] or another batch is refused."""
    torch.testing.assert_close(goals.near(GOAL[0])(z)[0], goals.near(GOAL)(z)[0])
    for wrong in (GOAL[:1], GOAL[:, :3], torch.zeros(3, D)):
        with pytest.raises(ValueError, match=r"z_goal must be \[B, 4\] with B = 2, or \[4\], got"):
            goals.near(wrong)(z)


def test_depth_inside_a_box_is_signed(z: Tensor) -> None:
    """`avoid` is the distance to the nearest face inside, and negative outside."""
    low, high = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 3.0])
    out = goals.avoid(first_two, low, high)
    points = torch.tensor([[0.0, 0.0], [0.9, 1.0], [1.5, 0.0], [0.0, -1.25]])
    futures = torch.cat([points, torch.zeros(4, 2)], -1).view(1, 4, 1, 4)
    torch.testing.assert_close(out(futures)[0, :, 0], torch.tensor([1.0, 0.1, -0.5, -0.25]))


def test_typical_holds_the_share_it_promises() -> None:
    """The constraint holds for the share of the data it names, in any linear coordinates."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(2000, 3, generator=generator)
    for mix in (torch.eye(3), torch.tensor([[9.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.5]])):
        inside = goals.typical(seen @ mix + 5, 0.9)((seen @ mix + 5)[None, :, None]) <= 0
        assert float(inside.float().mean()) == pytest.approx(0.9, abs=1e-3)
    assert goals.typical(seen)(torch.full((1, 1, 1, 3), 9.0)) > 1


def test_a_constraint_keeps_a_plan_out(z: Tensor) -> None:
    """On a line, the cheapest plan that stays out of a box ends at its face."""

    def futures(actions: Tensor) -> Tensor:
        return actions.cumsum(2)

    out = goals.avoid(nn.Identity(), torch.tensor([1.0]), torch.tensor([3.0]))
    cost = goals.near(torch.tensor([1.6])).of(futures)
    method = AugmentedLagrangian(CEM(100, 10), lambda actions: out(futures(actions)), every=5)
    plan = optimize(method, cost, torch.zeros(1, 2, 1), iterations=60)
    assert float(plan.actions.sum()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_low_rollouts_are_compared_in_float32_without_autocast(kind: str, z: Tensor) -> None:
    """bfloat16 futures, and autocast around, cost what float32 makes of the same numbers."""
    goal = KINDS[kind][0](frames="mean")
    low = z.bfloat16()
    exact = goal(low.float())
    with torch.autocast("cpu", torch.bfloat16):
        under = goal(low)
    assert under.dtype == torch.float32
    assert torch.equal(under, exact)


def test_heads_run_in_float32_under_autocast(z: Tensor) -> None:
    """A linear probe ranks plans under autocast as it does without."""
    torch.manual_seed(0)
    goal = goals.state(nn.Linear(D, 2), TARGET)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        under = goal(z)
    with torch.no_grad():
        assert torch.equal(under, goal(z))


def test_plans_are_told_apart_under_autocast() -> None:
    """Of 300 plans nearly all cost differently under autocast, as they do without."""
    torch.manual_seed(0)
    model = presets.small(action_dim=4)
    for block in model.predictor.blocks:
        nn.init.normal_(block.modulation.weight, std=0.1)
    model.eval()
    seen, actions = torch.rand(1, 1, 3, 64, 64), torch.randn(1, 300, 5, 4)
    imagination = model.imagine()
    near = goals.near(imagination.embed(torch.rand(1, 3, 64, 64)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        costs = near(imagination.look(seen)(actions))
    assert costs.unique().numel() > 250


def test_says_what_is_wrong(z: Tensor) -> None:
    """Unknown frames, weights of another length, and z that is no futures are named."""
    with pytest.raises(ValueError, match=r'frames must be "last", "mean" or "nearest", got \'end'):
        goals.near(GOAL, "end")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights must be \[H\] = \[3\], got \[2\]"):
        goals.near(GOAL, weights=[1.0, 2.0])(z)
    with pytest.raises(ValueError, match="in place of frames"):
        goals.near(GOAL, "nearest", weights=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"futures \[B, S, H, D\], got \[5, 3, 4\]"):
        goals.near(GOAL)(z[0])
    with pytest.raises(ValueError, match=r"z must be \[N, D\] with N > D"):
        goals.typical(torch.randn(3, 4))


@pytest.mark.parametrize("make", [goals.region, goals.avoid])
def test_a_box_of_other_problems_is_refused(
    make: Callable[..., Callable[[Tensor], Tensor]], z: Tensor
) -> None:
    """A box for five problems, or of one quantity of two, would broadcast into another answer."""
    for side, shape in ((torch.zeros(5, 2), r"\[5, 2\]"), (torch.zeros(2, 1), r"\[2, 1\]")):
        with pytest.raises(ValueError, match=rf"low must be \[B, 2\] with B = 2.*got {shape}"):
            make(first_two, side, torch.ones(2))(z)
        with pytest.raises(ValueError, match=rf"high must be \[B, 2\] with B = 2.*got {shape}"):
            make(first_two, torch.ones(2), side)(z)
