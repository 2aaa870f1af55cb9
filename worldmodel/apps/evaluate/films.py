"""Attempts in motion: where the agent is, where it should be, and what its plan expects to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldmodel.apps.charts import stack
from worldmodel.apps.evaluate.attempt import Outcome, attempt
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.planning import Imagined, PlannerPolicy
from worldmodel.apps.evaluate.policies import Policy
from worldmodel.apps.evaluate.results import seeds_of
from worldmodel.model import WorldModel
from worldmodel.worlds import World, open_world

__all__ = ["Film", "film_attempts", "nearest_frames"]

Floats = NDArray[np.float32]
_SIDE = 160
_INK, _GOOD, _BAD = "#2b3040", "#2f9e6f", "#c23b22"


class Film(NamedTuple):
    """Some attempts to be shown.

    Attributes:
        pairs: [E], which pairs of the manifest.
        outcome: of these pairs.
        goals: [E, S].
        expected: [decisions, E, S], state of the known frame nearest to where each plan leads;
            None of a policy that does not plan.
        steps: [decisions], raw step at which each was made.
    """

    pairs: NDArray[np.int64]
    outcome: Outcome
    goals: Floats
    expected: Floats | None
    steps: NDArray[np.int64]


def film_attempts(
    world: World,
    manifest: Manifest,
    policy: Policy,
    reached: NDArray[np.bool_],
    folder: Path,
    *,
    each: int = 3,
) -> dict[str, Path]:
    """Write `successes.gif` and `failures.gif`, of the first few pairs of either kind.

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
    film_of = _watcher(world, manifest, policy)
    display = open_world(manifest.env, image_size=_SIDE)
    written = {}
    for name, flags in (("successes", reached), ("failures", ~reached)):
        chosen = np.flatnonzero(flags)[:each]
        if len(chosen):
            written[name] = folder / f"{name}.gif"
            _write(film_of(chosen), display, written[name])
    return written


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


@torch.no_grad()
def _embed(model: WorldModel, world: World, states: Floats, device: torch.device) -> Tensor:
    parts = [
        model.encode(torch.from_numpy(world.draw(part))[:, None].to(device))[:, 0]
        for part in np.array_split(states, -(-len(states) // 64))
    ]
    return torch.cat(parts)


def _watcher(
    world: World, manifest: Manifest, policy: Policy
) -> Callable[[NDArray[np.int64]], Film]:
    """A function that makes the attempts at some pairs once more."""

    def outcome_of(chosen: NDArray[np.int64], policy: Policy) -> Outcome:
        pairs, seeds = manifest.pairs.take(chosen), seeds_of(manifest, 0)[chosen]
        return attempt(world, pairs, policy, budget=manifest.budget, seeds=seeds)

    if not isinstance(policy, PlannerPolicy):
        return lambda chosen: Film(
            chosen, outcome_of(chosen, policy), manifest.pairs.goals[chosen], None, np.zeros(1, int)
        )
    known = np.concatenate([manifest.pairs.starts, manifest.pairs.goals])
    bank = _embed(policy.model, world, known, policy.device)

    def watched(chosen: NDArray[np.int64]) -> Film:
        nearest: list[NDArray[np.int64]] = []
        watching = PlannerPolicy(
            policy.model,
            policy.scale,
            frameskip=policy.frameskip,
            planner=policy.planner,
            device=str(policy.device),
            on_plan=lambda imagined: nearest.append(nearest_frames(imagined, bank)),
        )
        outcome = outcome_of(chosen, watching)
        steps = np.arange(len(nearest)) * policy.frameskip * policy.planner.execute
        goals = manifest.pairs.goals[chosen]
        return Film(chosen, outcome, goals, known[np.stack(nearest)], steps)

    return watched


def _write(film: Film, display: World, path: Path) -> None:
    """One row a pair: now, goal and what is expected; a success stops where it arrives."""
    outcome, font = film.outcome, ImageFont.load_default(13)
    last = outcome.paths.shape[1] - 1
    if outcome.success.all():
        last = min(last, int(outcome.steps.max()) + 4)
    stop = np.where(outcome.success, outcome.steps, last)
    goals = _pictures(display, film.goals)
    expected = [_pictures(display, s) for s in (() if film.expected is None else film.expected)]
    wide = 3 if expected else 2
    sheets = []
    for t in range(last + 1):
        at = np.minimum(t, stop)
        now = _pictures(display, outcome.paths[np.arange(len(at)), at])
        decision = np.searchsorted(film.steps, at, side="right") - 1
        rows = []
        for e in range(len(at)):
            shown = [now[e], goals[e]] + ([expected[decision[e]][e]] if expected else [])
            row = Image.new("RGB", (wide * (_SIDE + 6) - 6, _SIDE + 20), "#ffffff")
            for place, picture in enumerate(shown):
                row.paste(picture, (place * (_SIDE + 6), 0))
            words, colour = f"pair {film.pairs[e]}, step {at[e]}", _INK
            if outcome.success[e] and at[e] == stop[e]:
                words, colour = f"pair {film.pairs[e]}, reached in {at[e]}", _GOOD
            elif t == last and not outcome.success[e]:
                words, colour = f"pair {film.pairs[e]}, not reached", _BAD
            draw = ImageDraw.Draw(row)
            titles = [(words, colour), ("goal", _INK), ("what the plan expects", _INK)][:wide]
            for place, (text, ink) in enumerate(titles):
                draw.text((place * (_SIDE + 6) + 2, _SIDE + 3), text, ink, font)
            rows.append(row)
        sheets.append(stack(rows, gap=6).quantize(96, dither=Image.Dither.NONE))
    _save(sheets, path)


def _pictures(world: World, states: Floats) -> list[Image.Image]:
    return [Image.fromarray(frame.transpose(1, 2, 0)) for frame in world.draw(states)]


def _save(sheets: Sequence[Image.Image], path: Path) -> None:
    """An endless GIF that rests on its last picture; a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    duration = [90] * (len(sheets) - 1) + [1500]
    sheets[0].save(
        temporary, "GIF", save_all=True, append_images=sheets[1:], duration=duration, loop=0
    )
    temporary.replace(path)
