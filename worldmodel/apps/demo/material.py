"""What a demo learns from and is tried on: episodes in memory, and the pairs of a manifest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps.data.collecting import drawn, in_memory
from worldmodel.apps.evaluate.manifest import Manifest, make_manifest
from worldmodel.apps.progress import Progress
from worldmodel.apps.settings import BUILT_IN, DemoSettings
from worldmodel.data import Episodes, episode_digests
from worldmodel.worlds import TwoRoom, Walks

__all__ = ["DemoMaterial", "collected", "gather", "seed_for", "walks_of"]

_PURPOSES = ("train", "held out", "pairs", "random policy", "planner", "probe")


class DemoMaterial(NamedTuple):
    """What a demo learns from and is tried on."""

    world: TwoRoom  #: at the size the model sees
    seen: Episodes  #: of training; their walkers bump into the wall now and then
    unseen: Episodes  #: others, for probes, starts and goals; their walkers never do
    manifest: Manifest  #: pairs from the unseen episodes

    @property
    def crosses(self) -> NDArray[np.bool_]:
        """[N], which pairs lie across the wall."""
        starts, goals = (self.world.room(s) for s in (self.manifest.starts, self.manifest.goals))
        return np.not_equal(starts, goals)


def seed_for(settings: DemoSettings, purpose: str) -> int:
    """One seed per purpose: no stream is used twice, and no demo shares one with the next."""
    return (settings.seed * len(_PURPOSES) + _PURPOSES.index(purpose)) % 2**63


def collected(settings: DemoSettings, num: int, seed: int, *, bump: float = 0.0) -> Episodes:
    """Episodes of Two-Room's noisy expert, as `data collect` writes them, in memory."""
    world = TwoRoom(settings.image_size)
    found = drawn(world, "expert", num, length=settings.length, seed=seed, bump=bump)
    with Progress("collect", num, unit="episode") as bar:
        return in_memory(bar.over(found), num)


def gather(settings: DemoSettings) -> DemoMaterial:
    """Collect the episodes, draw them, and choose the pairs.

    Raises: ValueError if the episodes are too short for the pairs.
    """
    world = TwoRoom(settings.image_size)
    seen = collected(settings, settings.episodes, seed_for(settings, "train"), bump=settings.bump)
    unseen = collected(settings, settings.held_out, seed_for(settings, "held out"))
    manifest = make_manifest(
        world, list(walks_of(unseen).states), episode_digests(unseen), num=settings.pairs,
        offset=settings.offset, budget=settings.budget, seed=seed_for(settings, "pairs"),
        source=f"{settings.held_out} episodes that the demo collected", env=BUILT_IN,
    )  # fmt: skip
    return DemoMaterial(world, seen, unseen, manifest)


def walks_of(episodes: Episodes) -> Walks:
    """Episodes of equal length as Walks, without their frames."""
    assert episodes.states is not None
    length = int(episodes.lengths[0])
    states = episodes.states.unflatten(0, (-1, length))
    actions = episodes.actions.unflatten(0, (-1, length))[:, :-1]
    return Walks(states.numpy(), actions.contiguous().numpy())
