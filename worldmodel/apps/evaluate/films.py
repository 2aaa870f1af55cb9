"""Attempts once more, to be watched: what each plan expects to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.apps.evaluate.attempt import attempt
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.planning import Imagined, PlannerPolicy
from worldmodel.apps.evaluate.policies import Policy
from worldmodel.apps.evaluate.running import seeds_of
from worldmodel.apps.report import Film, film_suffix, write_film
from worldmodel.study import embed
from worldmodel.worlds import World, open_world

__all__ = ["film_attempts", "film_of", "nearest_frames"]

_SIDE = 160


def film_attempts(
    world: World,
    manifest: Manifest,
    policy: Policy,
    reached: NDArray[np.bool_],
    folder: Path,
    *,
    each: int = 3,
) -> dict[str, Path]:
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
    kinds = {
        "successes": np.flatnonzero(reached)[:each],
        "failures": np.flatnonzero(~reached)[:each],
    }
    display = open_world(manifest.env, image_size=_SIDE)
    film = film_of(world, manifest, policy, np.concatenate(list(kinds.values())))
    written, first = {}, 0
    for name, chosen in kinds.items():
        if len(chosen):
            written[name] = folder / f"{name}{film_suffix()}"
            some = slice(first, first + len(chosen))
            write_film(film.take(some), display, written[name])
        first += len(chosen)
    return written


def film_of(world: World, manifest: Manifest, policy: Policy, chosen: NDArray[np.int64]) -> Film:
    """Try some pairs once more, and note what each plan expects.

    Args:
        world: at the size the model sees.
        manifest: Manifest.
        policy: who acts.
        chosen: [E], which pairs.
    Returns: Film.
    """
    expected, decided, seen = None, None, policy
    nearest: list[NDArray[np.int64]] = []
    known = np.concatenate([manifest.pairs.starts, manifest.pairs.goals])
    if isinstance(policy, PlannerPolicy):
        bank = embed(policy.model, torch.from_numpy(world.draw(known)))
        seen = replace(
            policy, on_plan=lambda imagined: nearest.append(nearest_frames(imagined, bank))
        )
    pairs, seeds = manifest.pairs.take(chosen), seeds_of(manifest, 0)[chosen]
    outcome = attempt(world, pairs, seen, budget=manifest.budget, seeds=seeds)
    if isinstance(policy, PlannerPolicy):
        expected = known[np.stack(nearest)]
        decided = np.arange(len(nearest)) * policy.frameskip * policy.planner.execute
    names = [f"pair {pair}," for pair in chosen]
    return Film(
        names, outcome.paths, pairs.goals, outcome.success, outcome.steps, expected, decided
    )


def nearest_frames(imagined: Imagined, bank: Tensor) -> NDArray[np.int64]:
    """Which known frame looks most like what each plan is judged by.

    That is its end, or where it comes nearest to the goal.

    Args:
        imagined: of N plans.
        bank: [M, D], embeddings of known frames.
    Returns: [N], indices into `bank`.
    """
    z = imagined.z[:, -1]
    if not imagined.last:
        step = (imagined.z - imagined.goal[:, None]).square().sum(-1).argmin(1)
        z = imagined.z[torch.arange(len(step)), step]
    nearest: NDArray[np.int64] = torch.cdist(z, bank).argmin(1).cpu().numpy()
    return nearest
