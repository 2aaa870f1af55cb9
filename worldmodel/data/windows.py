"""The one window rule: T frames `frameskip` rows apart, and the action blocks between them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from worldmodel.data.episodes import ActionScale, Episodes
from worldmodel.records import Batch

__all__ = ["Windows"]


class Windows:
    """Every window of the chosen episodes, indexable in batches.

    Window (e, s) holds the frames of rows s, s + k, …, s + (T − 1)k of episode e and, as block t,
    the k actions of rows s + tk … s + tk + k − 1 side by side, oldest first: all that was done
    between frame t and frame t + 1. It exists if row s + Tk − 1 does, as in the published loader;
    its very last action may be the missing one behind an episode, which is read as 0 before
    normalisation and never enters the loss.

    Args:
        episodes: Episodes.
        num_frames: T.
        frameskip: k, rows between frames and raw actions in a block.
        scale: normalises the actions; None leaves raw units.
        subset: episode indices to draw from; None means all.
    Raises: ValueError if every episode is shorter than a window of T·k rows.
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        num_frames: int = 4,
        frameskip: int = 5,
        scale: ActionScale | None = None,
        subset: Tensor | None = None,
    ) -> None:
        self.episodes, self.scale = episodes, scale
        self.num_frames, self.frameskip = num_frames, frameskip
        chosen = torch.arange(len(episodes)) if subset is None else subset
        span = num_frames * frameskip
        counts = (episodes.lengths[chosen] - span + 1).clamp(min=0)
        if int(counts.sum()) == 0:
            longest = int(episodes.lengths[chosen].max()) if len(chosen) else 0
            raise ValueError(
                f"a window of num_frames {num_frames} × frameskip {frameskip} = {span} rows is "
                f"longer than every episode; the longest has {longest}"
            )
        first = torch.repeat_interleave(episodes.offsets[chosen], counts)
        within = torch.arange(int(counts.sum())) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        self._starts = first + within

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, index: Tensor) -> Batch:
        """Gather windows [B] into a Batch of frames [B, T, C, H, W] and actions [B, T, k·A]."""
        start = self._starts[index][:, None]
        k, steps = self.frameskip, self.num_frames
        frames = self.episodes.frames[start + k * torch.arange(steps)]
        actions = self.episodes.actions[start + torch.arange(k * steps)].nan_to_num(nan=0.0)
        blocks = actions.unflatten(1, (steps, k)).flatten(2)
        return Batch(frames, blocks if self.scale is None else self.scale.normalise(blocks))

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches, each pass over all windows in a new order, the short rest left out.

        Raises: ValueError if there are fewer windows than `batch_size`.
        """
        if not 0 < batch_size <= len(self):
            raise ValueError(
                f"batch_size must be between 1 and the {len(self)} windows, got {batch_size}"
            )
        while True:
            order = torch.randperm(len(self), generator=generator)
            for index in order.split(batch_size)[: len(self) // batch_size]:
                yield self.batch(index)
