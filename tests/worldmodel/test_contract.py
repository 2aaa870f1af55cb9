"""Parts of one's own: an encoder, an action encoder and a predictor in a few lines each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planners import CEM, optimize
from sigreg import SIGReg
from worldmodel import ActionEncoder, Batch, WorldModel, goal_cost, goals, jepa_loss, load, save
from worldmodel.contract import plain_rollout, roll_out


class MyEncoder(nn.Module):
    """Frames [B, T, 3, 8, 8] to embeddings [B, T, 6]."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.dim, self.config = dim, {"dim": dim}
        self.net = nn.Linear(3 * 8 * 8, dim)

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames.flatten(-3))


class MyActions(nn.Module):
    """Actions [..., 2] to [..., 3], another width than the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, int] = {}
        self.net = nn.Linear(2, 3)

    def forward(self, actions: Tensor) -> Tensor:
        return self.net(actions).tanh()


class MyPredictor(nn.Module):
    """A recurrent network: nothing but `dim`, `history` and `forward`."""

    def __init__(self, dim: int = 6, history: int = 3) -> None:
        super().__init__()
        self.dim, self.history = dim, history
        self.config = {"dim": dim, "history": history}
        self.cell = nn.GRU(dim + 3, 16, batch_first=True)
        self.out = nn.Linear(16, dim)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        return z + self.out(self.cell(torch.cat([z, actions], dim=-1))[0])


class Recurrent(MyPredictor):
    """The same with a rollout of its own, which goes on from its state."""

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        known = z.shape[1]
        state = None
        if known > 1:
            _, state = self.cell(torch.cat([z[:, :-1], actions[:, : known - 1]], -1))
        now, out = z[:, -1:], []
        for action in actions[:, known - 1 :].split(1, dim=1):
            h, state = self.cell(torch.cat([now, action], -1), state)
            now = now + self.out(h)
            out.append(now)
        return torch.cat(out, dim=1)


@pytest.fixture
def model() -> WorldModel:
    """All three parts one's own."""
    torch.manual_seed(0)
    return WorldModel(MyEncoder(), MyActions(), MyPredictor())


def test_parts_of_ones_own_train_plan_and_survive_the_disk(
    model: WorldModel, tmp_path: Path
) -> None:
    """The loss reaches every weight, a search lowers the cost, a loaded model costs the same."""
    batch = Batch(torch.rand(5, 4, 3, 8, 8), torch.randn(5, 4, 2))
    jepa_loss(model, batch, SIGReg(num_proj=8), weight=0.1).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())

    model.eval()
    frames, goal = torch.rand(2, 1, 3, 8, 8), torch.rand(2, 3, 8, 8)
    cost = goal_cost(model, frames, goal)
    plan = optimize(CEM(40, 4), cost, torch.zeros(2, 4, 2), iterations=4)
    with torch.no_grad():
        before, after = cost(torch.zeros(2, 1, 4, 2)), cost(plan.actions[:, None])
    assert (after < before).all()

    save(model, tmp_path)
    loaded = load(tmp_path, classes=(MyEncoder, MyActions, MyPredictor))
    again = goal_cost(loaded, frames, goal)(plan.actions[:, None])
    torch.testing.assert_close(again, after)


@pytest.mark.parametrize("known", [1, 2, 5])
@pytest.mark.parametrize("rows", [None, 1, 4])
def test_a_predictor_without_a_rollout_is_rolled_out_plainly(
    model: WorldModel, known: int, rows: int | None
) -> None:
    """Futures are what `predict` says again and again of the last `history` embeddings."""
    model.eval()
    frames, past = torch.rand(2, known, 3, 8, 8), torch.randn(2, known - 1, 2)
    actions = torch.randn(2, 3, 4, 2)
    with torch.no_grad():
        found = model.imagine(rows=rows).look(frames, past)(actions)
        for b in range(2):
            for s in range(3):
                z, told = model.encode(frames[b : b + 1]), torch.cat([past[b], actions[b, s]])[None]
                for end in range(known, known + 4):
                    first = max(0, end - 3)
                    step = model.predict(z[:, first:end], told[:, first:end])
                    z = torch.cat([z, step[:, -1:]], dim=1)
                torch.testing.assert_close(found[b, s], z[0, known:])


def test_a_rollout_of_its_own_is_the_models() -> None:
    """A declared rollout stands behind `WorldModel.rollout` and behind plans."""
    torch.manual_seed(0)
    model = WorldModel(MyEncoder(), MyActions(), Recurrent(history=9)).eval()
    z, actions = torch.randn(2, 3, 6), torch.randn(2, 6, 2)
    with torch.no_grad():
        own = model.rollout(z, actions)
        plain = MyPredictor(history=9)
        plain.load_state_dict(model.predictor.state_dict())
        # With all of the past in the window, both are the same recurrence.
        torch.testing.assert_close(own, roll_out(plain, z, model.action_encoder(actions)))
        told = model.action_encoder(actions)
        planned = plain_rollout(model.predictor)(z, told[:, :2], told[:, None, 2:])
    torch.testing.assert_close(planned[:, 0], own)


def test_modules_of_torch_are_action_encoders() -> None:
    """Raw actions go in as they are, and float64 ones are taken."""
    predictor = MyPredictor()
    model = WorldModel(MyEncoder(), nn.Identity(), predictor).eval()
    futures = model.imagine().look(torch.rand(1, 1, 3, 8, 8).numpy())
    assert futures(torch.randn(1, 4, 2, 3, dtype=torch.float64)).shape == (1, 4, 2, 6)


def test_a_named_action_width_is_checked() -> None:
    """A predictor that says its action width meets no other action encoder of ours."""

    class Steered(MyPredictor):
        action_width = 3

    with pytest.raises(ValueError, match="dim 3, the predictor's action_width, got 5"):
        WorldModel(MyEncoder(), ActionEncoder(2, 5), Steered())
    WorldModel(MyEncoder(), ActionEncoder(2, 3), Steered())


def test_the_long_and_the_short_form_cost_the_same(model: WorldModel) -> None:
    """`goal_cost` is imagine, look, near."""
    model.eval()
    frames, goal, actions = (
        torch.rand(2, 1, 3, 8, 8),
        torch.rand(2, 3, 8, 8),
        torch.randn(2, 5, 4, 2),
    )
    imagination = model.imagine()
    near = goals.near(model.encode(goal[:, None])[:, 0], frames="nearest")
    with torch.no_grad():
        long = near(imagination.look(frames)(actions))
        assert torch.equal(goal_cost(model, frames, goal, steps="nearest")(actions), long)
