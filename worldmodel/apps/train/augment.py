"""Augmentation: random shift, contrast and brightness, the same for all frames of a window.

Letters: B windows, T frames, C H W a frame.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from worldmodel.records import Observations


def draws(seed: int, step: int, num: int) -> Tensor:
    """[num, 4], uniform in −1…1: a pure function of (seed, step) and a window's place in it."""
    generator = torch.Generator().manual_seed((seed * 1_000_033 + step) % 2**63)
    return 2 * torch.rand(num, 4, generator=generator, device="cpu") - 1


def augmented(frames: Observations, by: Mapping[str, float], chance: Tensor) -> Tensor:
    """Augmented frames [B, T, C, H, W], in the same dtype.

        shift       whole pixels in −p…p, down and to the right; the border is repeated
        contrast    m + (1 + c)(x − m), with the mean m of the window
        brightness  x + b, as a fraction of the largest value

    Args:
        frames: uint8 in 0…255 or floating point in 0…1.
        by: the largest p, c and b by name; what is absent or 0 is left out.
        chance: [B, 4] in −1…1, one draw a window, on the CPU.
    Raises: TypeError if the observations are several.
    """
    if not isinstance(frames, Tensor):
        raise TypeError(f"augment needs frames alone, got observations {sorted(frames)}")
    if most := by.get("shift", 0):
        way = ((chance[:, :2] + 1) / 2 * (2 * most + 1)).floor().clamp(max=2 * most) - most
        for axis in (-2, -1):
            side, shape = frames.shape[axis], [len(frames), 1, 1, 1, 1]
            shape[axis] = side
            rows = torch.arange(side, device="cpu") - way[:, axis, None]
            index = rows.long().clamp(0, side - 1).view(shape).to(frames.device)
            frames = frames.gather(axis, index.expand(frames.shape))
    if not any(strength := [by.get("contrast", 0), by.get("brightness", 0)]):
        return frames
    whole, x = frames.dtype == torch.uint8, frames.float()
    by_window = chance[:, 2:] * torch.tensor(strength, device="cpu")
    factor, add = by_window.to(x.device).view(-1, 2, 1, 1, 1, 1).unbind(1)
    mean, top = x.mean((1, 2, 3, 4), keepdim=True), 255 if whole else 1
    x = (x * (1 + factor) + (top * add - factor * mean)).clamp(0, top)
    return (x.round() if whole else x).to(frames.dtype)
