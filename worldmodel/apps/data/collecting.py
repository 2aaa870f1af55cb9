"""Episodes of any world, simulated and drawn by one process or by several."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import ALONE, Ranks
from worldmodel.apps.settings import CollectSettings, Settings
from worldmodel.data import Episodes, HDF5Writer, open_hdf5
from worldmodel.data.frames import gather
from worldmodel.data.hdf5 import open_for_reading
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.data.jpeg import JPEGFrames
from worldmodel.data.opening import open_episodes
from worldmodel.worlds import TwoRoom, World, collect, open_world
from worldmodel.worlds.behaviours import make_behaviour
from worldmodel.worlds.contract import imports_code, kind_of
from worldmodel.worlds.maze import Maze
from worldmodel.worlds.rendered import RenderedFrames

Floats = NDArray[np.float32]
# One episode: frames [L + 1, 3, H, W], as JPEG or None, actions [L, A], states [L + 1, S] or None.
Stored = tuple[Any, Floats, Floats | None]
# Simulators per drawing process; OpenGL is never forked.
_OWN = {"reacher": 1, "cube": 1, "gymnasium": 1}
_TOGETHER = 32  # episodes simulated at once; a change would change what a seed gives


def drawn(
    world: World, policy: str, num: int, *, length: int, seed: int, first: int = 0,
    bump: float = 0.0, ranks: Ranks = ALONE, pictures: bool = True,
) -> Iterator[Stored]:  # fmt: skip
    """Yield episodes `first` to `num`, in order, on rank 0; every rank must run it to the end.

    Episode e does not depend on `first` and `num`, except for the walks of `one_stream`, which
    share one random stream. The ranks take turns at blocks of episodes; ranks other than 0 send
    theirs and yield nothing. Without `pictures` frames are None.
    """
    simulate, side = _simulator(world, policy, num, length, seed, bump), world.image_size
    for block in range(first // _TOGETHER, -(-num // _TOGETHER)):
        begin, whose = block * _TOGETHER, block % ranks.size
        some = range(max(first - begin, 0), min(num - begin, _TOGETHER))
        if whose == ranks.rank:
            states, actions = simulate(block)
            mine = (
                (world.draw(states[e]) if pictures else None, actions[e], states[e]) for e in some
            )
            if ranks.first:
                yield from mine
                continue
            # Draw all of them before sending: rank 0 may be busy.
            for part in [part for episode in mine for part in episode if part is not None]:
                ranks.send(torch.from_numpy(np.ascontiguousarray(part)))
        elif ranks.first:
            for _ in some:
                seen = torch.empty(length + 1, 3, side, side, dtype=torch.uint8)
                frames = ranks.receive(seen, whose).numpy() if pictures else None
                shapes = (length, world.action_dim), (length + 1, world.state_dim)
                told = [ranks.receive(torch.empty(shape), whose).numpy() for shape in shapes]
                yield frames, told[0], told[1]


def fresh_walks(
    world: TwoRoom | Maze, num: int, length: int, seed: int, *, bump: float = 0.0
) -> Episodes:
    """Walks of the world's noisy expert; frames are drawn when they are read."""
    walks = collect(world, num, length, seed, bump=bump)
    states = walks.states.reshape(-1, world.state_dim)
    after = np.full((num, 1, 2), np.nan, np.float32)  # there is no action at the end
    actions = torch.from_numpy(np.concatenate([walks.actions, after], axis=1)).flatten(0, 1)
    lengths = torch.full((num,), length + 1)
    return Episodes(RenderedFrames(world, states), actions, lengths, torch.from_numpy(states))


def one_episode(stored: Episodes, e: int, *, decode: bool = True) -> Stored:
    """Frames [L, C, H, W], actions [L, A] and states [L, S] of episode e, for a writer.

    Without `decode` JPEG stays as it is: decoded and encoded again it is another picture.
    """
    rows = stored.rows(torch.tensor([e]))
    if isinstance(stored.frames, JPEGFrames) and not decode:
        frames: Any = stored.frames.pictures(rows.numpy())
    else:
        frames = gather(stored.frames, rows).numpy() if has_pictures(stored) else None
    states = None if stored.states is None else stored.states[rows].numpy()
    return frames, stored.actions[rows].numpy(), states


def has_pictures(episodes: Episodes) -> bool:
    """Whether the frames are pictures; a file without pictures has its states as frames."""
    return len(episodes.frames.shape) == 4


