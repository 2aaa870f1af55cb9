"""What a model can be trained for, by name: how it is built, what it minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sigreg import SIGReg
from worldmodel import presets
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import Objective
from worldmodel.apps.train.parallel import everyone
from worldmodel.gcbc import GCBC, gcbc_loss
from worldmodel.loss import PLDMTerms, jepa_loss, pldm_loss
from worldmodel.model import WorldModel

__all__ = ["OBJECTIVES", "Kind", "NoTerms", "build_gcbc", "build_world_model"]

Changes = Mapping[Any, Mapping[str, Any]]
"""Constructor arguments by part and name: {"predictor": {"dropout": 0.0}, …}."""


class Kind(NamedTuple):
    """One entry of `OBJECTIVES`.

    Attributes:
        build: (preset, action_dim, image_size, num_frames, changes) -> model with fresh weights.
        objective: what a step minimises.
        regularizer: its third argument, from the settings of the loop.
    """

    build: Callable[[str, int, int, int, Changes], WorldModel | GCBC]
    objective: Objective
    regularizer: Callable[[Recipe], nn.Module]


def build_world_model(
    preset: str, action_dim: int, image_size: int, num_frames: int, changes: Changes
) -> WorldModel:
    """A preset's model for blocks of actions and frames of a data set, with some arguments changed.

    Raises: ValueError if a part has no such argument or refuses its value, or the history is too
        short for the windows.
    """
    names = ("encoder", "action_encoder", "predictor")
    model = WorldModel(**_parts(names, preset, action_dim, image_size, changes))
    if model.predictor.history < num_frames - 1:
        raise ValueError(
            f"num_frames must be at most predictor.history + 1 = {model.predictor.history + 1}, "
            f"got {num_frames}; set predictor.history={num_frames - 1} too"
        )
    return model


def build_gcbc(
    preset: str, action_dim: int, image_size: int, num_frames: int, changes: Changes
) -> GCBC:
    """Encoder and predictor of a preset as a policy, the predictor steered by the goal.

    Windows may be longer than the history: their frames are goals.

    Raises: ValueError if a part has no such argument or refuses its value.
    """
    del num_frames
    if changes.get("action_encoder"):
        raise ValueError("action_encoder must be left out with objective gcbc, which has none")
    parts = _parts(("encoder", "predictor"), preset, action_dim, image_size, changes)
    return GCBC(parts["encoder"], parts["predictor"], action_dim)


def _parts(
    names: Sequence[str], preset: str, action_dim: int, image_size: int, changes: Changes
) -> dict[str, Any]:
    """Parts of a preset with fresh weights and some arguments changed."""
    with torch.device("meta"):
        plan = presets.lewm(action_dim) if preset == "lewm" else presets.small(action_dim)
    parts: dict[str, Any] = {}
    for name in names:
        part: Any = getattr(plan, name)
        own = {"image_size": image_size} if name == "encoder" else {}
        wanted = dict(changes.get(name, {}))
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
    return parts


def _sigreg(recipe: Recipe) -> nn.Module:
    return SIGReg(num_proj=recipe.num_proj, seed=recipe.seed, group=everyone())


def _pldm(recipe: Recipe) -> nn.Module:
    # The published weights; the recipe's multiplies all of them.
    del recipe
    return PLDMTerms()


class NoTerms(nn.Module):
    """Zero: actions are what is predicted, there is nothing to keep from collapse."""

    def forward(self, z: Tensor) -> Tensor:
        """Embeddings of any shape -> 0."""
        return z.new_zeros(())


def _no_terms(recipe: Recipe) -> nn.Module:
    if recipe.weight:
        raise ValueError(f"weight must be 0 with objective gcbc, got {recipe.weight:g}")
    return NoTerms()


OBJECTIVES: dict[str, Kind] = {
    "lewm": Kind(build_world_model, jepa_loss, _sigreg),
    "pldm": Kind(build_world_model, pldm_loss, _pldm),
    "gcbc": Kind(build_gcbc, gcbc_loss, _no_terms),
}
