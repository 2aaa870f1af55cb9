"""The contract of the parts of a world model.

Letters: B problems, S plans of each, T known frames, H steps, n sequences, A action dims of one
block, a width of an encoded action, D embedding dims.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["Encoder", "OwnRollout", "Parted", "Predictor", "QuickRollout", "Rollout", "Steered"]

_CACHE = 24 * 2**20  # bytes of the widest tensor that fit a processor's last cache

Rollout = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z [B, T, D], encoded past [B, T − 1, a], encoded plans [B, S, H, a] -> [B, S, H, D]."""


class _Module(Protocol):
    @property
    def __call__(self) -> Callable[..., Any]: ...  # as `nn.Module` declares it


@runtime_checkable
class Encoder(_Module, Protocol):
    """Observations to embeddings, each frame alone: an `nn.Module` with this attribute.

    An action encoder needs no attribute: any module [..., A] -> [..., a], such as `nn.Linear`.

    Shapes: a tensor [B, T, ...], or a mapping of such tensors -> [B, T, D].
    """

    dim: int  #: D.


@runtime_checkable
class Parted(Protocol):
    """Optional: an encoder that embeds a batch in parts while it trains (`train accumulate=…`).

    Results and gradients do not depend on `parts`, so batch statistics are of the whole batch, but
    activations are kept of one part at a time: see `ViTEncoder`.
    """

    parts: int  #: how many; 1 until the trainer sets it.


@runtime_checkable
class Predictor(_Module, Protocol):
    """Past embeddings and actions to the next embedding: an `nn.Module` with these attributes.

    Output t predicts embedding t + 1 and depends on inputs up to t alone.

    Shapes: z [n, T, D], encoded actions [n, T, a], T ≤ history -> [n, T, D].
    """

    dim: int  #: D.
    history: int  #: The largest T.


@runtime_checkable
class Steered(Protocol):
    """Optional: a predictor that states the width of its encoded actions; a model checks it."""

    action_width: int  #: a.


@runtime_checkable
class OwnRollout(Protocol):
    """Optional: a predictor with its own rollout, not window by window.

    A recurrent network continues from its state; a prefix predictor answers all steps at once.
    """

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D] and encoded actions [n, T − 1 + H, a]: [n, H, D]."""


@runtime_checkable
class QuickRollout(Protocol):
    """Optional: a predictor with a faster rollout of many plans from few pasts."""

    def quick_rollout(self, *, rows: int | None, compile: bool) -> Rollout:
        """Read the weights, once: a `Rollout` that equals the plain one up to rounding.

        `rows` plans are computed together; None: the predictor chooses.
        """


def roll_out(predictor: Predictor, z: Tensor, actions: Tensor) -> Tensor:
    """Predict step by step from the last `history` embeddings, or by an `OwnRollout`.

    Known z [n, T, D] and encoded actions [n, T − 1 + H, a], past ones first: [n, H, D].
    """
    if isinstance(predictor, OwnRollout):
        return predictor.rollout(z, actions)
    known = z.shape[1]
    for end in range(known, actions.shape[1] + 1):
        start = max(0, end - predictor.history)
        following = predictor(z[:, start:end], actions[:, start:end])[:, -1:]
        z = torch.cat([z, following], dim=1)
    return z[:, known:]


def rows_in_cache(tokens: int, width: int, like: Tensor) -> int | None:
    """Plans to compute together, of `tokens` each, up to `width` wide; None (all) off the CPU."""
    return max(1, _CACHE // (tokens * width * like.itemsize)) if like.device.type == "cpu" else None


def plain_rollout(
    predictor: Predictor, *, rows: int | None = None, compile: bool = False
) -> Rollout:
    """The rollout of any predictor in eval mode: every plan with its own copy of the past.

    `rows` plans are computed together; None is `rows_in_cache` for the widest parameter.
    """
    own = predictor.parameters() if isinstance(predictor, nn.Module) else ()
    wide = max(predictor.dim, *(max(p.shape, default=1) for p in own), 1)
    steps = torch.compile(roll_out, dynamic=False) if compile else roll_out

    def rollout(z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        B, S = plans.shape[:2]
        tokens = min(predictor.history, past.shape[1] + plans.shape[2])
        together, out = rows or rows_in_cache(tokens, wide, z) or B * S, []
        for n in torch.arange(B * S, device=z.device).split(together):
            b = n // S
            told = torch.cat([past[b], plans.flatten(0, 1)[n]], dim=1)
            out.append(steps(predictor, z[b], told))
        return torch.cat(out).unflatten(0, (B, S))

    return rollout
