"""JEPA world models that predict the next embedding: parts, data, worlds and apps."""

from typing import TYPE_CHECKING

from worldmodel._lazy import lazily

if TYPE_CHECKING:
    from worldmodel import goals, heads, learning, policies, presets, subgoals, values
    from worldmodel.checkpoint import RunConfig, load, load_policy, read_config, save
    from worldmodel.encoder import (
        ActionEncoder,
        ConvEncoder,
        FusedEncoder,
        StateEncoder,
        ViTEncoder,
    )
    from worldmodel.export import export_onnx, export_torch
    from worldmodel.gcbc import GCBC, gcbc_loss
    from worldmodel.hub import from_pretrained, push_to_hub
    from worldmodel.loss import (
        ComposedTerms,
        PLDMTerms,
        composed_loss,
        jepa_loss,
        pldm_loss,
        predictor_loss,
    )
    from worldmodel.model import Futures, Imagination, WorldModel, goal_cost
    from worldmodel.patches import DinoPatches, PatchPredictor
    from worldmodel.predictor import AffinePredictor, CausalPredictor, MLPPredictor, PrefixPredictor
    from worldmodel.published import from_published
    from worldmodel.records import Batch, Losses

__getattr__ = lazily(__name__)

__all__ = [
    "GCBC", "ActionEncoder", "AffinePredictor", "Batch", "CausalPredictor", "ComposedTerms",
    "ConvEncoder", "DinoPatches", "FusedEncoder", "Futures", "Imagination", "Losses",
    "MLPPredictor", "PLDMTerms", "PatchPredictor", "PrefixPredictor", "RunConfig", "StateEncoder",
    "ViTEncoder", "WorldModel", "composed_loss", "export_onnx", "export_torch", "from_pretrained",
    "from_published", "gcbc_loss", "goal_cost", "goals", "heads", "jepa_loss", "learning", "load",
    "load_policy", "pldm_loss", "policies", "predictor_loss", "presets", "push_to_hub",
    "read_config", "save", "subgoals", "values",
]  # fmt: skip
