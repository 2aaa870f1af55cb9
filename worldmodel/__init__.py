"""What happens next, in latent space? JEPA world-model parts, data, worlds and apps."""

from worldmodel import presets
from worldmodel.checkpoint import RunConfig, load, read_config, save
from worldmodel.cost import goal_cost
from worldmodel.encoder import ActionEncoder, ConvEncoder, FrameEncoder
from worldmodel.export import export_onnx, export_torch
from worldmodel.loss import jepa_loss
from worldmodel.model import WorldModel
from worldmodel.predictor import CausalPredictor
from worldmodel.published import from_published
from worldmodel.records import Batch, Losses

__all__ = [
    "ActionEncoder",
    "Batch",
    "CausalPredictor",
    "ConvEncoder",
    "FrameEncoder",
    "Losses",
    "RunConfig",
    "WorldModel",
    "export_onnx",
    "export_torch",
    "from_published",
    "goal_cost",
    "jepa_loss",
    "load",
    "presets",
    "read_config",
    "save",
]
