"""Episodes of any world, simulated and drawn by one process or shared out among several."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import ALONE, Ranks
from worldmodel.apps.settings import CollectSettings
from worldmodel.data import Episodes, HDF5Writer, open_hdf5
from worldmodel.data.frames import gather
from worldmodel.data.hdf5 import open_for_reading
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.worlds import TwoRoom, World, collect
from worldmodel.worlds.behaviours import make_behaviour
from worldmodel.worlds.maze import Maze
from worldmodel.worlds.rendered import RenderedFrames

__all__ = ["Drawn", "drawn", "episodes", "fresh_walks", "in_memory", "one_episode", "one_stream",
           "open_writer", "write_all"]  # fmt: skip

Floats = NDArray[np.float32]
# One episode: frames [L + 1, 3, H, W], actions [L, A] and states [L + 1, S].
Drawn = tuple[NDArray[np.uint8], Floats, Floats]
Stored = tuple[NDArray[np.uint8], Floats, Floats | None]
_TOGETHER = 32  # episodes simulated side by side; part of what a seed means


def episodes(
    world: World, policy: str, num: int, *, length: int, seed: int, first: int = 0,
    bump: float = 0.0,
) -> Iterator[tuple[Floats, Floats]]:  # fmt: skip
    """Episodes `first` to `num`: states [length + 1, S] and actions [length, A] of each.

    Episode e is the same whatever `first` and `num` are, but for the walks of
    `one_stream`, which share their random numbers and depend on `num`.
    """
    simulate = _simulator(world, policy, num, length, seed, bump)
    for block, some in _blocks(first, num):
        states, actions = simulate(block)
        yield from ((states[e], actions[e]) for e in some)


def drawn(
    world: World, policy: str, num: int, *, length: int, seed: int, first: int = 0,
    bump: float = 0.0, ranks: Ranks = ALONE,
) -> Iterator[Drawn]:  # fmt: skip
    """`episodes` with their frames, in order, on rank 0; every rank must run it to the end.

    The ranks take turns at blocks of episodes; the others hand theirs over and yield nothing.
    """
    simulate, side = _simulator(world, policy, num, length, seed, bump), world.image_size
    for block, some in _blocks(first, num):
        whose = block % ranks.size
        if whose == ranks.rank:
            states, actions = simulate(block)
            mine = ((world.draw(states[e]), actions[e], states[e]) for e in some)
            if ranks.first:
                yield from mine
                continue
            # All are drawn before rank 0 has time for the first.
            for part in [part for episode in mine for part in episode]:
                ranks.send(torch.from_numpy(np.ascontiguousarray(part)))
        elif ranks.first:
            for _ in some:
                frames = torch.empty(length + 1, 3, side, side, dtype=torch.uint8)
                shapes = (length, world.action_dim), (length + 1, world.state_dim)
                told = [ranks.receive(x, whose) for x in (frames, *map(torch.empty, shapes))]
                yield told[0].numpy(), told[1].numpy(), told[2].numpy()


def fresh_walks(world: TwoRoom, num: int, length: int, seed: int) -> Episodes:
    """Walks of Two-Room's noisy expert, whose frames are drawn when they are asked for."""
    walks = collect(world, num, length, seed)
    states = walks.states.reshape(-1, 2)
    after = np.full((num, 1, 2), np.nan, np.float32)  # nothing is done at the end
    actions = torch.from_numpy(np.concatenate([walks.actions, after], axis=1)).flatten(0, 1)
    lengths = torch.full((num,), length + 1)
    return Episodes(RenderedFrames(world, states), actions, lengths, torch.from_numpy(states))


