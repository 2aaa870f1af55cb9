"""Episodes to windows of frames and actions."""

from worldmodel.data.episodes import ActionScale, Episodes, split
from worldmodel.data.windows import Windows

__all__ = ["ActionScale", "Episodes", "Windows", "split"]
