"""A cloned policy as a policy: no model of the world, no search, one look and one block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.apps.evaluate.planning import alike
from worldmodel.apps.evaluate.policies import Actor, Scene, Task
from worldmodel.data import ActionScale
from worldmodel.gcbc import GCBC

__all__ = ["GCBCPolicy"]


class GCBCPolicy:
    """Looks at the last frames and the goal, does a whole block of actions, looks again.

    The frames it looks back on are those of its own decisions, `frameskip` steps apart as in
    training. Actions beyond the world's box are cut to it.

    Args:
        model: GCBC in evaluation mode.
        scale: of the actions the model was trained on.
        frameskip: raw actions per block.
        device: where the model lives.
        together: pairs the model sees in one call, the last call filled up, so that no pair's
            rounding depends on its neighbours; None means as many as there are.
    Raises: ValueError if the model's blocks are not `frameskip` actions of `scale`.
    """

    def __init__(
        self,
        model: GCBC,
        scale: ActionScale,
        *,
        frameskip: int = 5,
        device: str = "cpu",
        together: int | None = 16,
    ) -> None:
        if model.action_dim != len(scale.mean) * frameskip:
            raise ValueError(
                f"model must give {len(scale.mean)} × {frameskip} action dims, "
                f"it gives {model.action_dim}"
            )
        self.model, self.scale, self.frameskip = model, scale, frameskip
        self.device, self.together = torch.device(device), together

    def begin(self, task: Task) -> Actor:
        """Blocks [N, frameskip, A]; sees the goals' pictures, not the states."""
        world, num, past = task.world, len(task.goals), list[Tensor]()
        goal = self._tensor(world.draw(task.goals))
        groups = alike(num, self.together or num, self.device)

        def act(scene: Scene) -> NDArray[np.float32]:
            past.append(self._tensor(scene.frames()))
            del past[: -self.model.trunk.history]
            frames = torch.stack(past, dim=1)
            blocks = torch.cat([self.model.act(frames[some], goal[some]) for some in groups])[:num]
            single = blocks.cpu().unflatten(1, (self.frameskip, -1))
            raw = (single * self.scale.std + self.scale.mean).numpy()
            out: NDArray[np.float32] = np.clip(raw, world.action_low, world.action_high)
            return out

        return act

    def _tensor(self, frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(frames).to(self.device)
