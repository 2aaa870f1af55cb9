"""Train policies and values on cached embeddings, and store them with their model's digest.

Letters: E episodes, T embeddings of each, D embedding dims, A action dims of a block.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.checkpoint import digest_of
from worldmodel.heads import descend, read_part, write_part
from worldmodel.model import WorldModel
from worldmodel.policies import Policy
from worldmodel.records import as_seed
from worldmodel.transitions import Recipe, draw
from worldmodel.values import GCIQL, GCIVL, HIQL

__all__ = ["learn", "load_learner", "save_learner"]

Learner = Policy | GCIVL | GCIQL | HIQL
"""What `learn` trains: `(z, z_goal) -> [B, S, n, A]`, proposals; values also have a `distance`."""
_LearnerT = TypeVar("_LearnerT", Policy, GCIVL, GCIQL, HIQL)

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Policy, GCIVL, GCIQL, HIQL)}


@checked(z="E T D", actions="E S A", rate="(0, inf)")
def learn(
    kind: type[_LearnerT],
    z: Tensor,
    actions: Tensor,
    *,
    steps: int = 3000,
    batch: int = 1024,
    rate: float = 3e-4,
    seed: int = 0,
    over: Callable[[Iterable[int]], Iterable[int]] = iter,
    **options: Any,
) -> _LearnerT:
    """Train a policy, or a value and its policy, on embeddings of recorded episodes.

    Adam starts at `rate`, which falls by a cosine; OGBench keeps it for a million steps.

    Args:
        kind: `Policy`, `GCIVL`, `GCIQL` or `HIQL`.
        z: [E, T, D], embeddings of the frames of episodes, one block apart, by a frozen model.
        actions: [E, T − 1, A], blocks between them, in the model's units.
        steps, batch: of Adam, and steps of episodes in each.
        rate, seed: at the start; of the first weights and of all draws.
        over: iterates over the steps, such as a progress bar.
        options: fields that differ from `kind.recipe`, see `Recipe`.
    Returns: the learner, in eval mode, without gradients of its own.
    Raises: ValueError if shapes disagree, episodes are too short, or values are not finite.
    Source: Adam, rate and batch of OGBench, arXiv:2410.20092.
    """
    if not bool(z.isfinite().all() and actions.isfinite().all()):
        raise ValueError("z and actions must be finite: leave out actions without a next frame")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(as_seed(seed))
        recipe = replace(kind.recipe, **options)
        learner = kind(z.shape[-1], actions.shape[-1], recipe).to(z)
    learner.standard.fit(z)
    if isinstance(learner, GCIQL):
        learner.keep_within(actions)
    generator = torch.Generator(z.device).manual_seed(as_seed(seed))
    follow: Callable[[], object] = int if isinstance(learner, Policy) else learner.follow

    def error() -> Tensor:
        follow()
        return learner.loss(draw(z, actions, batch, recipe, generator))

    descend(learner, error, rate=rate, steps=steps, over=over)
    return learner.requires_grad_(False).eval()


@checked()
def save_learner(
    learner: Learner, path: str | Path, *, model: WorldModel, notes: dict[str, Any] | None = None
) -> None:
    """Write a learner into one safetensors file, whole or not at all.

    Args:
        learner, path: as `learn` returns it; a file, which is replaced.
        model: of its embeddings; the file stores the model's digest.
        notes: any JSON value, such as data and steps.
    """
    dims = [len(learner.standard.centre), learner.actor.shape[-1]]
    of, recipe = digest_of(model.state_dict()), asdict(learner.recipe)
    header = {"dims": dims, "recipe": recipe, "model": of, "notes": notes or {}}
    write_part(learner, path, "learner", header)


@checked()
def load_learner(path: str | Path, *, model: WorldModel) -> Learner:
    """Read a learner that `save_learner` wrote.

    Args:
        path, model: the file, and the model of its embeddings.
    Returns: the learner, in eval mode, without gradients of its own.
    Raises: ValueError naming the file if it holds something else, or is of another model.
    """

    def make(told: Any) -> Learner:
        recipe = Recipe(**{**told["recipe"], "hidden": tuple(told["recipe"]["hidden"])})
        return _KINDS[told["class"]](*told["dims"], recipe)

    learner, header = read_part(path, "learner", make)
    if header.get("model") != digest_of(model.state_dict()):
        raise ValueError(f"{path} belongs to another model: its embeddings mean something else")
    return learner
