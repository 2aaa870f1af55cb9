"""`worldmodel data`: collect, inspect, convert and render episodes."""

import io
import json
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps import settings as kinds
from worldmodel.apps.data import collecting
from worldmodel.apps.folder import check_new_file, locked, whole_file
from worldmodel.apps.progress import say
from worldmodel.apps.ranks import joined
from worldmodel.apps.report import render as filled
from worldmodel.data import Episodes, HDF5Writer, open_hdf5
from worldmodel.data.frames import gather, in_colour
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.data.opening import columns_of, format_of, open_episodes
from worldmodel.data.reading import choices_in_words
from worldmodel.worlds import World, open_world
from worldmodel.worlds.behaviours import policies
from worldmodel.worlds.coverage import coverage

_NUM_FRAMES, _FRAMESKIP = 4, 5  # of the windows that `inspect` counts
_WINDOW = 25  # steps between the two states that `coverage` compares
_SIDE = 128  # pixels of a picture of a contact sheet
_MARK = "worldmodel contact sheet of"
_READ = {"pixels", "action", "state", "integers", "shift"}  # settings that open a data set


def collect(settings: kinds.CollectSettings) -> int:
    """Collect the episodes of a policy; several processes share them."""
    out, num = settings.out, settings.episodes
    with joined("cpu") as ranks, ExitStack() as held:
        with ranks.together():
            world = open_world(settings.env, image_size=settings.size, workers=settings.workers)
            policy, origin = _policy(settings, world)
            if ranks.first:
                if not (settings.resume and out.is_file() and not out.is_symlink()):
                    check_new_file(out)
                held.enter_context(locked(out.with_name(f"{out.name}.lock"), str(out)))
                writer = held.enter_context(collecting.open_writer(settings, origin))
                if (least := len(writer)) > num:
                    raise ValueError(f"--episodes must be at least the {least} in {out}, got {num}")
        first = int(ranks.gather(str(len(writer)) if ranks.first else "")[0])
        found = collecting.drawn(
            world, policy, num, length=settings.length, seed=settings.seed, first=first,
            bump=settings.bump, ranks=ranks, pictures=not settings.states_only,
        )  # fmt: skip
        if not ranks.first:
            list(found)
            return 0
        try:
            collecting.write_all(writer, found, num, "collect", first)
        except KeyboardInterrupt:
            kept = f"{out} holds {len(writer)} complete episodes"
            say(f"\ninterrupted; {kept}; --resume continues it")
            raise
        writer.close()
        what = "states" if settings.states_only else "frames"
        say(f"{out}: {len(writer)} episodes of {settings.length + 1} {what}")
        stored = open_hdf5(out)
        if stored.states is not None and settings.length >= _WINDOW:
            states = [part.numpy() for part in stored.states.split(stored.lengths.tolist())]
            say(filled("collect.txt", found=coverage(world, states, _WINDOW), window=_WINDOW))
    return 0


def _policy(settings: kinds.CollectSettings, world: World) -> tuple[str, dict[str, str | int]]:
    """The policy, and the origin to store; equal origins mean equal episodes."""
    known = policies(world.name)
    if (policy := settings.policy or known[0]) not in known:
        names = f"{', '.join(known)} for {settings.env}"
        raise ValueError(f"--policy must be one of {names}, got {policy!r}")
    origin: dict[str, str | int] = {
        "world": settings.env, "policy": policy, "length": settings.length, "seed": settings.seed,
        "image_size": world.image_size, "versions": json.dumps(world.versions(), sort_keys=True),
        "collect": settings.told(),
    }  # fmt: skip
    # Walks that share one stream depend on their number.
    if collecting.one_stream(world, policy, settings.bump):
        return policy, origin | {"episodes": settings.episodes, "bump": str(settings.bump)}
    if settings.bump:
        raise ValueError(
            f"--bump is for the expert of two-room and maze, got {settings.env}, {policy}"
        )
    return policy, origin


