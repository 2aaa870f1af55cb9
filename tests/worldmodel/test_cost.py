"""The cost of a plan is the squared distance between where it leads and the goal."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from worldmodel import (
    ActionEncoder,
    CausalPredictor,
    ViTEncoder,
    WorldModel,
    goal_cost,
    presets,
)

B, S, H, A = 2, 5, 4, 4


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """A small model whose blocks have left the identity."""
    torch.manual_seed(0)
    model = presets.small(action_dim=A)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modulation" in name:
                parameter.normal_(0, 0.1)
    return model.eval()


@pytest.mark.parametrize("T", [1, 2, 4])
@pytest.mark.parametrize("steps", ["last", "mean", "nearest"])
def test_definition(model: WorldModel, T: int, steps: Literal["last", "mean", "nearest"]) -> None:
    """Each cost is ‖ẑ − z_goal‖²: of the last prediction, of all on average, or of the nearest."""
    frames, goal = torch.rand(B, T, 3, 64, 64), torch.rand(B, 3, 64, 64)
    past, actions = torch.randn(B, T - 1, A), torch.randn(B, S, H, A)
    cost = goal_cost(model, frames, goal, past_actions=past, steps=steps)
    with torch.no_grad():
        costs = cost(actions)
        z, z_goal = model.encode(frames), model.encode(goal.unsqueeze(1))
        for b in range(B):
            for s in range(S):
                told = torch.cat([past[b], actions[b, s]]).unsqueeze(0)
                distances = (model.rollout(z[b : b + 1], told) - z_goal[b]).square().sum(-1)[0]
                expected = {
                    "last": distances[-1],
                    "mean": distances.mean(),
                    "nearest": distances.min() + distances.mean() / 20,
                }[steps]
                torch.testing.assert_close(costs[b, s], expected, rtol=1e-4, atol=1e-5)


def test_doing_nothing_where_nothing_happens() -> None:
    """A new predictor ignores the plan, so every plan costs the same for the same frames."""
    model = presets.small(action_dim=A).eval()
    frames, goal = torch.rand(B, 1, 3, 64, 64), torch.rand(B, 3, 64, 64)
    with torch.no_grad():
        costs = goal_cost(model, frames, goal)(torch.randn(B, S, H, A))
    torch.testing.assert_close(costs, costs[:, :1].expand(-1, S), rtol=1e-5, atol=1e-6)


def test_gradient_reaches_the_actions_alone(model: WorldModel) -> None:
    """The cost is differentiable in the actions, and no graph leads to the frames."""
    frames, goal = torch.rand(B, 1, 3, 64, 64), torch.rand(B, 3, 64, 64)
    frames.requires_grad_()
    actions = torch.randn(B, S, H, A, requires_grad=True)
    goal_cost(model, frames, goal)(actions).sum().backward()
    assert actions.grad is not None
    assert (actions.grad != 0).any(-1).all()
    assert frames.grad is None


def test_problems_do_not_see_each_other(model: WorldModel) -> None:
    """A problem's costs in a batch are its costs alone."""
    frames, goal = torch.rand(B, 1, 3, 64, 64), torch.rand(B, 3, 64, 64)
    actions = torch.randn(B, S, H, A)
    with torch.no_grad():
        together = goal_cost(model, frames, goal)(actions)
        for b in range(B):
            alone = goal_cost(model, frames[b : b + 1], goal[b : b + 1])(actions[b : b + 1])
            torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)


def test_says_what_is_wrong(model: WorldModel) -> None:
    """Training mode, missing past actions, other shapes and unknown steps are named errors."""
    frames, goal = torch.rand(B, 2, 3, 64, 64), torch.rand(B, 3, 64, 64)
    with pytest.raises(ValueError, match="eval mode"):
        goal_cost(presets.small(), frames, goal)
    with pytest.raises(ValueError, match=r"past_actions must be .* B = 2 and T = 2, got None"):
        goal_cost(model, frames, goal)
    with pytest.raises(ValueError, match="frames and goal must be"):
        goal_cost(model, frames, goal[:1])
    with pytest.raises(ValueError, match="steps must be"):
        goal_cost(model, frames[:, :1], goal, steps="first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"actions must be .*\[\.\.\., 4\], got .*\[2, 5, 4, 5\]"):
        goal_cost(model, frames[:, :1], goal)(torch.randn(B, S, H, A + 1))
    with pytest.raises(ValueError, match=r"actions must be \[B, S, H, A\] with B = 2, got \[3, "):
        goal_cost(model, frames[:, :1], goal)(torch.randn(B + 1, S, H, A))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_moves_costs_by_its_own_rounding(
    model: WorldModel, dtype: torch.dtype
) -> None:
    """A cost moves by no more than two of the dtype's own steps, and the model keeps its dtype."""
    frames, goal = torch.rand(1, 1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    actions = torch.randn(1, 50, H, A)
    with torch.no_grad():
        exact = goal_cost(model, frames, goal)(actions)
        rough = goal_cost(model, frames, goal, dtype=dtype)(actions)
    assert (rough != exact).any()
    torch.testing.assert_close(rough, exact, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiling_changes_nothing() -> None:
    """A compiled rollout answers as the eager one, for actions it was not compiled with too."""
    torch.manual_seed(0)
    tiny = WorldModel(
        encoder=ViTEncoder(image_size=16, patch_size=8, dim=8, depth=1, heads=1),
        action_encoder=ActionEncoder(action_dim=A, dim=8),
        predictor=CausalPredictor(
            dim=8, depth=1, heads=2, history=2, dim_head=4, mlp_dim=8, projector_dim=8
        ),
    ).eval()
    torch.nn.init.normal_(tiny.predictor.blocks[0].modulation.weight, 0, 0.3)
    frames, goal = torch.rand(1, 1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        eager, compiled = (goal_cost(tiny, frames, goal, compile=c) for c in (False, True))
        for _ in range(2):
            actions = torch.randn(1, S, 2, A)
            torch.testing.assert_close(compiled(actions), eager(actions), rtol=1e-5, atol=1e-5)


def test_cuda_graph_needs_cuda(model: WorldModel) -> None:
    """A model on the CPU cannot be recorded, and the error says where it is."""
    frames, goal = torch.rand(1, 1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="CUDA device, got cpu"):
        goal_cost(model, frames, goal, cuda_graph=True)


@pytest.mark.gpu
def test_cuda_graph_changes_nothing() -> None:
    """A recorded cost answers for new actions, and for a second shape, as the unrecorded one."""
    model = presets.small(action_dim=A).eval().cuda()
    frames = torch.rand(B, 1, 3, 64, 64, device="cuda")
    goal = torch.rand(B, 3, 64, 64, device="cuda")
    with torch.no_grad():
        plain, recorded = (goal_cost(model, frames, goal, cuda_graph=g) for g in (False, True))
        for candidates in (S, S, S + 3, S):
            actions = torch.randn(B, candidates, H, A, device="cuda")
            torch.testing.assert_close(recorded(actions), plain(actions), rtol=1e-5, atol=1e-5)
