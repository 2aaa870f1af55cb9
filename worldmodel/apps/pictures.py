"""What the demo shows: training curves, a map of the latent space, planned episodes in motion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldmodel.apps.charts import Series, line_chart, point_chart, save_picture, stack
from worldmodel.worlds import TwoRoom

__all__ = ["episodes_gif", "latent_map", "training_curves"]

Floats = NDArray[np.float32]
_TRAIL, _GOAL, _INK, _GOOD, _BAD = "#e9a79a", "#2f9e6f", "#2b3040", "#2f9e6f", "#c23b22"


def training_curves(
    steps: Sequence[int],
    prediction: Sequence[float],
    regularization: Sequence[float],
    floor: float,
    path: Path,
) -> None:
    """Both losses against the step, the regularizer beside its noise floor."""
    x = np.asarray(steps, np.float64)
    common = {"x_label": "optimizer step", "log_y": True}
    upper = line_chart(
        [Series(x, np.asarray(prediction, np.float64), "prediction")],
        title="Next-embedding error",
        y_label="mean square",
        **common,  # type: ignore[arg-type]
    )
    lower = line_chart(
        [Series(x, np.asarray(regularization, np.float64), "SIGReg")],
        title="SIGReg",
        y_label="statistic",
        marks=[(floor, f"Gaussian batch {floor:.2f}")],
        **common,  # type: ignore[arg-type]
    )
    save_picture(stack([upper, lower]), path)


def latent_map(
    coordinates: NDArray[np.float64],
    share: Sequence[float],
    states: Floats,
    world: TwoRoom,
    path: Path,
) -> None:
    """First two principal components beside the world, each point in its position's colour."""
    colours = _position_colours(states / world.size)
    latent = point_chart(
        coordinates,
        colours,
        title="Latent space",
        x_label=f"first principal component ({share[0]:.0%} of the variance)",
        y_label=f"second ({share[1]:.0%})",
    )
    truth = point_chart(
        states.astype(np.float64) * [1, -1] + [0, world.size],
        colours,
        title="The same frames by true position",
        x_label="x",
        y_label="y",
    )
    save_picture(stack([latent, truth], across=True), path)


def _position_colours(unit: Floats) -> NDArray[np.uint8]:
    """A colour for each point of the unit square, blended between four corners: [N, 3]."""
    corners = np.asarray([[[60, 111, 209], [222, 73, 55]], [[47, 158, 111], [240, 176, 48]]])
    x, y = unit[:, :1], unit[:, 1:]
    top = corners[0, 0] * (1 - x) + corners[0, 1] * x
    bottom = corners[1, 0] * (1 - x) + corners[1, 1] * x
    out: NDArray[np.uint8] = np.rint(top * (1 - y) + bottom * y).astype(np.uint8)
    return out


def episodes_gif(
    paths: Floats,
    goals: Floats,
    success: NDArray[np.bool_],
    steps: NDArray[np.int64],
    path: Path,
    *,
    side: int = 160,
) -> None:
    """Planned episodes in motion, each beside the picture of its goal, four to a sheet.

    Args:
        paths: [E, T, 2], states.
        goals: [E, 2].
        success: [E].
        steps: [E], step at which the goal was reached.
        path: of the GIF.
        side: of one picture, in pixels.
    """
    world = TwoRoom(side)
    goal_frames = _frames(world, goals)
    last = min(int(steps.max()) + 8, paths.shape[1] - 1)
    sheets = []
    for t in range(last + 1):
        panels = []
        for e in range(len(paths)):
            now = min(t, int(steps[e])) if success[e] else t
            panel = _panel(world, paths[e, : now + 1], goals[e], goal_frames[e], side)
            caption, colour = f"step {now}", _INK
            if success[e] and now == steps[e]:
                caption, colour = f"reached in {now} steps", _GOOD
            elif t == last and not success[e]:
                caption, colour = "not reached", _BAD
            ImageDraw.Draw(panel).text((4, side + 4), caption, colour, ImageFont.load_default(13))
            panels.append(panel)
        rows = [stack(panels[i : i + 2], across=True, gap=20) for i in range(0, len(panels), 2)]
        sheets.append(stack(rows, gap=6).quantize(64, dither=Image.Dither.NONE))
    temporary = path.with_name(f".{path.name}.tmp")
    duration = [90] * (len(sheets) - 1) + [1500]
    sheets[0].save(
        temporary, "GIF", save_all=True, append_images=sheets[1:], duration=duration, loop=0
    )
    temporary.replace(path)


def _frames(world: TwoRoom, states: Floats) -> list[Image.Image]:
    return [Image.fromarray(f.transpose(1, 2, 0)) for f in world.render(states)]


def _panel(
    world: TwoRoom, trail: Floats, goal: Floats, goal_frame: Image.Image, side: int
) -> Image.Image:
    """The agent with its trail and the goal's ring, beside the goal's picture."""
    scale = side / world.size
    frame = _frames(world, trail[-1:])[0]
    draw = ImageDraw.Draw(frame)
    if len(trail) > 1:
        draw.line([tuple(p) for p in trail[:-1] * scale], _TRAIL, 2, joint="curve")
    r = world.success_radius * scale
    x, y = goal * scale
    draw.ellipse((x - r, y - r, x + r, y + r), outline=_GOAL, width=1)
    panel = Image.new("RGB", (2 * side + 6, side + 22), "#ffffff")
    panel.paste(frame, (0, 0))
    panel.paste(goal_frame, (side + 6, 0))
    ImageDraw.Draw(panel).text((side + 10, side + 4), "goal", _INK, ImageFont.load_default(13))
    return panel