def in_memory(found: Iterator[Drawn], num: int) -> Episodes:
    """`num` episodes of equal length as one record, without a file."""
    first = pixels, moves, places = next(found)
    frames = torch.empty((num, *pixels.shape), dtype=torch.uint8)
    actions = torch.full((num, len(pixels), moves.shape[1]), torch.nan)
    states = torch.empty(num, *places.shape)
    for e, episode in enumerate(chain([first], found)):
        frames[e], actions[e, :-1], states[e] = map(torch.from_numpy, episode)
    lengths = torch.full((num,), frames.shape[1])
    return Episodes(frames.flatten(0, 1), actions.flatten(0, 1), lengths, states.flatten(0, 1))


def one_episode(stored: Episodes, e: int) -> Stored:
    """Frames [L, C, H, W], actions [L, A] and states [L, S] of episode e, for a writer."""
    rows = stored.rows(torch.tensor([e]))
    states = None if stored.states is None else stored.states[rows].numpy()
    return gather(stored.frames, rows).numpy(), stored.actions[rows].numpy(), states


def write_all(
    writer: HDF5Writer, found: Iterable[Stored], num: int, title: str, first: int = 0
) -> None:
    """Write episodes `first` to `num`, counted under a title."""
    with Progress(title, num, start=first, unit="episode") as bar:
        for episode in bar.over(found):
            writer.write(*episode)


def open_writer(settings: CollectSettings, origin: dict[str, str | int]) -> HDF5Writer:
    """A writer for the file of `data collect`: new, or behind the episodes that are there.

    The whole episodes of a killed writer's file are copied, and take its place.

    Raises: ValueError if the file to continue comes from somewhere else; OSError naming it.
    """
    path, compression = settings.out, settings.compression
    if not (settings.resume and path.exists()):
        return HDF5Writer(path, compression=compression, origin=origin)
    known = read_origin(path)
    for name, value in origin.items():
        if known.get(name) != value:
            rule = f"{name} must be {known.get(name)!r} as in the file, got {value!r}"
            raise ValueError(f"{path} cannot be continued: {rule}")
    with suppress(OSError):
        return HDF5Writer(path, append=True)
    with open_for_reading(path) as file:
        empty = not file["ep_len"][()].any()
    if empty:
        path.unlink()
        return HDF5Writer(path, compression=compression, origin=origin)
    stored = open_hdf5(path)
    copy = path.with_name(f"{path.name}.unfinished")
    copy.unlink(missing_ok=True)
    say(f"{path} was left by a killed writer: its {len(stored)} whole episodes are copied first")
    with HDF5Writer(copy, compression=compression, origin=known) as writer:
        write_all(writer, map(one_episode, repeat(stored), range(len(stored))), len(stored), "copy")
    copy.replace(path)
    return HDF5Writer(path, append=True)


def _blocks(first: int, num: int) -> Iterator[tuple[int, range]]:
    """Each block of episodes from `first` to `num`, and which of its own are meant."""
    for block in range(first // _TOGETHER, -(-num // _TOGETHER)):
        begin = block * _TOGETHER
        yield block, range(max(first - begin, 0), min(num - begin, _TOGETHER))


def one_stream(world: World, policy: str, bump: float) -> TypeGuard[TwoRoom | Maze]:
    """Whether walks share their random numbers: of Two-Room's expert, and a maze's that bumps."""
    disc = isinstance(world, TwoRoom) or (isinstance(world, Maze) and bump > 0)
    return disc and policy == "expert"


def _simulator(
    world: World, policy: str, num: int, length: int, seed: int, bump: float
) -> Callable[[int], tuple[Floats, Floats]]:
    """A function from the number of a block to its states [E, T + 1, S] and actions [E, T, A]."""
    if one_stream(world, policy, bump):
        walks = collect(world, num, length, seed, bump=bump)
        cuts = range(_TOGETHER, num, _TOGETHER)
        parts = np.split(walks.states, cuts), np.split(walks.actions, cuts)
        return lambda block: (parts[0][block], parts[1][block])

    def together(block: int) -> tuple[Floats, Floats]:
        # Always whole, whoever asks for how many of them.
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
