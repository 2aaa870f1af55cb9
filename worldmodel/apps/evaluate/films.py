"""Videos of attempts: the present frame, the goal, and the state that the plan expects."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import Floats, PlannerPolicy, Policy, attempt
from worldmodel.study import embed
from worldmodel.worlds import World, open_world

_INK, _GOOD, _BAD, _TRAIL, _GAP, _FOOT = "#2b3040", "#2f9e6f", "#c23b22", "#e9a79a", 6, 20
_DISC = ((0,), 224.0, 16.0)
_PLACES = {"two": _DISC, "maze": _DISC, "push": ((0, 2), 512.0, 20.0)}
"""By world: first dims of places in a state, width of the world, tolerance of the goal."""
_SIDE = 160  # of a picture
_RATE = 11  # pictures a second; the last one stays for 1.5 seconds


class Film(NamedTuple):
    """E attempts to show, and what the plans expected, if the policy plans."""

    names: Sequence[str]  #: [E], under each attempt
    paths: Floats  #: [E, T, S], states
    goals: Floats  #: [E, S]
    success: NDArray[np.bool_]  #: [E]
    steps: NDArray[np.int64]  #: [E], steps until the goal was reached
    expected: Floats | None = None  #: [decisions, E, S], known state nearest to each plan
    every: int = 1  #: raw steps from one decision to the next


def film_attempts(
    world: World, manifest: Manifest, policy: Policy, reached: NDArray[np.bool_], folder: Path, *,
    each: int = 3,
) -> dict[str, Path]:  # fmt: skip
    """Write a video of the first successes and one of the first failures; `reached` is [N].

    Returns: the files, by "successes" and "failures"; a kind without an attempt has no file.
    """
    written: dict[str, Path] = {}
    for name, flags in {"successes": reached, "failures": ~reached}.items():
        if len(chosen := np.flatnonzero(flags)[:each]):
            written[name] = folder / f"{name}{film_suffix()}"
            display = open_world(manifest.env, image_size=_SIDE)
            write_film(film_of(world, manifest, policy, chosen), display, written[name])
    return written


def film_of(world: World, manifest: Manifest, policy: Policy, chosen: NDArray[np.int64]) -> Film:
    """Repeat the attempts on the pairs `chosen` [E], and record what their plans expect."""
    seen, every, nearest = policy, 1, list[Floats]()
    if isinstance(policy, PlannerPolicy):
        known = np.concatenate([manifest.starts, manifest.goals])
        bank, last = embed(policy.model, torch.from_numpy(world.draw(known))), policy.planner.cost

        def note(z: Tensor, goal: Tensor) -> None:
            nearest.append(known[nearest_frames(z, goal, bank, last == "last")])

        seen, every = replace(policy, on_plan=note), policy.frameskip * policy.planner.execute
    pairs, seeds = manifest.take(chosen), manifest.seeds_of(0)[chosen]
    outcome = attempt(world, pairs, seen, budget=manifest.budget, seeds=seeds)
    names, expected = [f"pair {pair}," for pair in chosen], np.stack(nearest) if nearest else None
    return Film(names, outcome.paths, pairs.goals, outcome.success, outcome.steps, expected, every)


def nearest_frames(z: Tensor, goal: Tensor, bank: Tensor, last: bool) -> NDArray[np.int64]:
    """[N]: index of the known frame in `bank` [M, D] that is nearest to a plan `z` [N, H, D].

    The distance is that of the plan's `last` step, or of the step nearest to its `goal` [N, D].
    """
    step = (z - goal[:, None]).square().sum(-1).argmin(1)
    judged = z[:, -1] if last else z[torch.arange(len(step)), step]
    nearest: NDArray[np.int64] = torch.cdist(judged, bank).argmin(1).cpu().numpy()
    return nearest


def film_suffix() -> str:
    """.mp4 where PyAV is installed with an H.264 encoder, .gif otherwise."""
    try:
        from av.codec import codecs_available
    except ImportError:
        return ".gif"
    return ".mp4" if "libx264" in codecs_available else ".gif"


def write_film(film: Film, display: World, path: Path, *, across: int = 1) -> None:
    """Write a video of attempts, `across` in a row; `display` draws the states.

    Raises: ValueError if `path` ends in neither .gif nor .mp4; OSError naming it.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"path must end in .gif or .mp4, got {path}")
    write = _gif if path.suffix == ".gif" else _mp4
    write_atomically(path, write(list(sheets(film, display, across))))


