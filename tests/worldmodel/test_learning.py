"""What is learned on cached embeddings: repeatable, kept whole, bound to its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel import presets
from worldmodel.learning import learn, load_learner, save_learner
from worldmodel.policies import Policy
from worldmodel.values import GCIQL, GCIVL, HIQL

KINDS: list[tuple[type[Any], dict[str, Any]]] = [
    (Policy, {"modes": 3, "chunk": 2}),
    (GCIVL, {"modes": 2}),
    (GCIQL, {"chunk": 2}),
    (HIQL, {"ahead": 2}),
]


def recorded() -> tuple[Tensor, Tensor]:
    """Random episodes of a small model."""
    return torch.randn(6, 8, 64), torch.randn(6, 7, 4)


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_a_learner_comes_back_the_same_and_only_to_its_model(
    kind: type[Any], config: dict[str, Any], tmp_path: Path
) -> None:
    """Proposals and distances are equal bit for bit; another model's weights are refused."""
    z, actions = recorded()
    learner = learn(kind, z, actions, steps=3, batch=16, hidden=(16,), **config)
    assert not any(p.requires_grad for p in learner.parameters())
    model, other = (presets.small(action_dim=4).eval() for _ in range(2))
    path = tmp_path / "proposals.safetensors"
    save_learner(learner, path, model=model, notes={"steps": 3})
    again = load_learner(path, model=model)
    assert torch.equal(again(z[:, 0], z[:, 3]), learner(z[:, 0], z[:, 3]))
    if kind is not Policy:
        assert torch.equal(again.distance(z, z[:, :1]), learner.distance(z, z[:, :1]))
    with pytest.raises(ValueError, match="belongs to another model"):
        load_learner(path, model=other)


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_a_seed_is_a_learner(kind: type[Any], config: dict[str, Any]) -> None:
    """The same seed gives the same weights whatever the global generator holds, and leaves it."""
    z, actions = recorded()
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed + len(found))
        before = torch.random.get_rng_state()
        learner = learn(kind, z, actions, steps=2, batch=8, hidden=(8,), seed=seed, **config)
        assert torch.equal(before, torch.random.get_rng_state())
        found.append(torch.cat([p.flatten() for p in learner.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_embeddings_may_come_in_any_scale() -> None:
    """Standardised on the way in: a thousandfold embeddings give the same policy."""
    z, actions = recorded()
    learned = [
        learn(Policy, scale * z, actions, steps=5, batch=16, hidden=(16,)) for scale in (1, 1000)
    ]
    a, b = (p(s * z[:, 0], s * z[:, 5]) for p, s in zip(learned, (1, 1000), strict=True))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_other_files_are_no_learners(tmp_path: Path) -> None:
    """A head, or a file that is none, is named."""
    from worldmodel import heads

    path = tmp_path / "head.safetensors"
    heads.save_head(heads.Head(3, 1), path)
    with pytest.raises(ValueError, match="holds no learner"):
        load_learner(path, model=presets.small(action_dim=4))


def test_actions_that_lead_nowhere_are_refused() -> None:
    """NaN stands in data where an episode ends; nothing is learned from it."""
    z, actions = recorded()
    actions[0, -1] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        learn(Policy, z, actions, steps=1)
