"""Records passed between the parts: a batch of windows, and the losses of a step.

Letters: B windows, T frames, C H W a frame, A action dims of one block, D embedding dims.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import MappingProxyType
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Losses", "Observations", "as_seed", "as_tensor", "each", "lead", "named",
           "shuffled"]  # fmt: skip

Device = str | torch.device
Folder = str | PathLike[str]
Classes = Sequence[type[nn.Module]]
Observations = Tensor | Mapping[str, Tensor]
"""A tensor [B, T, ...], or several by name (cameras, proprioception, states)."""


def each(observations: Observations, change: Callable[[Tensor], Tensor]) -> Observations:
    """Apply `change` to every tensor of observations."""
    if isinstance(observations, Mapping):
        return {name: change(value) for name, value in observations.items()}
    return change(observations)


def as_tensor(value: Any) -> Tensor:
    """A tensor unchanged; NumPy arrays and lists as tensors on the CPU."""
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"frames must be a tensor, or numbers to make one, {error}") from error


def as_seed(seed: SupportsIndex) -> int:
    """An integer of any kind and size, modulo 2⁶⁴, as a seed of a generator.

    Raises: TypeError for another type.
    """
    try:
        return (operator.index(seed) + 2**63) % 2**64 - 2**63
    except TypeError:
        raise TypeError(f"seed must be an integer, got {seed!r}") from None


def shuffled(num: int, seed: SupportsIndex) -> Tensor:
    """[num], 0 … num − 1 in an order that depends on the seed alone, on the CPU."""
    generator = torch.Generator().manual_seed(as_seed(seed))
    return torch.randperm(num, generator=generator, device="cpu")


def named(observations: Observations, alone: str) -> Mapping[str, Tensor]:
    """Observations by name; a single tensor gets the name `alone`."""
    return observations if isinstance(observations, Mapping) else {alone: observations}


def lead(observations: Observations, name: str = "observations") -> tuple[int, int]:
    """B and T of observations; ValueError if one is not [B, T, ...], or they disagree."""
    shapes = {key: list(value.shape) for key, value in named(observations, "").items()}
    if not shapes or any(len(s) < 3 or s[:2] != min(shapes.values())[:2] for s in shapes.values()):
        raise ValueError(
            f"{name} must be [B, T, ...], a tensor or a mapping of tensors that agree in B and T, "
            f"got {shapes if isinstance(observations, Mapping) else shapes['']}"
        )
    B, T = min(shapes.values())[:2]
    return B, T


class Batch(NamedTuple):
    """Windows of frames and the actions between them.

    `actions[:, t]` are all raw actions between `frames[:, t]` and `frames[:, t + 1]` side by side,
    oldest first, so A = frameskip × raw action dims. The effect of the last block is not seen.
    """

    #: [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1; or other observations.
    frames: Observations
    actions: Tensor  #: [B, T, A], normalised as the model expects them.

    def to(self, device: Device) -> "Batch":
        """The same batch on a device; the copy is asynchronous."""
        frames, actions = self.tensors()
        frames = each(frames, lambda seen: seen.to(device, non_blocking=True))
        return Batch(frames, actions.to(device, non_blocking=True))

    def tensors(self) -> "Batch":
        """The same batch with NumPy arrays as tensors."""
        return Batch(each(self.frames, as_tensor), as_tensor(self.actions))


class Losses(NamedTuple):
    """The losses of one step, term by term."""

    total: Tensor  #: [], prediction + weight × regularization; the one to call backward on.
    prediction: Tensor  #: [], mean squared error of the next embedding, per coordinate.
    regularization: Tensor  #: [], the regularizer's value before its weight.
    embeddings: Tensor  #: [B, T, D], detached, for diagnostics.
    #: Further terms by name, before their weights; `composed_loss` adds them to the total.
    terms: Mapping[str, Tensor] = MappingProxyType({})

    @classmethod
    def of(cls, prediction: Tensor, weight: float, regularization: Tensor, z: Tensor) -> "Losses":
        """Combine the two terms; only `total` carries gradient."""
        total = prediction + weight * regularization
        return cls(total, prediction.detach(), regularization.detach(), z.detach())
