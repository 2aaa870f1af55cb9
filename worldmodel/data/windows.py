"""Windows of episodes, the windows of each batch, and workers that fetch them ahead."""

import atexit
import copy
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache, partial
from itertools import count
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from worldmodel._arguments import checked
from worldmodel.data.episodes import ActionScale, Episodes
from worldmodel.data.frames import Frames, KeptFrames, gather
from worldmodel.records import Batch, as_seed, each, shuffled

__all__ = ["BatchOrder", "Windows", "loader"]

_TOGETHER = 256  # frames compared at a time


@checked(subset="int N")
@dataclass(eq=False, repr=False)
class Windows(Dataset[Batch]):
    """Every window of the chosen episodes, indexable one by one or in batches.

    Window (e, s) holds the frames of rows s, s + k, …, s + (T − 1)k of episode e. Its block t is
    the k actions of rows s + tk … s + tk + k − 1 side by side, oldest first: all actions between
    frame t and frame t + 1. The window exists if row s + Tk − 1 does, as in the published loader.
    Its very last action may be the missing one at the end of an episode: as published, NaN becomes
    0 after normalisation (an average action). No frame shows its effect, and the loss ignores it.

    `DataLoader(windows, batch_size=…)` works as for any data set; `loader` fetches whole batches.

    Raises: ValueError if T or k < 1, an observation is missing, or no episode has T·k rows.
    """

    episodes: Episodes  #: what to cut them from
    _: KW_ONLY
    num_frames: int = 4  #: T
    frameskip: int = 5  #: k, rows between frames and raw actions in a block
    scale: ActionScale | None = None  #: normalises the actions; None leaves raw units
    subset: Tensor | None = None  #: episode indices to draw from; None means all
    #: Names, for windows of a mapping: "pixels" for `Episodes.frames`, "states" for
    #: `Episodes.states`, or one of `Episodes.others`. None means the frames alone, a tensor.
    observations: Sequence[str] | None = None

    def __post_init__(self) -> None:
        episodes, subset, observations = self.episodes, self.subset, self.observations
        sources: dict[str, Frames] = {"pixels": episodes.frames, **episodes.others}
        if episodes.states is not None:
            sources["states"] = episodes.states
        wanted = ("pixels",) if observations is None else tuple(observations)
        if not wanted or not sources.keys() >= set(wanted):
            raise ValueError(f"observations must be among {sorted(sources)}, got {wanted}")
        self._sources, self._alone = {n: sources[n] for n in wanted}, observations is None
        home = episodes.lengths.device
        chosen = (
            torch.arange(len(episodes), device=home) if subset is None else subset.long()
        )  # uint8 would be a mask
        low, high = (int(end) for end in chosen.aminmax())
        if low < 0 or high >= len(episodes):
            raise ValueError(f"subset must be of 0 to {len(episodes) - 1}, got {low} to {high}")
        span = self.num_frames * self.frameskip
        counts = (episodes.lengths[chosen] - span + 1).clamp(min=0)
        if int(counts.sum()) == 0:
            longest = max(episodes.lengths[chosen].tolist(), default=0)
            window = f"num_frames {self.num_frames} × frameskip {self.frameskip} = {span} rows"
            found = f"longer than every episode; the longest has {longest}"
            raise ValueError(f"a window of {window} is {found}")
        shift = episodes.offsets[chosen] - (counts.cumsum(0) - counts)
        self._starts = torch.repeat_interleave(shift, counts)
        self._starts += torch.arange(len(self._starts), device=home)

    def __len__(self) -> int:
        return len(self._starts)

    @checked(share="[0, 1)", dims="any")
    def thin(self, share: float, dims: Sequence[int] | None = None, seed: int = 0) -> None:
        """Drop still windows at random, until something moves in `share` of the rest.

        A window moves if its last frame differs from its first: in one of the states `dims` (None
        means all) by a fiftieth of that dim's standard deviation, or by a grey level on average if
        there are no states. All moving windows stay; if there is none, all windows stay.

        Raises: ValueError if `share` is not in [0, 1), or there are no such dims.
        """
        first, states = self._starts, self.episodes.states
        last = first + self.frameskip * (self.num_frames - 1)
        if states is not None:
            chosen = list(range(states.shape[1])) if dims is None else list(dims)
            if not chosen or not set(chosen) <= set(range(states.shape[1])):
                raise ValueError(f"dims must be among {states.shape[1]} states, got {chosen}")
            seen = states[:, chosen]
            moves = ((seen[last] - seen[first]).abs() > seen.std(0) / 50).any(-1)
        elif dims is not None:
            raise ValueError(f"dims must be left out where there are no states, got {list(dims)}")
        else:
            pairs = zip(first.split(_TOGETHER), last.split(_TOGETHER), strict=True)
            frames = self.episodes.frames
            changes = (gather(frames, b).float() - gather(frames, a).float() for a, b in pairs)
            moves = torch.cat([change.abs().flatten(1).mean(1) for change in changes]) > 1
        still = (~moves).nonzero().squeeze(1)
        keep = round(int(moves.sum()) * (1 - share) / max(share, 1e-9))
        if bool(moves.any()) and keep < len(still):
            order = torch.randperm(len(still), generator=torch.Generator().manual_seed(seed))
            moves[still[order[:keep]]] = True
            self._starts = first[moves]

    @property
    def num_bytes(self) -> int:
        """Bytes of the observations in all windows, each row once: what `on` allocates."""
        kinds = self._sources.values()
        return len(self.rows()) * sum(math.prod(s.shape[1:]) * s.dtype.itemsize for s in kinds)

    @checked()
    def on(
        self, device: torch.device, embed: Callable[[Tensor], Tensor] = lambda seen: seen
    ) -> "Windows":
        """The same windows, whose observations were copied to a device and are gathered there.

        Batches are equal, but for `embed`: [n, ...] -> [n, D], embeddings to keep in their place.
        Actions stay where they are.
        """
        rows, twin = self.rows(), copy.copy(self)
        twin._sources = {
            name: KeptFrames(own, rows, device, embed) for name, own in self._sources.items()
        }
        return twin

    def rows(self) -> Tensor:
        """Rows whose observations are in a window, in rising order."""
        rows = len(self.episodes.actions)
        used = torch.zeros(rows, dtype=torch.bool, device=self._starts.device)
        for t in range(self.num_frames):
            used[self._starts + t * self.frameskip] = True
        return used.nonzero().flatten()

    def __getitem__(self, index: int | list[int] | Tensor) -> Batch:
        """One window, frames [T, C, H, W] and actions [T, k·A]; or those of an index [B]."""
        if isinstance(index, list | Tensor):
            return self.batch(torch.as_tensor(index, device="cpu"))
        frames, actions = self.batch(torch.as_tensor([index], device="cpu"))
        return Batch(each(frames, lambda seen: seen[0]), actions[0])

    @checked(index="int B")
    def batch(self, index: Tensor) -> Batch:
        """Gather windows [B] into a Batch of frames [B, T, C, H, W] and actions [B, T, k·A]."""
        start = self._starts[index][:, None]
        k, steps = self.frameskip, self.num_frames
        within = torch.arange(k * steps, device=start.device)
        rows = start + within[::k]
        seen = {name: gather(source, rows) for name, source in self._sources.items()}
        actions = self.episodes.actions[start + within]
        if self.scale is not None:
            actions = self.scale.normalise(actions)
        actions = actions.masked_fill(actions.isnan(), 0.0).unflatten(1, (steps, k)).flatten(2)
        return Batch(seen["pixels"] if self._alone else seen, actions)


