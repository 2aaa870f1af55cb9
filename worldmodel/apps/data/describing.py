"""What is in a data set: in words, and as a sheet of a few frames of a few episodes."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps.folder import check_new_file
from worldmodel.data import Episodes
from worldmodel.data.frames import gather
from worldmodel.data.opening import columns_of, format_of
from worldmodel.worlds import World
from worldmodel.worlds.coverage import coverage

__all__ = ["check_sheet", "contact_sheet", "describe", "describe_coverage"]

_NUM_FRAMES, _FRAMESKIP = 4, 5  # of the windows that are counted
_SIDE, _GAP, _LABEL = 128, 6, 18  # pixels of a contact sheet
_MARK = "worldmodel contact sheet of"


def describe(path: str, episodes: Episodes) -> list[str]:
    """Columns, episodes, frames, ranges and windows of the data set at `path`, line by line."""
    lengths = episodes.lengths
    rows, C, H, W = episodes.frames.shape
    columns = [(c.name, str(list(c.shape)), c.dtype, c.storage) for c in columns_of(path)]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    at_end = int(episodes.actions[episodes.offsets + lengths - 1].isnan().any(-1).sum())
    windows = int((lengths - _NUM_FRAMES * _FRAMESKIP + 1).clamp(min=0).sum())
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
        f"  windows        {windows:,} of {_NUM_FRAMES} frames, {_FRAMESKIP} rows apart",
    ]


def _ranges(name: str, values: Tensor) -> list[str]:
    """Lowest, mean, highest and standard deviation per dim, NaN rows left out."""
    known = values[values.isfinite().all(-1)].double()
    lines = [f"  {name:<14} {values.shape[1]} dims       lowest      mean   highest       std"]
    for dim, column in enumerate(known.T):
        figures = column.min(), column.mean(), column.max(), column.std(correction=0)
        lines.append(f"    dim {dim:<16}" + "".join(f"{float(v):>10.4g}" for v in figures))
    return lines


def describe_coverage(world: World, stored: Episodes, window: int = 25) -> list[str]:
    """What collected episodes cover, line by line; none if they are too short to tell."""
    if stored.states is None or int(stored.lengths.max()) <= window:
        return []
    states = [part.numpy() for part in stored.states.split(stored.lengths.tolist())]
    found = coverage(world, states, window)
    return [
        *(
            f"  {grid.name:<18} {grid.cells} of 256 cells visited; {grid.moved:.3g} apart after "
            f"{window} steps (median)"
            for grid in found.grids
        ),
        f"  solved already     {100 * found.solved:.1f} % of pairs {window} steps apart",
    ]


def check_sheet(path: Path, source: str) -> None:
    """Refuse, as `check_new_file`, what is no earlier contact sheet of the same data."""
    if path.is_file() and not path.is_symlink() and path.suffix == ".png":
        with suppress(OSError), Image.open(path) as picture:
            if picture.info.get(_MARK) == source:
                return
    check_new_file(path, [source], option="--sheet")


def contact_sheet(
    episodes: Episodes, path: Path, *, source: str = "", lines: int = 6, columns: int = 8
) -> None:
    """Draw at most `columns` frames of `lines` episodes, evenly spaced, as PNG.

    An old picture is replaced; by `source` in it `check_sheet` knows the data set again.
    """
    shown = _spread(len(episodes), lines).tolist()
    picks = [(e, int(n), _spread(int(n), columns)) for e in shown for n in [episodes.lengths[e]]]
    width = _GAP + max(len(within) for _, _, within in picks) * (_SIDE + _GAP)
    sheet = Image.new("RGB", (width, _GAP + len(picks) * (_LABEL + _SIDE + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for line, (e, length, within) in enumerate(picks):
        top = _GAP + line * (_LABEL + _SIDE + _GAP)
        title = f"episode {e}, {length} frames: {', '.join(map(str, within))}"
        draw.text((_GAP, top), title, fill="black", font=font)
        frames = gather(episodes.frames, int(episodes.offsets[e]) + torch.from_numpy(within))
        for column, frame in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            picture = Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame)
            longest = max(picture.size)
            # Whole multiples keep pixels square.
            scale, how = float(_SIDE // longest), Image.Resampling.NEAREST
            if longest > _SIDE:
                scale, how = _SIDE / longest, Image.Resampling.BILINEAR
            W, H = (max(round(side * scale), 1) for side in picture.size)
            place = (_GAP + column * (_SIDE + _GAP), top + _LABEL)
            sheet.paste(picture.resize((W, H), how).convert("RGB"), place)
    content, mark = io.BytesIO(), PngInfo()
    mark.add_itxt(_MARK, source)
    sheet.save(content, "PNG", pnginfo=mark)
    write_atomically(path, content.getvalue())


def _spread(length: int, num: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """At most `num` of the numbers below `length`, evenly spaced, both ends among them."""
    return np.unique(np.linspace(0, length - 1, num).round().astype(np.int64))
