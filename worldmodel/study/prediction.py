"""How well does the model foresee embeddings: the next one, and those of a whole future?

Letters: E episodes, T frames, H steps ahead, D embedding dims, A action dims.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["HorizonErrors", "LatentModel", "open_loop", "surprise"]


class LatentModel(Protocol):
    """What a study asks of a model; `worldmodel.WorldModel` offers it."""

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """[E, T, D] and [E, T, A] -> [E, T, D], the embedding after each."""

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """[E, T, D] and [E, T − 1 + H, A] -> [E, H, D]."""


class HorizonErrors(NamedTuple):
    """Squared distance to the true embedding, mean over D, for every step ahead.

    Attributes:
        model: [E, H], of the model's rollout under the true actions.
        copy: [E, H], of the last known embedding, repeated.
        mean: [E, H], of one constant embedding.
    """

    model: Tensor
    copy: Tensor
    mean: Tensor


@torch.no_grad()
def surprise(model: LatentModel, z: Tensor, actions: Tensor, *, history: int) -> Tensor:
    """Error of the one-step prediction of every embedding, as the episode is watched.

        s_t = ‖predict(z_{≤t}, a_{≤t}) − z_{t+1}‖² / D

    Args:
        model: LatentModel in evaluation mode.
        z: [E, T, D], what was seen.
        actions: [E, T − 1, A] (further ones are not looked at), what was done in between.
        history: frames the model looks back on, at most.
    Returns: [E, T − 1]; entry t is the surprise at frame t + 1.
    Raises: ValueError if there are fewer than two frames or too few actions.
    Source: LeWM, arXiv:2603.19312, Section 5 (violation of expectation).
    """
    steps = z.shape[1] - 1
    if z.dim() != 3 or steps < 1 or actions.shape[1] < steps:
        raise ValueError(
            f"z must be [E, T >= 2, D] and actions [E, T - 1, A], got {list(z.shape)} and "
            f"{list(actions.shape)}"
        )
    errors = []
    for t in range(steps):
        start = max(0, t + 1 - history)
        expected = model.predict(z[:, start : t + 1], actions[:, start : t + 1])[:, -1]
        errors.append((expected - z[:, t + 1]).square().mean(-1))
    return torch.stack(errors, dim=1)


@torch.no_grad()
def open_loop(
    model: LatentModel, z: Tensor, actions: Tensor, *, known: int, mean: Tensor
) -> HorizonErrors:
    """Errors of a rollout that never looks again, beside two guesses that need no model.

    Args:
        model: LatentModel in evaluation mode.
        z: [E, known + H, D], true embeddings.
        actions: [E, known + H − 1, A] (further ones are not looked at).
        known: frames given to the model, at least 1.
        mean: [D], the constant guess; take it from other episodes.
    Returns: HorizonErrors over H steps.
    Raises: ValueError if no step is left to predict or there are too few actions.
    """
    steps = z.shape[1] - known
    if z.dim() != 3 or known < 1 or steps < 1 or actions.shape[1] < z.shape[1] - 1:
        raise ValueError(
            f"z must be [E, known + H, D] with known = {known} >= 1 and H >= 1, actions one fewer, "
            f"got {list(z.shape)} and {list(actions.shape)}"
        )
    truth = z[:, known:]
    predicted = model.rollout(z[:, :known], actions[:, : z.shape[1] - 1])
    guesses = (predicted, z[:, known - 1 : known], mean.expand(1, 1, -1))
    return HorizonErrors(*((guess - truth).square().mean(-1) for guess in guesses))