def sheets(film: Film, display: World, across: int = 1) -> Iterator[Image.Image]:
    """One picture per step: present, goal and expectation; a success stops at its last step."""
    last = film.paths.shape[1] - 1
    if film.success.all():
        last = min(last, int(film.steps.max()) + 4)
    stop = np.where(film.success, film.steps, last)
    goals = _pictures(display, film.goals)
    expected = [] if film.expected is None else [_pictures(display, s) for s in film.expected]
    for t in range(last + 1):
        at = np.minimum(t, stop)
        now = _pictures(display, film.paths[np.arange(len(at)), at])
        rows = []
        for e, step in enumerate(at):
            _draw_trail(display, now[e], film.paths[e, : step + 1], film.goals[e])
            words, ink = f"step {step}", _INK
            if film.success[e] and step == stop[e]:
                words, ink = f"reached in {step}", _GOOD
            elif t == last and not film.success[e]:
                words, ink = "not reached", _BAD
            shown = [(now[e], f"{film.names[e]} {words}".strip(), ink), (goals[e], "goal", _INK)]
            if expected:
                newest = expected[min(step // film.every, len(expected) - 1)]
                shown.append((newest[e], "what the plan expects", _INK))
            rows.append(shown)
        yield sheet(rows, across)


def sheet(rows: Sequence[Sequence[tuple[Image.Image, str, str]]], across: int = 1) -> Image.Image:
    """Rows of square pictures with coloured text below each, `across` rows in a line."""
    side, across = rows[0][0][0].width, min(across, len(rows))
    wide, high = max(map(len, rows)) * (side + _GAP) + _GAP, side + _FOOT + _GAP
    size = (wide * across - 2 * _GAP, high * -(-len(rows) // across) - _GAP)
    # H.264 needs even sides.
    whole = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), "#ffffff")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for place, row in enumerate(rows):
        for column, (picture, words, ink) in enumerate(row):
            x, y = place % across * wide + column * (side + _GAP), place // across * high
            whole.paste(picture, (x, y))
            draw.text((x + 2, y + side + 3), words, ink, font)
    return whole


def _draw_trail(world: World, picture: Image.Image, path: Floats, goal: Floats) -> None:
    """Draw the path so far and the goal's tolerance, in worlds whose states are places."""
    columns, size, radius = _PLACES.get(world.name.split("-")[0], ((), 1.0, 0.0))
    draw, scale = ImageDraw.Draw(picture), picture.width / size
    if columns and len(path) > 1:
        draw.line([tuple(p) for p in path[:-1, :2] * scale], _TRAIL, 2, joint="curve")
    for column in columns:
        (x, y), r = goal[column : column + 2] * scale, radius * scale
        draw.ellipse((x - r, y - r, x + r, y + r), outline=_GOOD, width=1)


def _pictures(world: World, states: Floats) -> list[Image.Image]:
    return [Image.fromarray(frame.transpose(1, 2, 0)) for frame in world.draw(states)]


def _gif(pictures: list[Image.Image]) -> bytes:
    memory = io.BytesIO()
    first, *rest = (p.quantize(96, dither=Image.Dither.NONE) for p in pictures)
    duration = [1000 // _RATE] * len(rest) + [1500]
    first.save(memory, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return memory.getvalue()


def _mp4(pictures: list[Image.Image]) -> bytes:
    import av

    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        for picture in pictures + pictures[-1:] * (3 * _RATE // 2):
            frame: Any = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return memory.getvalue()
