"""From a policy and a manifest to a result one can defend: rates, floors, intervals, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from planners.noise import fold_in
from worldmodel.apps.evaluate.attempt import Outcome, attempt
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import ExpertPolicy, IdlePolicy, Policy, RandomPolicy
from worldmodel.study import proportion
from worldmodel.worlds import World

__all__ = ["Trials", "floors", "outcomes", "summary", "try_policy"]

Report = Callable[[int], None]


class Trials(NamedTuple):
    """What a policy made of N pairs, K times each.

    Attributes:
        repeats: K outcomes of all N pairs, each with seeds of its own.
        batch_size: pairs that were decided for together.
    """

    repeats: tuple[Outcome, ...]
    batch_size: int

    @property
    def success(self) -> NDArray[np.bool_]:
        """[K, N], at any step."""
        return np.stack([one.success for one in self.repeats])

    @property
    def at_end(self) -> NDArray[np.bool_]:
        """[K, N], after the last step."""
        return np.stack([one.at_end for one in self.repeats])


def try_policy(
    world: World,
    manifest: Manifest,
    policy: Policy,
    *,
    repeats: int = 1,
    batch_size: int = 64,
    on_pairs: Report = lambda _: None,
) -> Trials:
    """Try all pairs of a manifest, `batch_size` at a time; neither it nor the order matters.

    Args:
        world: of the manifest.
        manifest: pairs, budget and seeds.
        policy: who acts.
        repeats: K times, with other seeds each time.
        batch_size: pairs side by side.
        on_pairs: called with n after n more pairs.
    Returns: Trials.
    """
    rounds = []
    for repeat in range(repeats):
        seeds = seeds_of(manifest, repeat)
        parts = []
        for first in range(0, len(seeds), batch_size):
            some = slice(first, first + batch_size)
            pairs = manifest.pairs.take(some)
            parts.append(attempt(world, pairs, policy, budget=manifest.budget, seeds=seeds[some]))
            on_pairs(len(pairs.starts))
        rounds.append(_joined(parts))
    return Trials(tuple(rounds), min(batch_size, len(manifest.seeds)))


def seeds_of(manifest: Manifest, repeat: int) -> NDArray[np.int64]:
    """[N], not negative; a function of the pair's own seed and of which repeat it is."""
    mixed = fold_in(torch.from_numpy(manifest.seeds), repeat)
    out: NDArray[np.int64] = (mixed & (2**63 - 1)).numpy()
    return out


def floors(world: World, manifest: Manifest, *, repeats: int, batch_size: int) -> dict[str, Any]:
    """What random actions, none at all and the scripted expert make of the same pairs.

    A score says something only above the first two; the third says that the pairs can be solved.
    """
    policies: dict[str, Policy] = {"random": RandomPolicy(), "noop": IdlePolicy()}
    if world.expert(manifest.pairs.goals[:1]) is not None:
        policies["expert"] = ExpertPolicy()
    found: dict[str, Any] = {"expert_success_rate": None, "expert_success_interval": None}
    for name, policy in policies.items():
        # Only random actions differ from one repeat to the next.
        times = repeats if name == "random" else 1
        trials = try_policy(world, manifest, policy, repeats=times, batch_size=batch_size)
        rate, interval = _rate(trials.success)
        found[f"{name}_success_rate"], found[f"{name}_success_interval"] = rate, interval
        found[f"{name}_success_rate_at_end"] = _rate(trials.at_end)[0]
    return found


def summary(trials: Trials) -> dict[str, Any]:
    """Rates, distances and seconds of a policy."""
    rate, interval = _rate(trials.success)
    end, end_interval = _rate(trials.at_end)
    distance = np.stack([one.distance for one in trials.repeats])
    steps = np.stack([one.steps for one in trials.repeats])[trials.success]
    seconds = np.concatenate([one.seconds for one in trials.repeats])
    median, p95 = np.quantile(seconds, [0.5, 0.95])
    return {
        "success_rate": rate,
        "success_interval": interval,
        "success_rate_at_end": end,
        "success_interval_at_end": end_interval,
        "success_rate_by_repeat": [round(float(row.mean()), 4) for row in trials.success],
        "pairs": trials.success.shape[1],
        "repeats": trials.success.shape[0],
        "mean_steps_to_goal": round(float(steps.mean()), 2) if len(steps) else None,
        "final_distance": {
            name: round(float(np.quantile(distance, q)), 4)
            for name, q in (("median", 0.5), ("p95", 0.95))
        },
        "planning_seconds": {
            "median": round(float(median), 5),
            "p95": round(float(p95), 5),
            "pairs_per_decision": trials.batch_size,
            "median_per_pair": round(float(median) / trials.batch_size, 6),
            "decisions": len(seconds),
        },
    }


def outcomes(trials: Trials) -> list[dict[str, Any]]:
    """One record per pair and repeat."""
    return [
        {
            "pair": n,
            "repeat": k,
            "success": bool(one.success[n]),
            "success_at_end": bool(one.at_end[n]),
            "steps": int(one.steps[n]) if one.success[n] else None,
            "final_distance": round(float(one.distance[n]), 4),
        }
        for k, one in enumerate(trials.repeats)
        for n in range(len(one.success))
    ]


def _joined(parts: Sequence[Outcome]) -> Outcome:
    """Outcomes of one batch after the other as one."""
    return Outcome(
        success=np.concatenate([part.success for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
        paths=np.concatenate([part.paths for part in parts]),
        at_end=np.concatenate([part.at_end for part in parts]),
        distance=np.concatenate([part.distance for part in parts]),
        seconds=tuple(s for part in parts for s in part.seconds),
    )


def _rate(success: NDArray[np.bool_]) -> tuple[float, list[float]]:
    """Share of [K, N] and its interval; repeats of a pair are no new pairs, so N counts."""
    rate, num = float(success.mean()), success.shape[1]
    found = proportion(rate * num, num)
    return round(rate, 4), [round(found.low, 4), round(found.high, 4)]
