"""The attempts of a trial, batch by batch, and the result of them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planners.noise import fold_in
from worldmodel.apps.evaluate.attempt import attempt
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import Policy
from worldmodel.apps.evaluate.result import (
    PLANNED,
    Distances,
    Key,
    PlanningSeconds,
    Result,
    Tried,
)
from worldmodel.apps.evaluate.trial import Trial, prepare
from worldmodel.apps.progress import Progress
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import TrialSettings
from worldmodel.study import proportion
from worldmodel.worlds import World

__all__ = ["evaluate", "result_of", "seeds_of", "tries"]


def evaluate(
    who: Run | Policy,
    manifest: Manifest,
    settings: TrialSettings,
    *,
    world: World | None = None,
    title: str = "evaluate",
) -> Result:
    """Try a run or a policy on a manifest, beside chance, idleness and the scripted expert.

    Args:
        who: Run, whose model stands behind the planner of `settings`; or any Policy.
        manifest: Manifest.
        settings: TrialSettings.
        world: of the manifest; None opens it.
        title: of the progress.
    Returns: Result.
    Raises: as `prepare`.
    """
    trial = prepare(who, manifest, settings, world)
    tried: list[Tried] = []
    with Progress(title, len(trial.keys), unit="attempt") as bar:
        for some in tries(trial, trial.keys):
            tried += some
            bar.update(len(some))
    return result_of(trial, tried)


def tries(trial: Trial, keys: Iterable[Key]) -> Iterator[list[Tried]]:
    """What comes of each batch of `keys`, which stand in the order of `trial.keys`.

    Neither the size of a batch nor the order of the pairs changes an outcome.
    """
    manifest, size = trial.manifest, trial.settings.batch_size
    for (name, repeat), group in groupby(keys, lambda key: key[:2]):
        pairs = np.asarray([pair for _, _, pair in group])
        for some in np.split(pairs, range(size, len(pairs), size)):
            found = attempt(
                trial.world, manifest.pairs.take(some), trial.policies[name],
                budget=manifest.budget, seeds=seeds_of(manifest, repeat)[some],
            )  # fmt: skip
            yield [
                Tried(
                    pair=pair, repeat=repeat, policy=name,
                    success=bool(found.success[n]), success_at_end=bool(found.at_end[n]),
                    steps=int(found.steps[n]) if found.success[n] else None,
                    final_distance=float(found.distance[n]),
                    together=0 if n else len(some), seconds=() if n else found.seconds,
                )
                for n, pair in enumerate(some.tolist())
            ]  # fmt: skip


def seeds_of(manifest: Manifest, repeat: int) -> NDArray[np.int64]:
    """[N], not negative; a function of the pair's own seed and of which repeat it is."""
    mixed = fold_in(torch.from_numpy(manifest.seeds), repeat)
    out: NDArray[np.int64] = (mixed & (2**63 - 1)).numpy()
    return out


def result_of(trial: Trial, tried: Sequence[Tried]) -> Result:
    """The result, of all keys of a trial in whatever order."""
    manifest, pairs = trial.manifest, len(trial.manifest.seeds)
    planned = sorted((one for one in tried if one.policy == PLANNED), key=lambda one: one.key)
    by_repeat = np.asarray([one.success for one in planned]).reshape(-1, pairs).mean(1)
    steps = [one.steps for one in planned if one.steps is not None]
    middle, far = _quantiles([one.final_distance for one in planned])
    seconds = [s for one in planned for s in one.seconds]
    median, p95 = _quantiles(seconds)
    together = max(one.together for one in planned)
    return Result(
        env=manifest.env, protocol=trial.settings.protocol, manifest_protocol=manifest.protocol,
        manifest_pairs=trial.manifest_pairs, manifest_hash=manifest.sha256,
        criterion=manifest.criterion, offset=manifest.offset, budget=manifest.budget,
        pairs_dropped_as_solved=manifest.dropped_as_solved, fingerprint=trial.fingerprint,
        **_rates(tried, pairs),
        success_rate_by_repeat=tuple(round(float(rate), 4) for rate in by_repeat),
        pairs=pairs, repeats=len(by_repeat),
        mean_steps_to_goal=round(float(np.mean(steps)), 2) if steps else None,
        final_distance=Distances(median=round(middle, 4), p95=round(far, 4)),
        planning_seconds=PlanningSeconds(
            median=round(median, 5), p95=round(p95, 5), pairs_per_decision=together,
            median_per_pair=round(median / together, 6), decisions=len(seconds),
        ),
        outcomes=tuple(one.rounded() for one in planned),
    )  # fmt: skip


def _rates(tried: Sequence[Tried], pairs: int) -> dict[str, Any]:
    """Shares of successes by their names in a result; repeats of a pair narrow no interval."""
    found: dict[str, Any] = {"expert_success_rate": None, "expert_success_interval": None}
    for policy in {one.policy for one in tried}:
        name = "" if policy == PLANNED else f"{policy}_"
        mine = [one for one in tried if one.policy == policy]
        for kind in ("success", "success_at_end"):
            successes, end = sum(getattr(one, kind) for one in mine), kind.removeprefix("success")
            found[f"{name}success_rate{end}"] = round(successes / len(mine), 4)
            if not (name and end):
                interval = proportion(successes * pairs / len(mine), pairs)[1:3]
                found[f"{name}success_interval{end}"] = tuple(round(b, 4) for b in interval)
    return found


def _quantiles(values: list[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    median, high = np.quantile(values, [0.5, 0.95])
    return float(median), float(high)
