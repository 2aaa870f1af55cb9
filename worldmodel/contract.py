"""What the parts of a world model must offer; every other file speaks these words.

Letters: B problems, S plans of each, T known frames, H steps, n sequences, A action dims of one
block, a width of an encoded action, D embedding dims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Encoder", "OwnRollout", "Predictor", "QuickRollout", "Rollout", "Steered", "roll_out"]

Rollout = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z [B, T, D], encoded past [B, T − 1, a], encoded plans [B, S, H, a] -> [B, S, H, D]."""


class Encoder(Protocol):
    """Observations to embeddings, each frame alone: an `nn.Module` with this attribute.

    An action encoder needs no attribute: any module [..., A] -> [..., a], `nn.Linear` too.

    Attributes:
        dim: D.
    Shapes: a tensor [B, T, ...], or a mapping of such tensors -> [B, T, D].
    """

    dim: int

    @property
    def __call__(self) -> Callable[..., Any]:
        """As `nn.Module` declares it."""


class Predictor(Protocol):
    """Past embeddings and actions to the next embedding: an `nn.Module` with these attributes.

    Output t may look at inputs up to t alone: it predicts embedding t + 1.

    Attributes:
        dim: D.
        history: most frames it looks back on; it is never given more.
    Shapes: z [n, T, D], encoded actions [n, T, a], T ≤ history -> [n, T, D].
    """

    dim: int
    history: int

    @property
    def __call__(self) -> Callable[..., Any]:
        """As `nn.Module` declares it."""


@runtime_checkable
class Steered(Protocol):
    """Optional: a predictor that says how wide its encoded actions are; a model checks it.

    Attributes:
        action_width: a.
    """

    action_width: int


@runtime_checkable
class OwnRollout(Protocol):
    """Optional: a predictor that rolls out otherwise than window by window.

    A recurrent network goes on from its state, a prefix predictor answers for all steps at once.
    """

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D] and encoded actions [n, T − 1 + H, a]: [n, H, D]."""


@runtime_checkable
class QuickRollout(Protocol):
    """Optional: a predictor that rolls many plans out from few pasts with less work."""

    def quick_rollout(
        self,
        *,
        rows: int | None,
        compile: bool,  # noqa: A002, torch's own word
    ) -> Rollout:
        """Read the weights, once: a `Rollout` that equals the plain one up to rounding.

        Args:
            rows: plans that go through all steps together; None leaves it to the predictor.
            compile: send the steps through `torch.compile`.
        """


def roll_out(predictor: Predictor, z: Tensor, actions: Tensor) -> Tensor:
    """Predict step after step, each prediction feeding the next.

    Where the predictor has an `OwnRollout`, that; otherwise the window's last `history`
    embeddings go through it at every step.

    Args:
        predictor: any.
        z: [n, T, D], known embeddings.
        actions: [n, T − 1 + H, a], encoded; the first T − 1 were done between the known ones.
    Returns: [n, H, D].
    """
    if isinstance(predictor, OwnRollout):
        return predictor.rollout(z, actions)
    steps = actions.shape[1] - (z.shape[1] - 1)
    for end in range(z.shape[1], z.shape[1] + steps):
        start = max(0, end - predictor.history)
        following = predictor(z[:, start:end], actions[:, start:end])[:, -1:]
        z = torch.cat([z, following], dim=1)
    return z[:, -steps:]
