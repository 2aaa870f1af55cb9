"""The two-term loss of a joint-embedding predictive world model."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses

__all__ = ["jepa_loss"]


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
    frames, actions = batch
    if frames.dim() != 5 or frames.shape[0] < 1 or frames.shape[1] < 2:
        raise ValueError(
            f"batch.frames must be [B >= 1, T >= 2, C, H, W], got {list(frames.shape)}"
        )
    if actions.dim() != 3 or actions.shape[:2] != frames.shape[:2]:
        raise ValueError(
            f"batch.actions must be [B, T, A] with [B, T] = {list(frames.shape[:2])}, "
            f"got {list(actions.shape)}"
        )
    z = model.encode(frames)
    predicted = model.predict(z[:, :-1], actions[:, :-1])
    prediction = F.mse_loss(predicted, z[:, 1:])
    regularization = regularizer(z.transpose(0, 1))
    return Losses(
        total=prediction + weight * regularization,
        prediction=prediction.detach(),
        regularization=regularization.detach(),
        embeddings=z.detach(),
    )
