"""`worldmodel train`: the loop, its checkpoints and reports, one process or many."""

from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.loop import NonFiniteError, Training

__all__ = ["NonFiniteError", "Recipe", "Training"]
