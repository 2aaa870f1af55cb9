"""`worldmodel train`: the loop, checkpoints and reports, on one or several processes."""

from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import NonFiniteError, Training

__all__ = ["NonFiniteError", "Recipe", "Training"]
