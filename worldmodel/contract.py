"""What the parts of a world model must offer; every other file speaks these words.

Letters: B problems, S plans of each, T known frames, H steps, n sequences, A action dims of one
block, a width of an encoded action, D embedding dims.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["Encoder", "OwnRollout", "Predictor", "QuickRollout", "Rollout", "Steered"]

_CACHE = 24 * 2**20  # bytes that a processor's last cache level holds of the widest tensor

Rollout = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z [B, T, D], encoded past [B, T − 1, a], encoded plans [B, S, H, a] -> [B, S, H, D]."""


class _Module(Protocol):
    @property
    def __call__(self) -> Callable[..., Any]: ...  # as `nn.Module` declares it


@runtime_checkable
class Encoder(_Module, Protocol):
    """Observations to embeddings, each frame alone: an `nn.Module` with this attribute.

    An action encoder needs no attribute: any module [..., A] -> [..., a], `nn.Linear` too.

    Shapes: a tensor [B, T, ...], or a mapping of such tensors -> [B, T, D].
    """

    dim: int  #: D.


@runtime_checkable
class Predictor(_Module, Protocol):
    """Past embeddings and actions to the next embedding: an `nn.Module` with these attributes.

    Output t may look at inputs up to t alone: it predicts embedding t + 1.

    Shapes: z [n, T, D], encoded actions [n, T, a], T ≤ history -> [n, T, D].
    """

    dim: int  #: D.
    history: int  #: Most frames it looks back on; it is never given more.


@runtime_checkable
class Steered(Protocol):
    """Optional: a predictor that says how wide its encoded actions are; a model checks it."""

    action_width: int  #: a.


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

    def quick_rollout(self, *, rows: int | None, compile: bool) -> Rollout:
        """Read the weights, once: a `Rollout` that equals the plain one up to rounding.

        `rows` plans go through all steps together; None leaves it to the predictor.
        """


def roll_out(predictor: Predictor, z: Tensor, actions: Tensor) -> Tensor:
    """Predict step after step, from the last `history` embeddings unless it is an `OwnRollout`.

    Known z [n, T, D] and encoded actions [n, T − 1 + H, a], the first of them done: [n, H, D].
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
    """Plans that go together, of `tokens` each, up to `width` wide; None, all, but on a CPU."""
    return max(1, _CACHE // (tokens * width * like.itemsize)) if like.device.type == "cpu" else None


def plain_rollout(
    predictor: Predictor, *, rows: int | None = None, compile: bool = False
) -> Rollout:
    """The rollout of any predictor in eval mode: every plan behind its own copy of the past.

    `rows` plans go through all steps together; None is `rows_in_cache`, for tensors as wide as the
    widest of the predictor's parameters, or as an embedding.
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
