"""What happens next, in latent space? JEPA world-model parts, data, worlds and apps."""

from typing import TYPE_CHECKING

from worldmodel._lazy import lazily

if TYPE_CHECKING:
    from worldmodel import goals, heads, learning, policies, presets, subgoals, values
    from worldmodel.affine import AffinePredictor
    from worldmodel.checkpoint import RunConfig, load, load_policy, read_config, save
    from worldmodel.cost import goal_cost
    from worldmodel.encoder import (
        ActionEncoder,
        ConvEncoder,
        FrameEncoder,
        FusedEncoder,
        StateEncoder,
    )
    from worldmodel.export import export_onnx, export_torch
    from worldmodel.gcbc import GCBC, gcbc_loss
    from worldmodel.hub import from_pretrained, push_to_hub
    from worldmodel.imagine import Futures, Imagination
    from worldmodel.loss import jepa_loss
    from worldmodel.model import WorldModel
    from worldmodel.patches import DinoPatches, PatchPredictor
    from worldmodel.pldm import PLDMTerms, pldm_loss
    from worldmodel.predictor import CausalPredictor
    from worldmodel.prefix import PrefixPredictor
    from worldmodel.published import from_published
    from worldmodel.records import Batch, Losses

__getattr__ = lazily(
    __name__,
    {
        "goals": "",
        "heads": "",
        "learning": "",
        "policies": "",
        "presets": "",
        "subgoals": "",
        "values": "",
        "affine": "AffinePredictor",
        "checkpoint": "RunConfig load load_policy read_config save",
        "cost": "goal_cost",
        "encoder": "ActionEncoder ConvEncoder FrameEncoder FusedEncoder StateEncoder",
        "export": "export_onnx export_torch",
        "gcbc": "GCBC gcbc_loss",
        "hub": "from_pretrained push_to_hub",
        "imagine": "Futures Imagination",
        "loss": "jepa_loss",
        "model": "WorldModel",
        "patches": "DinoPatches PatchPredictor",
        "pldm": "PLDMTerms pldm_loss",
        "predictor": "CausalPredictor",
        "prefix": "PrefixPredictor",
        "published": "from_published",
        "records": "Batch Losses",
    },
)

__all__ = [
    "GCBC",
    "ActionEncoder",
    "AffinePredictor",
    "Batch",
    "CausalPredictor",
    "ConvEncoder",
    "DinoPatches",
    "FrameEncoder",
    "FusedEncoder",
    "Futures",
    "Imagination",
    "Losses",
    "PLDMTerms",
    "PatchPredictor",
    "PrefixPredictor",
    "RunConfig",
    "StateEncoder",
    "WorldModel",
    "export_onnx",
    "export_torch",
    "from_pretrained",
    "from_published",
    "gcbc_loss",
    "goal_cost",
    "goals",
    "heads",
    "jepa_loss",
    "learning",
    "load",
    "load_policy",
    "pldm_loss",
    "policies",
    "presets",
    "push_to_hub",
    "read_config",
    "save",
    "subgoals",
    "values",
]
