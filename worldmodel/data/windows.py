"""The one window rule: T frames `frameskip` rows apart, and the action blocks between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from worldmodel.data.episodes import ActionScale, Episodes
from worldmodel.data.frames import Frames, gather
from worldmodel.records import Batch, each

__all__ = ["Windows"]


class Windows(Dataset[Batch]):
    """Every window of the chosen episodes, indexable one by one or in batches.

    Window (e, s) holds the frames of rows s, s + k, …, s + (T − 1)k of episode e and, as block t,
    the k actions of rows s + tk … s + tk + k − 1 side by side, oldest first: all that was done
    between frame t and frame t + 1. It exists if row s + Tk − 1 does, as in the published loader.
    Its very last action may be the missing one behind an episode: as published, NaN becomes 0
    after normalisation (an average action); no frame of the window shows its effect and the loss
    never sees it.

    `DataLoader(windows, batch_size=…)` works as for any data set; `loader` fetches whole batches.

    Args:
        episodes: Episodes.
        num_frames: T.
        frameskip: k, rows between frames and raw actions in a block.
        scale: normalises the actions; None leaves raw units.
        subset: episode indices to draw from; None means all.
        observations: names, for windows of a mapping: "pixels" for `Episodes.frames`, "states" for
            `Episodes.states`, or one of `Episodes.others`. None means the frames alone, a tensor.
    Raises: ValueError if T or k is not positive, an observation is not there, or every episode is
        shorter than T·k rows.
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        num_frames: int = 4,
        frameskip: int = 5,
        scale: ActionScale | None = None,
        subset: Tensor | None = None,
        observations: Sequence[str] | None = None,
    ) -> None:
        if num_frames < 1 or frameskip < 1:
            raise ValueError(
                f"num_frames and frameskip must be at least 1, got {num_frames} and {frameskip}"
            )
        self.episodes, self.scale = episodes, scale
        self.num_frames, self.frameskip = num_frames, frameskip
        sources: dict[str, Frames] = {"pixels": episodes.frames, **episodes.others}
        if episodes.states is not None:
            sources["states"] = episodes.states
        wanted = ("pixels",) if observations is None else tuple(observations)
        if not wanted or not sources.keys() >= set(wanted):
            raise ValueError(f"observations must be among {sorted(sources)}, got {wanted}")
        self._sources, self._alone = {n: sources[n] for n in wanted}, observations is None
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

    def __getitem__(self, index: int | Tensor) -> Batch:
        """One window, frames [T, C, H, W] and actions [T, k·A]; or those of an index [B]."""
        if isinstance(index, Tensor):
            return self.batch(index)
        frames, actions = self.batch(torch.as_tensor([index]))
        return Batch(each(frames, lambda seen: seen[0]), actions[0])

    def batch(self, index: Tensor) -> Batch:
        """Gather windows [B] into a Batch of frames [B, T, C, H, W] and actions [B, T, k·A]."""
        start = self._starts[index][:, None]
        k, steps = self.frameskip, self.num_frames
        rows = start + k * torch.arange(steps)
        seen = {name: gather(source, rows) for name, source in self._sources.items()}
        actions = self.episodes.actions[start + torch.arange(k * steps)]
        if self.scale is not None:
            actions = self.scale.normalise(actions)
        actions = actions.masked_fill(actions.isnan(), 0.0)
        frames = seen["pixels"] if self._alone else seen
        return Batch(frames, actions.unflatten(1, (steps, k)).flatten(2))

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
