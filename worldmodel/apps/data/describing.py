"""What is in a data set, in words."""

from __future__ import annotations

from torch import Tensor

from worldmodel.data import Episodes
from worldmodel.data.opening import columns_of, format_of

__all__ = ["describe"]

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


def _ranges(name: str, values: Tensor) -> list[str]:
    """Lowest, mean, highest and standard deviation per dim, NaN rows left out."""
    known = values[values.isfinite().all(-1)].double()
    lines = [f"  {name:<14} {values.shape[1]} dims       lowest      mean   highest       std"]
    for dim, column in enumerate(known.T):
        low, mean, high, std = column.min(), column.mean(), column.max(), column.std(correction=0)
        shown = "".join(f"{float(v):>10.4g}" for v in (low, mean, high, std))
        lines.append(f"    dim {dim:<16}{shown}")
    return lines
