"""What is in a data set, in words."""

from __future__ import annotations

from torch import Tensor

from worldmodel.data import Episodes
from worldmodel.data.opening import columns_of, format_of
from worldmodel.worlds import World
from worldmodel.worlds.coverage import coverage

__all__ = ["describe", "describe_coverage"]

_PREVIEW = (4, 5)  # frames and frameskip of the windows that are counted


def describe(path: str, episodes: Episodes) -> list[str]:
    """Columns, episodes, frames, ranges and windows of the data set at `path`, line by line."""
    lengths = episodes.lengths
    rows, C, H, W = episodes.frames.shape
    columns = [(c.name, str(list(c.shape)), c.dtype, c.storage) for c in columns_of(path)]
    widths = [max(len(cell) for cell in column) for column in zip(*columns, strict=True)]
    ends = episodes.offsets + lengths - 1
    at_end = int(episodes.actions[ends].isnan().any(-1).sum())
    num_frames, frameskip = _PREVIEW
    windows = int((lengths - num_frames * frameskip + 1).clamp(min=0).sum())
    return [
        f"{path}  ({format_of(path)})",
        *(
            "    " + "  ".join(c.ljust(w) for c, w in zip(column, widths, strict=True)).rstrip()
            for column in columns
        ),
        f"  episodes       {len(episodes):,}, {rows:,} rows; "
        f"{int(lengths.min())} to {int(lengths.max())} each, median {int(lengths.median())}",
        f"  frames         {W} × {H} pixels, {C} channels",
        *_ranges("actions", episodes.actions),
        f"  NaN actions    {episodes.num_missing:,} rows, {at_end:,} at the end of an episode",
        *([] if episodes.states is None else _ranges("states", episodes.states)),
        f"  windows        {windows:,} of {num_frames} frames, {frameskip} rows apart",
    ]


def describe_coverage(world: World, stored: Episodes, window: int = 25) -> list[str]:
    """What collected episodes cover, line by line; none if they are too short to tell."""
    if stored.states is None or int(stored.lengths.max()) <= window:
        return []
    states = [part.numpy() for part in stored.states.split(stored.lengths.tolist())]
    found = coverage(world, states, window)
    lines = [
        f"  {grid.name:<18} {grid.cells} of 256 cells visited; {grid.moved:.3g} apart after "
        f"{window} steps (median)"
        for grid in found.grids
    ]
    share = f"{100 * found.solved:.1f} %"
    return [*lines, f"  solved already     {share} of pairs {window} steps apart"]


def _ranges(name: str, values: Tensor) -> list[str]:
    """Lowest, mean, highest and standard deviation per dim, NaN rows left out."""
    known = values[values.isfinite().all(-1)].double()
    lines = [f"  {name:<14} {values.shape[1]} dims       lowest      mean   highest       std"]
    for dim, column in enumerate(known.T):
        low, mean, high, std = column.min(), column.mean(), column.max(), column.std(correction=0)
        shown = "".join(f"{float(v):>10.4g}" for v in (low, mean, high, std))
        lines.append(f"    dim {dim:<16}{shown}")
    return lines
