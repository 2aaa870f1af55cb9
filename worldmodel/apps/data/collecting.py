"""Collect episodes in any world, going on where an earlier run stopped, and draw them anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps.progress import say
from worldmodel.data import HDF5Writer, open_hdf5
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.worlds import TwoRoom, World, collect
from worldmodel.worlds.behaviours import make_behaviour
from worldmodel.worlds.coverage import coverage

__all__ = ["describe_coverage", "episodes", "open_writer", "origin_of", "tell_other_versions"]

Floats = NDArray[np.float32]

_TOGETHER = 32  # episodes simulated side by side; part of what a seed means


class _Starts(Protocol):
    def sample_states(self, rng: np.random.Generator, num: int) -> Floats: ...


def origin_of(world: World, policy: str, *, length: int, seed: int) -> dict[str, str | int]:
    """What a collected file says about itself; the same words are the same episodes."""
    return {
        "world": world.name,
        "policy": policy,
        "length": length,
        "seed": seed,
        "image_size": world.image_size,
        "versions": json.dumps(world.versions(), sort_keys=True),
    }


def open_writer(
    path: Path, origin: dict[str, str | int], *, resume: bool, compression: str | None
) -> HDF5Writer:
    """A writer for `path`: new, or behind the episodes that are there.

    Raises: ValueError if the file to go on with comes from somewhere else; FileExistsError if it
        exists and `resume` is not set.
    """
    if not (resume and path.exists()):
        return HDF5Writer(path, compression=compression, origin=origin)
    known = read_origin(path)
    for name, value in origin.items():
        if known.get(name) != value:
            raise ValueError(
                f"{path} cannot be gone on with: {name} must be {known.get(name)!r} as in the "
                f"file, got {value!r}"
            )
    return HDF5Writer(path, append=True)


def episodes(
    world: World,
    policy: str,
    num: int,
    *,
    length: int,
    seed: int,
    first: int = 0,
    bump: float = 0.0,
) -> Iterator[tuple[Floats, Floats]]:
    """Episodes `first` to `num`: states [length + 1, S] and actions [length, A] of each.

    Episode e is the same whatever `first` and `num` are, but for Two-Room's expert, all of whose
    walks share one stream of random numbers: there it depends on `num`. `bump` is that expert's.
    """
    if isinstance(world, TwoRoom) and policy == "expert":
        walks = collect(world, num, length, seed, bump=bump)
        yield from zip(walks.states[first:], walks.actions[first:], strict=True)
        return
    for block in range(first // _TOGETHER, -(-num // _TOGETHER)):
        states, actions = _together(world, policy, length, seed, block)
        begin = block * _TOGETHER
        for e in range(max(first - begin, 0), min(num - begin, _TOGETHER)):
            yield states[e], actions[e]


def describe_coverage(world: World, path: Path, window: int = 25) -> list[str]:
    """Lines that tell what the file's episodes cover; none if they are too short to tell."""
    stored = open_hdf5(path)
    if stored.states is None or int(stored.lengths.max()) <= window:
        return []
    states = [part.numpy() for part in stored.states.split(stored.lengths.tolist())]
    found = coverage(world, states, window)
    lines = [
        f"  {grid.name:<18} {grid.cells} of 256 cells visited; {grid.moved:.3g} apart after "
        f"{window} steps (median)"
        for grid in found.grids
    ]
    share = f"{100 * found.solved:.1f} %"
    return [*lines, f"  solved already     {share} of pairs {window} steps apart"]


def _together(
    world: World, policy: str, length: int, seed: int, block: int
) -> tuple[Floats, Floats]:
    """One block of episodes, always whole, whoever asks for how many of them."""
    rng = np.random.default_rng([seed, block])
    starts = cast(_Starts, world).sample_states(rng, _TOGETHER)
    behaviour = make_behaviour(policy, world, _TOGETHER, rng)
    session = world.start(starts)
    states, actions = [starts], []
    for _ in range(length):
        actions.append(behaviour.act(states[-1]))
        states.append(session.step(actions[-1]))
    session.close()
    return np.stack(states, axis=1), np.stack(actions, axis=1)


def tell_other_versions(world: World, origin: Mapping[str, str | int]) -> None:
    """Say which packages differ from those that simulated what is about to be drawn."""
    then, now = json.loads(str(origin.get("versions", "{}"))), world.versions()
    changed = [f"{k} {then[k]} → {now[k]}" for k in sorted(then) if now.get(k, then[k]) != then[k]]
    if changed:
        say(f"drawn by other versions than those that simulated: {', '.join(changed)}")
