"""One agent of Two-Room behind the interface of gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.worlds.two_room import TwoRoom

__all__ = ["TwoRoomEnv"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class TwoRoomEnv:
    """One agent of Two-Room behind gymnasium's `reset` and `step`.

    Observations are frames [H, W, 3], uint8; `info` carries "state" and "goal", each [2].
    Reward is 1 on the step that reaches the goal, which also terminates the episode.

    Args:
        image_size: frame side in pixels.
    """

    def __init__(self, image_size: int = 64) -> None:
        self.world = TwoRoom(image_size)
        self.rng = np.random.default_rng()
        self.state = self.world.sample_states(self.rng, 1)[0]
        self.goal = self.world.sample_states(self.rng, 1)[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Floats] | None = None
    ) -> tuple[Pixels, dict[str, Any]]:
        """Start anew; `options` may fix "state" and "goal", each [2] in world units.

        Raises: ValueError for other option names or shapes.
        """
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        chosen = dict(options or {})
        if not set(chosen) <= {"state", "goal"}:
            raise ValueError(f"options must be among 'state' and 'goal', got {sorted(chosen)}")
        for name in ("state", "goal"):
            value = np.asarray(
                chosen.get(name, self.world.sample_states(self.rng, 1)[0]), np.float32
            )
            if value.shape != (2,):
                raise ValueError(f"options[{name!r}] must be [2], got {list(value.shape)}")
            setattr(self, name, value)
        return self.render(), self._info()

    def step(self, action: Floats) -> tuple[Pixels, float, bool, bool, dict[str, Any]]:
        """Act once: observation, reward, terminated, truncated (never), info."""
        self.state = self.world.step(self.state[None], np.asarray(action, np.float32)[None])[0]
        reached = bool(self.world.success(self.state, self.goal))
        return self.render(), float(reached), reached, False, self._info()

    def render(self) -> Pixels:
        """The current frame, [H, W, 3]."""
        out: Pixels = self.world.render(self.state[None])[0].transpose(1, 2, 0)
        return out

    def _info(self) -> dict[str, Any]:
        return {"state": self.state.copy(), "goal": self.goal.copy()}
