"""The two-term loss of a joint-embedding predictive world model."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses, lead

__all__ = ["jepa_loss", "one_step_error"]


def one_step_error(model: WorldModel, batch: Batch, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Embeddings z [B, T, D] of a batch, and mean (ẑ_{t+1} − z_{t+1})², [].

    Raises: ValueError if there are fewer windows than `at_least`, fewer than two frames, or shapes
        disagree.
    """
    frames, actions = batch
    B, T = lead(frames, "batch.frames")
    if B < at_least or T < 2:
        raise ValueError(
            f"batch.frames must be [B >= {at_least}, T >= 2, ...], got [{B}, {T}, ...]"
        )
    if actions.dim() != 3 or actions.shape[:2] != (B, T):
        raise ValueError(
            f"batch.actions must be [B, T, A] with [B, T] = {[B, T]}, got {list(actions.shape)}"
        )
    z = model.encode(frames)
    return z, F.mse_loss(model.predict(z[:, :-1], actions[:, :-1]), z[:, 1:])


def jepa_loss(
    model: WorldModel,
    batch: Batch,
    regularizer: Callable[[Tensor], Tensor],
    weight: float = 0.09,
) -> Losses:
    """Next-embedding error plus a weighted regularizer of the embeddings.

        mean (ẑ_{t+1} − z_{t+1})² + weight · regularizer(z)

    Both sides of the error carry gradient: no stop-gradient, no moving average. The regularizer
    sees [T, B, D], the batch of each time step alone, as released.

    Args:
        model: WorldModel whose history is at least T − 1.
        batch: Batch with T ≥ 2 frames.
        regularizer: [T, B, D] -> [], for example `sigreg.SIGReg()`.
        weight: λ. Released code has 0.09; success stays high from 0.01 to 0.2 (paper, λ figure).
            The error is a mean over D: summing it instead would divide λ by D.
    Returns: Losses.
    Raises: ValueError if the batch is empty, has fewer than two frames or disagreeing shapes.
    Source: LeWM, arXiv:2603.19312, Eq. 1 and Appendix A.
    """
    z, prediction = one_step_error(model, batch)
    regularization = regularizer(z.transpose(0, 1))
    return Losses(
        total=prediction + weight * regularization,
        prediction=prediction.detach(),
        regularization=regularization.detach(),
        embeddings=z.detach(),
    )