def inspect(settings: kinds.InspectSettings) -> int:
    """Describe a data set, and draw a contact sheet of it."""
    data = settings.data
    sheet, earlier = settings.sheet or Path(f"{Path(data).name}.sheet.png"), None
    if sheet.is_file() and not sheet.is_symlink() and sheet.suffix == ".png":
        with suppress(OSError), Image.open(sheet) as picture:
            earlier = picture.info.get(_MARK)
    episodes = open_episodes(settings.data, **settings.model_dump(include=_READ))
    if earlier != data:
        check_new_file(sheet, [data], option="--sheet")
    lengths, (rows, *shape), states = episodes.lengths, episodes.frames.shape, episodes.states
    columns = [(c.name, str(list(c.shape)), c.dtype, c.storage) for c in columns_of(data)]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    told = filled(
        "inspect.txt", path=data, format=format_of(data), rows=rows, count=len(lengths),
        columns=["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in columns],
        lengths=[int(of(lengths)) for of in (torch.min, torch.max, torch.median)],
        shape=shape if collecting.has_pictures(episodes) else None,
        actions=_ranges(episodes.actions), states=[] if states is None else _ranges(states),
        discrete=choices_in_words(episodes) if episodes.choices else None,
        missing=episodes.num_missing,
        at_end=int(episodes.actions[episodes.offsets + lengths - 1].isnan().any(-1).sum()),
        unknown=0 if states is None else int((~states.isfinite()).any(-1).sum()),
        windows=int((lengths - _NUM_FRAMES * _FRAMESKIP + 1).clamp(min=0).sum()),
        window=(_NUM_FRAMES, _FRAMESKIP),
    )  # fmt: skip
    say(told)
    if collecting.has_pictures(episodes):
        _contact_sheet(episodes, sheet, data)
        say(f"  contact sheet  {sheet}")
    return 0


def convert(settings: kinds.ConvertSettings) -> int:
    """Convert the pixels, actions and states of a data set to HDF5."""
    out, size = settings.out, settings.size
    with whole_file(out, [settings.data]) as partial:
        episodes = open_episodes(settings.data, **settings.model_dump(include=_READ))
        if not collecting.has_pictures(episodes) and (size or settings.channels):
            hint = f"worldmodel data render {settings.data} {out} --size {size or 64} draws them"
            raise ValueError(f"--size resizes pictures, {settings.data} has none: {hint}")
        channels = _channels(settings.channels, episodes.frames.shape[1])
        # The origin is not true for resized frames.
        is_copy = format_of(settings.data) == "hdf5" and size is None
        origin = (read_origin(settings.data) if is_copy else {}) | {"convert": settings.told()}
        stored = (collecting.one_episode(episodes, e) for e in range(len(episodes)))
        taken = ((x if x is None else x[:, channels], a, s) for x, a, s in stored)
        found = ((_resize(x, size) if size and x is not None else x, a, s) for x, a, s in taken)
        with HDF5Writer(partial, origin=origin, **collecting.packing(settings)) as writer:
            collecting.write_all(writer, found, len(episodes), "convert")
    pictures, states = collecting.has_pictures(episodes), episodes.states is not None
    kept = ", ".join(["pixels"] * pictures + ["action"] + ["state"] * states)
    say(f"{out}: {kept} of {len(episodes)} episodes; other columns are left out")
    return 0


def render(settings: kinds.RenderSettings) -> int:
    """Draw the frames of a collected file again, at another size."""
    data, out, size = settings.data, settings.out, settings.size
    with whole_file(out, [data]) as partial:
        episodes = collecting.open_pictures(
            data, render=size, env=settings.env, workers=settings.workers
        )  # fmt: skip
        origin = read_origin(data) | {"image_size": size, "render": settings.told()}
        found = (collecting.one_episode(episodes, e) for e in range(len(episodes)))
        with HDF5Writer(partial, origin=origin, **collecting.packing(settings)) as writer:
            collecting.write_all(writer, found, len(episodes), "render")
    say(f"{out}: {len(episodes)} episodes at {size} × {size} pixels")
    return 0


def _channels(wanted: str | None, num: int) -> list[int]:
    """Indices of the channels that `--channels` names, of `num`."""
    if wanted in (None, "rgb"):
        return in_colour(num) if wanted else list(range(num))
    chosen = [int(c) if c.strip().isdecimal() else num for c in str(wanted).split(",")]
    if len(chosen) != 3 or max(chosen) >= num:
        raise ValueError(f"--channels must be rgb or three numbers below {num}, got {wanted!r}")
    return chosen


def _resize(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Frames [L, C, H, W] at another size, each pixel an average over its area."""
    channels = map(Image.fromarray, np.ascontiguousarray(frames.reshape(-1, *frames.shape[2:])))
    small = [np.asarray(c.resize((size, size), Image.Resampling.BOX)) for c in channels]
    return np.stack(small).reshape(*frames.shape[:2], size, size)


def _ranges(values: Tensor) -> list[list[float]]:
    """Lowest, mean, highest and standard deviation of each dim, without NaN rows."""
    known = values[values.isfinite().all(-1)].double()
    figures = known.amin(0), known.mean(0), known.amax(0), known.std(0, correction=0)
    return torch.stack(figures, 1).tolist()


def _contact_sheet(episodes: Episodes, path: Path, source: str) -> None:
    """Draw up to eight frames of six episodes, evenly spaced, as PNG that names `source`."""
    from worldmodel.apps.evaluate.films import sheet

    lengths, rows, small = episodes.lengths.tolist(), [], max(episodes.frames.shape[2:]) <= _SIDE
    how = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
    for e in _spread(len(lengths), 6):
        within = _spread(lengths[e], 8)
        frames = gather(episodes.frames, episodes.offsets[e] + torch.tensor(within))
        colours = frames[:, in_colour(frames.shape[1])].permute(0, 2, 3, 1).contiguous().numpy()
        words = [f"frame {t}" if t else f"episode {e}" for t in within]
        pictures = (Image.fromarray(frame).convert("RGB") for frame in colours)
        fitted = [ImageOps.pad(one, (_SIDE, _SIDE), how, color="white") for one in pictures]
        rows.append([(one, word, "#000000") for one, word in zip(fitted, words, strict=True)])
    content, mark = io.BytesIO(), PngInfo()
    mark.add_itxt(_MARK, source)
    sheet(rows).save(content, "PNG", pnginfo=mark)
    write_atomically(path, content.getvalue())


def _spread(length: int, num: int) -> list[int]:
    """At most `num` of the numbers below `length`, evenly spaced, both ends included."""
    return sorted(set(np.linspace(0, length - 1, num).round().astype(int).tolist()))
