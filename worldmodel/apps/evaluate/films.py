"""Attempts once more, to be watched: what each plan expects to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import PlannerPolicy, Policy
from worldmodel.apps.evaluate.trial import attempt, seeds_of
from worldmodel.apps.report import Film, film_suffix, write_film
from worldmodel.study import embed
from worldmodel.worlds import World, open_world

__all__ = ["film_attempts", "film_of", "nearest_frames"]

_SIDE = 160


def film_attempts(
    world: World, manifest: Manifest, policy: Policy, reached: NDArray[np.bool_], folder: Path, *,
    each: int = 3,
) -> dict[str, Path]:  # fmt: skip
    """Write films of the first few successes and failures, MP4 where PyAV is installed, else GIF.

    The attempts are made once more, which gives the same outcomes, to watch what is planned.

    Args:
        world: at the size the model sees.
        manifest: as it was evaluated.
        policy: as it was evaluated; what it expects is shown if it is a PlannerPolicy.
        reached: [N], what came out when each pair was first tried.
        folder: to write into.
        each: pairs per film, at most.
    Returns: the files, by "successes" and "failures"; a kind that never happened has none.
    """
    kinds = {"successes": reached, "failures": ~reached}
    chosen = {name: np.flatnonzero(flags)[:each] for name, flags in kinds.items()}
    written: dict[str, Path] = {}
    if not any(map(len, chosen.values())):
        return written
    display = open_world(manifest.env, image_size=_SIDE)
    film, first = film_of(world, manifest, policy, np.concatenate(list(chosen.values()))), 0
    for name, pairs in chosen.items():
        if len(pairs):
            written[name] = folder / f"{name}{film_suffix()}"
            write_film(film.take(slice(first, first + len(pairs))), display, written[name])
        first += len(pairs)
    return written


def film_of(world: World, manifest: Manifest, policy: Policy, chosen: NDArray[np.int64]) -> Film:
    """Try the pairs `chosen` [E] once more, and note what each plan expects."""
    seen, expected, decided = policy, None, None
    nearest: list[NDArray[np.int64]] = []
    known = np.concatenate([manifest.starts, manifest.goals])
    if isinstance(policy, PlannerPolicy):
        bank, last = embed(policy.model, torch.from_numpy(world.draw(known))), policy.planner.cost
        seen = replace(
            policy,
            on_plan=lambda z, goal: nearest.append(nearest_frames(z, goal, bank, last == "last")),
        )
    pairs, seeds = manifest.take(chosen), seeds_of(manifest, 0)[chosen]
    outcome = attempt(world, pairs, seen, budget=manifest.budget, seeds=seeds)
    if isinstance(policy, PlannerPolicy):
        expected = known[np.stack(nearest)]
        decided = np.arange(len(nearest)) * policy.frameskip * policy.planner.execute
    names, found = [f"pair {pair}," for pair in chosen], outcome
    return Film(names, found.paths, pairs.goals, found.success, found.steps, expected, decided)


def nearest_frames(z: Tensor, goal: Tensor, bank: Tensor, last: bool) -> NDArray[np.int64]:
    """Which known frame looks most like what each plan is judged by.

    Args:
        z: [N, H, D], what N plans expect.
        goal: [N, D].
        bank: [M, D], embeddings of known frames.
        last: whether plans are judged by their end, or where they come nearest to the goal.
    Returns: [N], indices into `bank`.
    """
    step = (z - goal[:, None]).square().sum(-1).argmin(1)
    judged = z[:, -1] if last else z[torch.arange(len(step)), step]
    nearest: NDArray[np.int64] = torch.cdist(judged, bank).argmin(1).cpu().numpy()
    return nearest
