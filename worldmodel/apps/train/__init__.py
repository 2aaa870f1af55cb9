"""`worldmodel train`: the loop, its checkpoints and reports, one process or many."""

from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.loop import NonFiniteError, Training

__all__ = ["NonFiniteError", "TrainConfig", "Training"]
