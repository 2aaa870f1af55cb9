"""Everything that decides a training run, besides the data and the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, besides the data and the model.

    The defaults are the published recipe (LeWM, arXiv:2603.19312, released configuration); batch,
    learning rate and weight belong together, for the regularizer's strength grows with the batch.

    Attributes:
        steps: optimizer steps; behind the last the learning rate would be 0.
        batch_size: windows per step.
        learning_rate: peak of the schedule.
        weight: λ of the regularizer.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        warmup: fraction of the steps with a rising learning rate.
        num_proj: directions of the regularizer.
        precision: "float32", or "bfloat16" for the network under autocast; weights, losses and
            SIGReg stay float32.
        seed: of batches, dropout and directions.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 5e-5
    weight: float = 0.09
    weight_decay: float = 1e-3
    clip: float = 1.0
    warmup: float = 0.01
    num_proj: int = 1024
    precision: str = "float32"
    seed: int = 3072

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "num_proj"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("weight", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be finite and not negative, got {getattr(self, name)}"
                )
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be between 0 and 1, got {self.warmup}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision must be "float32" or "bfloat16", got {self.precision!r}')

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine to 0."""
        warm = max(round(self.warmup * self.steps), 1)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        along = (step - warm) / max(self.steps - warm, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * along))
