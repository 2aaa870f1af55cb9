"""A contact sheet: a few episodes, one per line, a few frames of each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from worldmodel._files import write_atomically
from worldmodel.apps.folder import check_new_file
from worldmodel.data import Episodes
from worldmodel.data.frames import gather

__all__ = ["check_sheet", "contact_sheet"]

_SIDE, _GAP, _LABEL = 128, 6, 18
_MARK = "worldmodel contact sheet of"


def check_sheet(path: Path, source: str) -> None:
    """Refuse a file that is no earlier contact sheet of the same data.

    Raises: as `check_new_file`.
    """
    if path.is_file() and not path.is_symlink() and path.suffix == ".png":
        try:
            with Image.open(path) as picture:
                if picture.info.get(_MARK) == source:
                    return
        except OSError:
            pass
    check_new_file(path, [source], option="--sheet")


def contact_sheet(
    episodes: Episodes, path: Path, *, source: str = "", lines: int = 6, columns: int = 8
) -> None:
    """Draw evenly spaced frames of evenly spaced episodes as PNG.

    Args:
        episodes: Episodes.
        path: PNG to write; an old one is replaced.
        source: data set, written into the picture so that `check_sheet` knows it again.
        lines: episodes to show, at most.
        columns: frames of each, at most.
    Raises: OSError if `path` cannot be written.
    """
    shown = np.unique(np.linspace(0, len(episodes) - 1, lines).round().astype(int))
    picks = []
    for e in shown.tolist():
        length = int(episodes.lengths[e])
        within = np.unique(np.linspace(0, length - 1, columns).round().astype(int))
        picks.append((e, length, within))
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
            if longest <= _SIDE:  # whole multiples keep pixels square
                scale, how = float(_SIDE // longest), Image.Resampling.NEAREST
            else:
                scale, how = _SIDE / longest, Image.Resampling.BILINEAR
            W, H = (max(round(side * scale), 1) for side in picture.size)
            place = (_GAP + column * (_SIDE + _GAP), top + _LABEL)
            sheet.paste(picture.resize((W, H), how).convert("RGB"), place)
    content = io.BytesIO()
    mark = PngInfo()
    mark.add_itxt(_MARK, source)
    sheet.save(content, "PNG", pnginfo=mark)
    write_atomically(path, content.getvalue())
