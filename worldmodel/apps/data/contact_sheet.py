"""A contact sheet: a few episodes, one per line, a few frames of each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from worldmodel._files import write_atomically
from worldmodel.data import Episodes
from worldmodel.data.frames import gather

__all__ = ["contact_sheet"]

_SIDE, _GAP, _LABEL = 128, 6, 18


def contact_sheet(episodes: Episodes, path: Path, *, lines: int = 6, columns: int = 8) -> None:
    """Draw evenly spaced frames of evenly spaced episodes as PNG.

    Args:
        episodes: Episodes.
        path: PNG to write; an old one is replaced.
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
    sheet.save(content, "PNG")
    write_atomically(path, content.getvalue())
