"""What happens next, in latent space? JEPA world-model parts, data, worlds and apps."""

from worldmodel import presets
from worldmodel.checkpoint import RunConfig, load, read_config, save
from worldmodel.cost import goal_cost
from worldmodel.encoder import ActionEncoder, ConvEncoder, FrameEncoder
from worldmodel.loss import jepa_loss
from worldmodel.model import WorldModel
from worldmodel.predictor import CausalPredictor
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
    "goal_cost",
    "jepa_loss",
    "load",
    "presets",
    "read_config",
    "save",
]
