"""Many plans at once give what the plain rollout gives one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from worldmodel import WorldModel, presets
from worldmodel.rollout import PlanRollout


def as_if_trained(model: WorldModel) -> WorldModel:
    """Weights as after training: a new block is the identity, which would prove nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modulation" in name:
                parameter.normal_(0, 0.1)
            elif parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def plain(model: WorldModel, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
    """`WorldModel.rollout`, every plan behind its own copy of the past."""
    B, S = plans.shape[:2]
    past = past.unsqueeze(1).expand(-1, S, -1, -1)
    told = torch.cat([past, plans], dim=2).flatten(0, 1)
    return model.rollout(z.repeat_interleave(S, dim=0), told).unflatten(0, (B, S))


def fast(model: WorldModel, z: Tensor, past: Tensor, plans: Tensor, **options: int) -> Tensor:
    """The same through `PlanRollout`."""
    rollout = PlanRollout(model.predictor, **options)
    return rollout(z, model.action_encoder(past), model.action_encoder(plans))


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """Two blocks, a history of three."""
    torch.manual_seed(0)
    return as_if_trained(presets.small(action_dim=4))


def inputs(model: WorldModel, B: int, S: int, T: int, H: int) -> tuple[Tensor, Tensor, Tensor]:
    """z, past and plans of the given sizes."""
    A, D = model.action_encoder.action_dim, model.predictor.dim
    return torch.randn(B, T, D), torch.randn(B, T - 1, A), torch.randn(B, S, H, A)


@pytest.mark.parametrize("T", [1, 2, 3, 4])
@pytest.mark.parametrize("H", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("fused", [False, True])
def test_equals_the_plain_rollout(model: WorldModel, T: int, H: int, fused: bool) -> None:
    """Every step of every plan agrees with the plain rollout to 1e-5, for any past and horizon."""
    given = inputs(model, 2, 5, T, H)
    with torch.no_grad():
        found = fast(model, *given, fused=fused)
        torch.testing.assert_close(found, plain(model, *given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("history", [1, 2, 5])
def test_any_history(history: int) -> None:
    """A predictor that looks back on one, two or five frames rolls out alike both ways."""
    model = presets.small(action_dim=4)
    predictor = type(model.predictor)(**model.predictor.config | {"history": history})
    model = as_if_trained(WorldModel(model.encoder, model.action_encoder, predictor))
    given = inputs(model, 2, 3, 2, 5)
    with torch.no_grad():
        torch.testing.assert_close(fast(model, *given), plain(model, *given), rtol=0, atol=1e-5)


def test_published_size() -> None:
    """Six blocks of sixteen wide heads: 1e-5 there too."""
    model = as_if_trained(presets.lewm())
    given = inputs(model, 1, 6, 1, 5)
    with torch.no_grad():
        torch.testing.assert_close(fast(model, *given), plain(model, *given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 5, 7, 1000])
def test_rows_change_nothing(model: WorldModel, rows: int) -> None:
    """How many plans travel together is a matter of speed alone."""
    given = inputs(model, 4, 5, 2, 4)
    with torch.no_grad():
        whole = fast(model, *given)
        torch.testing.assert_close(fast(model, *given, rows=rows), whole, rtol=0, atol=1e-5)


def test_gradient_of_the_plan(model: WorldModel) -> None:
    """The gradient of any function of the predictions in the actions is the plain rollout's."""
    z, past, plans = inputs(model, 2, 3, 2, 4)
    gradients = []
    for roll in (plain, fast):
        leaf = plans.clone().requires_grad_()
        roll(model, z, past, leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_later_actions_do_not_reach_back(model: WorldModel) -> None:
    """Changing action h leaves the predictions before it bit-identical and moves its own."""
    z, past, plans = inputs(model, 1, 4, 1, 5)
    changed = plans.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        a, b = fast(model, z, past, plans), fast(model, z, past, changed)
    assert torch.equal(a[:, :, :2], b[:, :, :2])
    assert (a[:, :, 2:] != b[:, :, 2:]).any(-1).all()


def test_nothing_is_written_into(model: WorldModel) -> None:
    """Arguments and weights are the same bits after a rollout as before."""
    given = inputs(model, 2, 3, 2, 4)
    before, weights = copy.deepcopy(given), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        fast(model, *given)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    after = model.state_dict()
    assert all(torch.equal(after[key], weights[key]) for key in weights)
