"""What came of a trial: a record for every pair, and the result one can defend, made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from worldmodel._files import write_atomically
from worldmodel.apps.parsing import Record, read_record
from worldmodel.apps.settings import Count, Natural, Protocol

__all__ = [
    "Distances",
    "Fingerprint",
    "Key",
    "PlanningSeconds",
    "Result",
    "Tried",
    "read_result",
    "write_result",
]

PLANNED = "planned"
Key = tuple[str, int, int]
"""Which policy, which repeat, which pair."""
Rate = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Rate, Rate]
Seconds = Annotated[float, Field(ge=0)]


class Tried(Record):
    """What became of one pair.

    Attributes:
        pair: its number in the manifest.
        repeat: which of the times it was tried.
        success: the goal reached after some step of the budget.
        success_at_end: after the last step.
        steps: the first such step; None if there was none.
        final_distance: after the last step, in the unit of the world's criterion.
        policy: who tried it: "planned", "random", "noop" or "expert".
        together: pairs that were decided for side by side; 0 on all but the first of them.
        seconds: of each of their decisions, on the first of them.
    """

    pair: Natural
    repeat: Natural
    success: bool
    success_at_end: bool
    steps: Count | None
    final_distance: float
    policy: str = PLANNED
    together: Natural = 0
    seconds: tuple[Seconds, ...] = ()

    @property
    def key(self) -> Key:
        """Policy, repeat and pair."""
        return self.policy, self.repeat, self.pair

    def rounded(self) -> Tried:
        """As results hold it."""
        return self.model_copy(update={"final_distance": round(self.final_distance, 4)})


class Fingerprint(Record):
    """Whose a result is: model, search, versions, machine; None where there is no model."""

    run: str
    objective: str | None
    weights: str | None
    planner: dict[str, str | int | float | bool | None] | str
    rollouts_per_decision: Count | None
    batch_size: Count
    frameskip: Count | None
    image_size: Count
    world_versions: dict[str, str]
    manifest_versions: dict[str, str]
    versions: dict[str, str]
    commit: str | None
    machine: str


class Distances(Record):
    """After the last step, in the unit of the criterion."""

    median: float
    p95: float


class PlanningSeconds(Record):
    """Of the decisions, drawing the frames left out."""

    median: Seconds
    p95: Seconds
    pairs_per_decision: Count
    median_per_pair: Seconds
    decisions: Count


class Result(Record):
    """What `result.json` holds; intervals are Wilson's at 95 %, and repeats of a pair are one."""

    env: str
    protocol: Protocol
    manifest_protocol: Protocol
    manifest_pairs: Count
    criterion: str
    offset: Count
    budget: Count
    pairs_dropped_as_solved: Natural
    success_rate: Rate
    success_interval: Interval
    success_rate_at_end: Rate
    success_interval_at_end: Interval
    success_rate_by_repeat: tuple[Rate, ...]
    pairs: Count
    repeats: Count
    mean_steps_to_goal: float | None
    final_distance: Distances
    planning_seconds: PlanningSeconds
    random_success_rate: Rate
    random_success_interval: Interval
    random_success_rate_at_end: Rate
    noop_success_rate: Rate
    noop_success_interval: Interval
    noop_success_rate_at_end: Rate
    expert_success_rate: Rate | None = None
    expert_success_interval: Interval | None = None
    expert_success_rate_at_end: Rate | None = None
    manifest_hash: str
    fingerprint: Fingerprint
    outcomes: Annotated[tuple[Tried, ...], Field(min_length=1)]

    @property
    def reached(self) -> NDArray[np.bool_]:
        """[N], success when each pair was first tried."""
        return np.asarray([one.success for one in self.outcomes if one.repeat == 0])


def read_result(path: str | Path) -> Result:
    """A `result.json` that `worldmodel evaluate` wrote, or the folder it lies in.

    Raises: FileNotFoundError if there is none; ValueError if it is something else.
    """
    file = Path(path) / "result.json" if Path(path).is_dir() else Path(path)
    return read_record(file, Result, "result")


def write_result(result: Result, path: Path) -> None:
    """Write it, one outcome a line; the file appears whole or not at all."""
    kept = {"policy", "together", "seconds"}
    content = result.model_dump(exclude_unset=True, exclude={"outcomes": {"__all__": kept}})
    lines = ",\n".join("    " + json.dumps(record) for record in content.pop("outcomes"))
    text = json.dumps(content, indent=2).removesuffix("\n}")
    write_atomically(path, f'{text},\n  "outcomes": [\n{lines}\n  ]\n}}\n'.encode())