@checked(start="[0, inf)", stop="[0, inf)", rank="[0, inf)")
@dataclass(eq=False)
class BatchOrder(Sampler[Tensor]):
    """Window indices of every step, a pure function of (seed, step, rank).

    Each pass over the windows has its own order; its incomplete last batch is dropped. The ranks of
    one step share the batch of a single process: rank r takes the r-th part.

    Raises: ValueError if there are fewer windows than `batch_size`, or the ranks do not divide it.
    """

    num: int  #: of windows
    batch_size: int  #: windows per step, over all ranks
    _: KW_ONLY
    seed: int  #: of every pass
    start: int = 0  #: first step that iterating yields
    stop: int | None = None  #: step to end before; None means never
    rank: int = 0  #: which part of each batch is ours
    ranks: int = 1  #: number of parts

    def __post_init__(self) -> None:
        size, ranks = self.batch_size, self.ranks
        if not 0 < size <= self.num:
            raise ValueError(f"batch_size must be between 1 and the {self.num} windows, got {size}")
        if size % ranks or not 0 <= self.rank < ranks:
            found = f"got {size}, {ranks} and {self.rank}"
            raise ValueError(f"batch_size must be a multiple of ranks, rank one of them, {found}")
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64, device="cpu")

    def __iter__(self) -> Iterator[Tensor]:
        steps = count(self.start) if self.stop is None else range(self.start, self.stop)
        return map(self.batch, steps)

    @checked(step="[0, inf)")
    def batch(self, step: int) -> Tensor:
        """Indices of our part of the batch of `step`: [batch_size / ranks]."""
        turn, position = divmod(step, self.num // self.batch_size)
        if turn != self._pass:
            seed = (as_seed(self.seed) * 1_000_003 + int(turn)) % 2**63
            self._order, self._pass = shuffled(self.num, seed), turn
        share = self.batch_size // self.ranks
        first = position * self.batch_size + self.rank * share
        return self._order[first : first + share]


@checked(workers="[0, inf)")
def loader(
    windows: Windows, order: BatchOrder, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Batches of `windows` in `order`, fetched ahead by worker processes.

    With workers, read the episodes from disk; `pin_memory` makes batches for fast copies to a GPU.

    Returns: an iterable of Batch; frames from disk are channels-last in memory.
    """
    return _Loader(
        windows,
        sampler=_Lists(order),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=partial(_deaf, _leaving()),
        # Iterating draws a seed; with its own generator the global one is untouched.
        generator=torch.Generator(),
    )


class _Lists(Sampler[list[int]]):
    """Batches of an order as lists, which workers are sent through a pipe.

    A tensor is fetched through a socket of this process, which prints a traceback if a worker is
    killed at that moment.
    """

    def __init__(self, order: BatchOrder) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.order)


class _Loader(DataLoader[Batch]):
    def __iter__(self) -> Any:
        # torch draws the seed on the default device, but our generator is on the CPU.
        with torch.device("cpu"):
            return super().__iter__()


@cache
def _leaving() -> Any:
    """A flag, shared with workers, that is set when this process begins to exit."""
    flag = RawValue("b", False)
    # Before multiprocessing terminates its workers and waits for them: it has registered earlier.
    atexit.register(lambda: setattr(flag, "value", True))
    return flag


def _deaf(leaving: Any, _: int) -> None:
    """Ignore signals in workers: the training process handles them and ends its workers.

    It tells their errors too: what one says besides is of a connection that another's end broke.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if leaving.value else None)
    sys.excepthook = lambda *_: None
