"""Losses of several terms, windows in which something moves, and the MLP that predicts."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel import ComposedTerms, MLPPredictor, composed_loss, jepa_loss, presets
from worldmodel.apps.ranks import ALONE
from worldmodel.apps.runs import open_run
from worldmodel.apps.train.command import run as train
from worldmodel.apps.train.material import begin_training, open_material
from worldmodel.apps.train.reports import read_table
from worldmodel.checkpoint import digest
from worldmodel.contract import roll_out
from worldmodel.data import Episodes, HDF5Writer, Windows
from worldmodel.loss import rollout_error, straightening
from worldmodel.records import Batch
from worldmodel.worlds import TwoRoom, collect

sys.path.insert(0, str(Path(__file__).parent))
from killed_runs import settings


class Spread(nn.Module):
    """A regularizer that tells the shape it was given."""

    def forward(self, z: Tensor) -> Tensor:
        """Mean of squares."""
        self.shape = z.shape
        return z.square().mean()


def batch(T: int = 4) -> Batch:
    """Five windows of small pictures and two action dims."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (5, T, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Batch(frames, torch.randn(5, T, 2, generator=generator))


def test_the_total_is_the_sum_of_its_terms() -> None:
    """Prediction, λ times the regularizer, and each term by its weight; those of 0 are left out."""
    torch.manual_seed(0)
    model = presets.small(2, image_size=16, dim=8).eval()
    weights = {"inverse": 0.5, "rollout": 2.0, "straight": 0.25}
    terms = ComposedTerms(Spread(), weights, dim=8, action_dim=2)
    found = composed_loss(model, batch(), terms, 0.3)
    plain = jepa_loss(model, batch(), Spread(), 0.3)
    assert torch.equal(found.prediction, plain.prediction)
    z = model.encode(batch().frames)
    assert terms.inverse is not None
    guesses = terms.inverse.network(torch.cat([z[:, :3], z[:, 1:]], -1))
    known = {
        "inverse": (guesses - batch().actions[:, :3]).square().mean(),
        "rollout": (model.rollout(z[:, :1], batch().actions[:, :3]) - z[:, 1:]).square().mean(),
        "straight": 1 - F.cosine_similarity(z[:, 1:3] - z[:, :2], z[:, 2:] - z[:, 1:3], -1).mean(),
    }
    for name, value in known.items():
        torch.testing.assert_close(found.terms[name], value.detach())
    total = plain.total + sum(weights[name] * value for name, value in known.items())
    torch.testing.assert_close(found.total, total)
    found.total.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in terms.inverse.parameters())
    none = ComposedTerms(Spread(), {"inverse": 0.0}, dim=8, action_dim=2)
    same = composed_loss(model, batch(), none, 0.3)
    assert torch.equal(same.total, plain.total)
    assert not same.terms


def test_terms_know_their_perfect_windows() -> None:
    """A straight path scores 0, its way back 2; a rollout that comes true scores 0."""
    line = torch.arange(4.0)[None, :, None] * torch.ones(2, 1, 3)
    torch.testing.assert_close(straightening(line), torch.tensor(0.0))
    torch.testing.assert_close(straightening(line.abs().remainder(2)), torch.tensor(2.0))
    model = presets.small(2, image_size=16, dim=8).eval()
    start, actions = torch.randn(3, 1, 8), torch.randn(3, 4, 2)
    with torch.no_grad():
        true = torch.cat([start, model.rollout(start, actions[:, :3])], dim=1)
        assert float(rollout_error(model, true, actions)) < 1e-10
        assert float(rollout_error(model, true.flip(1), actions)) > 1e-4


def test_pooled_embeddings_are_one_sample() -> None:
    """All T · B at once instead of each time step alone."""
    model = presets.small(2, image_size=16, dim=8)
    for pooled, shape in ((False, (4, 5, 8)), (True, (20, 8))):
        terms = ComposedTerms(spread := Spread(), {}, dim=8, action_dim=2, pooled=pooled)
        composed_loss(model, batch(), terms)
        assert spread.shape == shape


@pytest.mark.parametrize(
    "weights", [{"inverse": -1.0}, {"rollout": float("nan")}, {"decoder": 1.0}]
)
def test_other_weights_are_refused(weights: dict[str, float]) -> None:
    """Negative, not finite, or of a term that there is not."""
    with pytest.raises(ValueError, match="weights must be finite, not negative and of inverse, ro"):
        ComposedTerms(Spread(), weights, dim=8, action_dim=2)


