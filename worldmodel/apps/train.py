"""The training loop: two losses, AdamW, warm-up and cosine, a state that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sigreg import SIGReg
from worldmodel.apps._interrupt import whole_steps
from worldmodel.data import BatchOrder, Windows
from worldmodel.loss import jepa_loss
from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses

__all__ = ["NonFiniteError", "Objective", "TrainConfig", "Training"]

# (model, batch, regularizer, weight) -> Losses, as `jepa_loss`.
Objective = Callable[[Any, Batch, Any, float], Losses]


class NonFiniteError(FloatingPointError):
    """A loss, or the data behind it, was NaN or infinite; the message says which and where."""


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

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine to 0."""
        warm = max(round(self.warmup * self.steps), 1)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        along = (step - warm) / max(self.steps - warm, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * along))


class Training:
    """A model on its way: steps one at a time, and a file from which it goes on.

    Batches and the learning rate are functions of (seed, step), so a state holds no sampler and no
    scheduler: model, optimizer, regularizer, random state and the step are all.

    Args:
        model: WorldModel, trained in place, on `device`.
        windows: where batches come from.
        config: TrainConfig.
        device: where the model and the batches live.
        objective: what a step minimises; None means `jepa_loss`.
        regularizer: what the objective is given as its third argument; None means SIGReg with the
            directions and the seed of `config`.
    Raises: ValueError if there are fewer windows than the batch needs.
    """

    def __init__(
        self,
        model: WorldModel,
        windows: Windows,
        config: TrainConfig,
        device: str = "cpu",
        *,
        objective: Objective | None = None,
        regularizer: nn.Module | None = None,
    ) -> None:
        self.order = BatchOrder(len(windows), config.batch_size, seed=config.seed)
        self.model, self.windows, self.config = model, windows, config
        self.device = torch.device(device)
        self.objective: Objective = objective or jepa_loss
        self.regularizer: nn.Module = regularizer or SIGReg(
            num_proj=config.num_proj, seed=config.seed
        )
        self.regularizer.to(self.device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0

    def run(self, on_step: Callable[[int, Losses], None]) -> None:
        """Train to the last step, calling `on_step(step, losses)` after each.

        Raises: NonFiniteError if a loss is not finite; KeyboardInterrupt between two steps, so that
            `save` finds a whole one.
        """
        self.model.train()
        with whole_steps() as release:
            while self.step < self.config.steps:
                losses = self._advance()
                self.step += 1
                on_step(self.step, losses)
                release()

    def _advance(self) -> Losses:
        config = self.config
        batch = self.windows.batch(self.order.batch(self.step))
        batch = type(batch)(*(part.to(self.device) for part in batch))
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.step)
        losses = self.objective(self.model, batch, self.regularizer, config.weight)
        if not math.isfinite(float(losses.total.detach())):
            raise NonFiniteError(self._diagnose(losses, batch.frames, batch.actions))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        return losses

    def _diagnose(self, losses: Losses, frames: Tensor, actions: Tensor) -> str:
        terms = {"prediction loss": losses.prediction, "SIGReg": losses.regularization}
        bad = [name for name, value in terms.items() if not math.isfinite(float(value))]
        inputs = {"frames": frames, "actions": actions}
        dirty = [name for name, value in inputs.items() if not bool(value.isfinite().all())]
        source = (
            f"its {' and '.join(dirty)} hold NaN or inf"
            if dirty
            else "its data are finite, so the weights have diverged: lower learning_rate or weight"
        )
        return (
            f"training stopped at step {self.step + 1} of {self.config.steps}: "
            f"{' and '.join(bad) or 'the total loss'} is not finite on batch {self.step} "
            f"(windows {self.order.batch(self.step)[:4].tolist()}…); {source}"
        )

    def save(self, path: Path) -> None:
        """Write the state, under a temporary name first: safetensors, nothing pickled."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"regularizer.{k}": v for k, v in self.regularizer.state_dict().items()}
        tensors["random"] = torch.get_rng_state()
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        metadata = {k: str(v) for k, v in asdict(self.config).items()} | {"step": str(self.step)}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a file that `save` wrote with the same config.

        Raises: FileNotFoundError if there is none; ValueError if it is damaged, of another config
            or of another model.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no training state to resume from at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        step = int(metadata.pop("step", "0"))
        mine = {k: str(v) for k, v in asdict(self.config).items()}
        changed = [f"{k} {metadata.get(k)} → {v}" for k, v in mine.items() if metadata.get(k) != v]
        if changed:
            raise ValueError(
                f"a resumed run must keep its settings, got other ones than {path} holds: "
                + ", ".join(changed)
            )
        try:
            self.model.load_state_dict(_under("model.", tensors))
            self.regularizer.load_state_dict(_under("regularizer.", tensors))
        except RuntimeError as error:
            raise ValueError(f"{path} is of another model: {error}") from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["random"])
        self.step = step


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
