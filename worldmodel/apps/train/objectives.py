"""What a model can be trained for, by name: how it is built, what it minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from sigreg import SIGReg
from worldmodel import presets
from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.loop import Objective
from worldmodel.loss import jepa_loss
from worldmodel.model import WorldModel
from worldmodel.pldm import PLDMTerms, pldm_loss

__all__ = ["OBJECTIVES", "Recipe", "build_world_model"]


class Recipe(NamedTuple):
    """One entry of `OBJECTIVES`.

    Attributes:
        build: (preset, action_dim, image_size, num_frames, changes) -> model with fresh weights;
            changes are constructor arguments by part and name.
        objective: what a step minimises.
        regularizer: its third argument, from the run's configuration.
    """

    build: Callable[[str, int, int, int, dict[str, dict[str, Any]]], WorldModel]
    objective: Objective
    regularizer: Callable[[TrainConfig], nn.Module]


def build_world_model(
    preset: str,
    action_dim: int,
    image_size: int,
    num_frames: int,
    changes: dict[str, dict[str, Any]],
) -> WorldModel:
    """A preset's model for frames and actions of a data set.

    Args:
        preset: "lewm" or "small".
        action_dim: of one block.
        image_size: side of the frames.
        num_frames: of a window; the predictor's history must be one less at least.
        changes: {"predictor": {"dropout": 0.0}, …}, over the preset's arguments.
    Raises: ValueError if a part has no such argument or refuses its value.
    """
    with torch.device("meta"):
        plan = presets.lewm(action_dim) if preset == "lewm" else presets.small(action_dim)
    parts: dict[str, Any] = {}
    for name in ("encoder", "action_encoder", "predictor"):
        part: Any = getattr(plan, name)
        own = {"image_size": image_size} if name == "encoder" else {}
        wanted = changes.get(name, {})
        unknown = sorted(set(wanted) - set(part.config))
        if unknown:
            raise ValueError(
                f"{name} ({type(part).__name__}) has no {unknown[0]!r}; it has "
                f"{', '.join(sorted(part.config))}"
            )
        try:
            parts[name] = type(part)(**(part.config | own | wanted))
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            hint = (
                f"; set encoder.patch_size, or write frames of another side with "
                f"`worldmodel data convert --size` (they have {image_size} px)"
                if name == "encoder" and not wanted
                else ""
            )
            raise ValueError(f"the {preset} {name} cannot be built: {error}{hint}") from error
    model = WorldModel(**parts)
    if model.predictor.history < num_frames - 1:
        raise ValueError(
            f"num_frames must be at most predictor.history + 1 = {model.predictor.history + 1}, "
            f"got {num_frames}; set predictor.history={num_frames - 1} too"
        )
    return model


def _sigreg(config: TrainConfig) -> nn.Module:
    return SIGReg(num_proj=config.num_proj, seed=config.seed)


def _pldm(config: TrainConfig) -> nn.Module:
    # The published weights; config.weight multiplies all of them and should be 1.
    del config
    return PLDMTerms()


OBJECTIVES: dict[str, Recipe] = {
    "lewm": Recipe(build_world_model, jepa_loss, _sigreg),
    "pldm": Recipe(build_world_model, pldm_loss, _pldm),
}