def walks(moving: int, still: int) -> Episodes:
    """Episodes of five rows: some in which the second state grows, some in which nothing does."""
    num = moving + still
    states = torch.zeros(num, 5, 2)
    states[:moving, :, 1] = torch.arange(5.0)
    frames = (20 * states[..., 1]).to(torch.uint8)[:, :, None, None, None].expand(num, 5, 3, 4, 4)
    lengths, actions = torch.full((num,), 5), torch.zeros(num * 5, 1)
    return Episodes(frames.flatten(0, 1), actions, lengths, states.flatten(0, 1))


@pytest.mark.parametrize("with_states", [True, False])
def test_still_windows_are_thinned_out(with_states: bool) -> None:
    """Every moving window stays, and as many still ones as the share allows, by the seed."""
    episodes = walks(moving=8, still=40)
    if not with_states:
        episodes = Episodes(episodes.frames, episodes.actions, episodes.lengths)
    dims = [1] if with_states else None

    def kept(share: float, seed: int = 0) -> list[int]:
        windows = Windows(episodes, num_frames=5, frameskip=1)
        windows.thin(share, dims, seed)
        return [int(start) // 5 for start in windows._starts]

    assert len(kept(0.0)) == 48
    found = kept(0.8)
    assert found[:8] == list(range(8))
    assert len(found) == 10
    assert kept(0.8) == found
    assert kept(0.8, seed=1) != found


def test_where_nothing_moves_everything_stays() -> None:
    """A state dim that never changes thins nothing; dims that are not there are named."""
    windows = Windows(walks(8, 40), num_frames=5, frameskip=1)
    windows.thin(0.8, [0])
    assert len(windows) == 48
    with pytest.raises(ValueError, match=r"dims must be among 2 states, got \[2\]"):
        windows.thin(0.8, [2])
    with pytest.raises(ValueError, match=r"share must be a finite number in \[0, 1\), got 1"):
        windows.thin(1.0)


@pytest.mark.parametrize("known", [1, 2, 5])
def test_the_mlp_rolls_out_step_by_step(known: int) -> None:
    """Its rollout equals `forward` again and again; new, nothing changes."""
    torch.manual_seed(0)
    predictor = MLPPredictor(8, 16, depth=2)
    z, actions = torch.randn(2, known, 8), torch.randn(2, known + 4, 8)
    assert torch.equal(predictor(z, actions[:, :known]), z)
    nn.init.normal_(predictor.leave.weight)
    found = predictor.rollout(z, actions)
    for h in range(5):
        window = torch.cat([z, found[:, :h]], dim=1)[:, -5:]
        step = predictor(window, actions[:, : known + h][:, -5:])[:, -1]
        torch.testing.assert_close(found[:, h], step)
    assert torch.equal(roll_out(predictor, z, actions), found)
    later = actions.clone()
    later[:, known:] += 1
    assert torch.equal(predictor.rollout(z, later)[:, 0], found[:, 0])
    assert not torch.equal(predictor.rollout(z, later)[:, 1], found[:, 1])


def test_a_run_of_several_terms_goes_on_where_it_was(tmp_path: Path) -> None:
    """Each term has its column; a resumed run has the weights of an uninterrupted one."""
    world, found = TwoRoom(16), collect(TwoRoom(16), 12, 14, 0)
    with HDF5Writer(tmp_path / "walks.h5") as writer:
        for states, actions in zip(found.states, found.actions, strict=True):
            writer.write(world.render(states), actions, states)
    own = {"terms": {"inverse": 0.3, "rollout": 1.0}, "pooled": True, "moving": 0.5}
    given = settings(tmp_path / "walks.h5", tmp_path / "run", report_every=1, held_out=0.25)
    given = given.model_copy(update=own)
    train(given)
    table = read_table(given.out / "curves.csv")
    assert len(table["inverse"]) == len(table["rollout"]) == given.steps == 4
    assert all(value > 0 for value in table["inverse"] + table["rollout"])
    material = open_material(given)
    half, rest = (begin_training(given, material, ALONE)[1] for _ in range(2))
    list(islice(half.run(), 2))
    half.save(tmp_path / "state")
    rest.restore(tmp_path / "state")
    list(rest.run())
    assert digest(rest.model) == digest(open_run(given.out).model)