def open_pictures(
    data: str, *, render: int | None = None, env: str | None = None, workers: int | None = None,
    alone: bool = True, **columns: Any,
) -> Episodes:  # fmt: skip
    """Open episodes with pictures: those of the data set, or drawn from states at side `render`.

    The process that reads a frame draws it, in the world that `data collect` noted in the file;
    `env` names that world if it is a user's class. `workers` is the number of simulators, None: the
    world's default. Without `alone`, each of several processes has as few as possible.

    Raises: what `open_episodes` and `open_world` raise; ValueError if there are no pictures, and no
        states or no world to draw them.
    """
    if render is None:
        if not has_pictures(episodes := open_episodes(data, **columns)):
            hint = "draw them by train --render SIDE, or by `worldmodel data render` into a file"
            raise ValueError(f"{data} holds states and no pictures: {hint}")
        return episodes
    origin = read_origin(data)
    name = env or str(origin.get("world", ""))
    if not name or (env is None and imports_code(name)):
        # A file alone must not cause the import of a class.
        hint = f": --env {name}, for train --world {name}" if name else ""
        raise ValueError(f"{data} must say which built-in world it comes from{hint}")
    action = columns.get("action") or "action"
    if (episodes := open_hdf5(data, action=action)).states is None:
        raise ValueError(f"{data} must hold the column 'state' to draw from")
    if not bool(episodes.stated.all()):
        e = int(episodes.stated.int().argmin())
        raise ValueError(f"states must be finite to be drawn, those of episode {e} are not")
    few = workers if alone else _OWN.get(kind_of(name))
    make = partial(open_world, name, image_size=render, workers=few)
    frames = RenderedFrames(make, episodes.states.numpy())
    then, now = json.loads(str(origin.get("versions", "{}"))), make().versions()
    if changed := [f"{k} {v} → {now[k]}" for k, v in then.items() if now.get(k, v) != v]:
        say(f"versions differ between simulation and drawing: {', '.join(changed)}")
    return replace(episodes, frames=frames)


def write_all(
    writer: HDF5Writer, found: Iterable[Stored], num: int, title: str, first: int = 0
) -> None:
    """Write episodes `first` to `num`, with a progress bar."""
    with Progress(title, num, start=first, unit="episode") as bar:
        for episode in bar.over(found):
            writer.write(*episode)


def packing(settings: Settings) -> dict[str, Any]:
    """How a command's file holds its frames, as `HDF5Writer` is told."""
    return settings.model_dump(include={"compression", "jpeg"})


def open_writer(settings: CollectSettings, origin: dict[str, str | int]) -> HDF5Writer:
    """A writer for the file of `data collect`: a new file, or one that appends episodes.

    A file of a killed writer is replaced by a copy of its complete episodes.

    Raises: ValueError if the file to continue has another origin; OSError naming it.
    """
    path, packed = settings.out, packing(settings)
    if not (settings.resume and path.exists()):
        return HDF5Writer(path, origin=origin, **packed)
    known = read_origin(path)
    for name, value in origin.items():
        if name != "collect" and known.get(name) != value:
            rule = f"{name} must be {known.get(name)!r} as in the file, got {value!r}"
            raise ValueError(f"{path} cannot be continued: {rule}")
    with open_for_reading(path) as file:
        empty = not file["ep_len"][()].any()
        quality = file["pixels"].attrs.get("quality") if "pixels" in file else None
    if settings.jpeg not in (None, quality):
        rule = f"jpeg must be {quality} as in the file, got {settings.jpeg}"
        raise ValueError(f"{path} cannot be continued: {rule}")
    packed["jpeg"] = None if quality is None else int(quality)
    with suppress(OSError):
        return HDF5Writer(path, append=True)
    if empty:
        path.unlink()
        return HDF5Writer(path, origin=origin, **packed)
    stored = open_hdf5(path)
    copy = path.with_name(f"{path.name}.unfinished")
    copy.unlink(missing_ok=True)
    say(f"{path} is from a killed writer: its {len(stored)} complete episodes are copied first")
    with HDF5Writer(copy, origin=known, **packed) as writer:
        found = (one_episode(stored, e, decode=False) for e in range(len(stored)))
        write_all(writer, found, len(stored), "copy")
    copy.replace(path)
    return HDF5Writer(path, append=True)


def one_stream(world: World, policy: str, bump: float) -> TypeGuard[TwoRoom | Maze]:
    """Whether walks share one stream: Two-Room's expert, and a maze's with `bump`."""
    disc = isinstance(world, TwoRoom) or (isinstance(world, Maze) and bump > 0)
    return disc and policy == "expert"


def _simulator(
    world: World, policy: str, num: int, length: int, seed: int, bump: float
) -> Callable[[int], tuple[Floats, Floats]]:
    """A function from the number of a block to its states [E, T + 1, S] and actions [E, T, A]."""
    if one_stream(world, policy, bump):
        walks = collect(world, num, length, seed, bump=bump)
        spans = [slice(begin, begin + _TOGETHER) for begin in range(0, num, _TOGETHER)]
        return lambda block: (walks.states[spans[block]], walks.actions[spans[block]])

    def together(block: int) -> tuple[Floats, Floats]:
        # Always simulate the whole block, so that episodes do not depend on `num`.
        rng = np.random.default_rng([seed, block])
        states, actions = [world.sample_states(rng, _TOGETHER)], []
        behaviour = make_behaviour(policy, world, _TOGETHER, rng)
        session = world.start(states[0])
        for _ in range(length):
            actions.append(behaviour(states[-1]))
            states.append(session.step(actions[-1]))
        session.close()
        return np.stack(states, axis=1), np.stack(actions, axis=1)

    return together
