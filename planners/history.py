"""The last observations, and the actions between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planners._arguments import require
from planners._record import choose, take_apart, walk

__all__ = ["History"]

_Observations = Tensor | Mapping[str, Tensor]
"""[B, …] of one moment, or [B, T, …] of several: a camera, or all sensors by name."""


class History(NamedTuple):
    """What B environments have shown and done; nobody writes into its tensors.

    Attributes:
        observations: tensor or mapping [B, length, …], the newest last; None before the first.
        done: [B, length − 1, A], what was done between them.
        handed: [B, n, A], actions handed out of which no observation tells yet.
        fresh: [B], whether a problem began after the last observation: it has done and been handed
            rest alone.
        seen: moments since all problems began; what is kept of earlier ones is filled up.
    """

    observations: _Observations | None
    done: Tensor
    handed: Tensor
    fresh: Tensor
    seen: int = 0

    def hand(self, actions: Tensor) -> History:
        """Actions [B, n, A] were handed out; a length of 1 keeps none."""
        if not self.done.shape[1]:
            return self
        return self._replace(handed=torch.cat([self.handed, actions], 1))

    def see(self, observation: Any, action: Tensor | None, rest: Tensor) -> History:
        """One more moment: [B, …], and what led to it, [B, 1, A] or None for what was handed out.

        A problem that began after the others has stood still before: its first observation again,
        and `rest`, [B, 1, A].
        """
        past = self.observations
        new = walk(lambda name, x: _taken(name, x, rest), observation)
        done, handed, length = self.done, self.handed, 1 + self.done.shape[1]
        if past is not None and length > 1:
            names = take_apart(past).keys()
            require(take_apart(new).keys() == names, f"observation must hold {', '.join(names)}")
            if action is None:
                require(handed.shape[1] > 0, "executed must be given if act handed nothing out")
                action = handed[:, :1]
            done, handed = torch.cat([done, action], 1)[:, 1:], handed[:, 1:]

        def joined(_: str, now: Tensor, before: Tensor | None) -> Tensor:
            filled = now.expand(-1, length, *now.shape[2:])
            if before is None or length == 1:
                return filled
            return choose(self.fresh, filled, torch.cat([before[:, 1:], now], 1))

        known: Any = walk(joined, new, past)
        return History(known, done, handed, torch.zeros_like(self.fresh), self.seen + 1)

    def newest(self) -> tuple[_Observations | None, Tensor | None]:
        """The observations [B, T, …] there are, and the actions between, [B, T − 1, A] or None."""
        T = min(self.seen, 1 + self.done.shape[1])
        seen = walk(lambda _, x: None if x is None else x[:, -T:], self.observations)
        return seen, self.done[:, 1 - T :] if T > 1 else None


def _taken(name: str, value: Any, like: Tensor) -> Tensor:
    """[B, 1, …], a copy, since environments write into their buffers; on the search's device."""
    copied = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
    B, shape = len(like), list(copied.shape)
    require(shape[:1] == [B], f"{name or 'observation'} must be [{B}, …], got {shape}")
    return copied.to(like.device).unsqueeze(1)
