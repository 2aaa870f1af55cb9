"""Results of evaluations: a record for every attempt, the rates, and `worldmodel compare`."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from worldmodel._files import write_atomically
from worldmodel.apps.folder import check_new_file, write_json
from worldmodel.apps.parsing import Record, parse_record, read_record
from worldmodel.apps.progress import say
from worldmodel.apps.report import render
from worldmodel.apps.settings import CompareSettings, Count, Natural, Protocol
from worldmodel.study import Estimate, bootstrap, proportion, sign_test

PLANNED = "planned"
_POWER = 1.43  # (1.96 + 0.84) / 1.96: half an interval times this is detected with 80 % power
Key = tuple[str, int, int]
"""Policy, repeat, pair."""
Rate = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Rate, Rate]
Seconds = Annotated[float, Field(ge=0)]


class Tried(Record):
    """The outcome of one attempt on one pair."""

    pair: Natural  #: its number in the manifest
    repeat: Natural  #: number of the attempt on this pair, from 0
    success: bool  #: whether the goal was reached at any step
    success_at_end: bool  #: whether it was reached after the last step
    steps: Count | None  #: the first such step
    final_distance: float  #: after the last step, in the unit of the world's criterion
    roughness: float | None = None  #: mean squared difference of successive actions
    by_rule: dict[str, tuple[bool, bool]] = Field({})  #: success, and at the end, by other rules
    policy: str = PLANNED  #: "planned" (the evaluated one), "random", "noop" or "expert"
    together: Natural = 0  #: pairs in its batch, on the first of them; 0 on the others
    seconds: tuple[Seconds, ...] = ()  #: of each decision of the batch, on the first of them

    @property
    def key(self) -> Key:
        """Policy, repeat and pair."""
        return self.policy, self.repeat, self.pair


class Fingerprint(Record):
    """Source of a result: model, planner, versions, machine; None if there is no model."""

    run: str
    objective: str | None
    weights: str | None
    planner: dict[str, str | int | float | bool | None] | str
    rollouts_per_decision: Natural | None
    batch_size: Count
    frameskip: Count | None
    image_size: Count
    world_versions: dict[str, str]
    manifest_versions: dict[str, str]
    versions: dict[str, str]
    commit: str | None
    machine: str


class Distances(Record):
    """Distances after the last step, in the unit of the criterion."""

    median: float
    p95: float


class PlanningSeconds(Record):
    """Seconds of the decisions, without drawing frames."""

    median: Seconds
    p95: Seconds
    pairs_per_decision: Count
    median_per_pair: Seconds
    decisions: Count


class Judged(Record):
    """The same attempts under another rule of success."""

    criterion: str
    success_rate: Rate
    success_rate_at_end: Rate


class Result(Record):
    """What `result.json` holds.

    Intervals are 95 %, over episodes; repeats of a pair are averaged (`rate_by_episode`).
    """

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
    median_steps_to_goal: float | None = None
    progress_to_goal: float | None = None  #: median of 1 − final distance / distance at the start
    action_roughness: float | None = None  #: mean squared difference of successive actions
    by_rule: dict[str, Judged] = Field({})  #: rates by the world's other rules
    pair_episodes: tuple[Natural, ...] = ()  #: [pairs], index of each pair's source episode
    clear_reports: tuple[float, float | None] | None = None  #: rates of LeWM and random, v0.5
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
        """[N], success of the first attempt on each pair."""
        return np.asarray([one.success for one in self.outcomes if one.repeat == 0])


def read_result(path: str | Path) -> Result:
    """Read a `result.json`, or the one in a folder; FileNotFoundError or ValueError."""
    file = Path(path) / "result.json" if Path(path).is_dir() else Path(path)
    return read_record(file, Result, "result")


def shares_of(tried: Sequence[Tried], kind: str) -> dict[int, float]:
    """By pair, in order, the share of its attempts that succeeded; `kind` is Tried's field."""
    flags = defaultdict(list)
    for one in sorted(tried, key=lambda one: one.pair):
        flags[one.pair].append(bool(getattr(one, kind)))
    return {pair: sum(some) / len(some) for pair, some in flags.items()}


def rate_by_episode(shares: NDArray[np.float64], episodes: NDArray[np.int64]) -> Estimate:
    """Mean success of pairs [N], with an interval over their episodes [N].

    It is Wilson's if no two pairs share an episode, or all are equal; else an episode bootstrap.
    """
    known, which = np.unique(episodes, return_inverse=True)
    sums = np.stack([np.bincount(which, shares), np.bincount(which)], axis=1)
    rate, num = float(shares.mean()), len(known)
    if num == len(shares) or num < 2 or rate in (0, 1):
        return proportion(rate * num, num)
    return bootstrap(torch.from_numpy(sums), lambda total: total[..., 0] / total[..., 1])


def write_result(result: Result, path: Path) -> None:
    """Write a result, one outcome per line; the file appears whole or not at all."""
    kept = {"policy", "together", "seconds", "by_rule"}
    content = result.model_dump(exclude_unset=True, exclude={"outcomes": {"__all__": kept}})
    lines = ",\n".join("    " + json.dumps(record) for record in content.pop("outcomes"))
    text = json.dumps(content, indent=2).removesuffix("\n}")
    write_atomically(path, f'{text},\n  "outcomes": [\n{lines}\n  ]\n}}\n'.encode())


class Mark(Record):
    """What a log belongs to: digests of the manifest and of the model's weights."""

    manifest: str
    weights: str | None


class Log:
    """Outcomes on disk during an evaluation: one line per attempt, only appended.

    Each rank has its own file. Its first line is the mark; a last line that a kill cut off is
    dropped. `tried` holds all outcomes by key, also those of other ranks and earlier commands.

    Raises: ValueError if a file is damaged, or belongs to another evaluation than `mark` says.
    """

    def __init__(self, folder: Path, mark: Mark, rank: int = 0) -> None:
        self.path, self.mark = folder / f"outcomes-{rank}.jsonl", mark
        self.tried: dict[Key, Tried] = {}
        for path in sorted(folder.glob("outcomes-*.jsonl")):
            complaint = f"{path} is damaged, remove it to try its pairs again"
            if path.is_symlink():
                raise ValueError(f"{complaint}: it is a link")
            *lines, rest = path.read_bytes().split(b"\n")
            if rest and path == self.path:
                os.truncate(path, path.stat().st_size - len(rest))
            for found in [parse_record(line, Mark, complaint) for line in lines[:1]]:
                if other := [name for name, value in mark if getattr(found, name) != value]:
                    raise ValueError(
                        f"--out must not hold another evaluation yet, {folder} has other {other[0]}"
                    )
            some = [parse_record(line, Tried, complaint) for line in lines[1:]]
            self.tried |= {one.key: one for one in some}

    def write(self, some: Sequence[Tried]) -> None:
        """Append outcomes; they survive the end of the process."""
        try:
            with self.path.open("ab") as file:
                records = [self.mark, *some] if file.tell() == 0 else some
                file.write(b"".join(one.model_dump_json().encode() + b"\n" for one in records))
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error.strerror}") from error
        self.tried |= {one.key: one for one in some}


class Difference(Record):
    """Two rates on the same pairs, their difference, and the exact test's p-value."""

    a: float  #: mean over pairs and runs
    b: float
    difference: float
    pairs: int
    only_a_better: int
    only_b_better: int
    p_value: float  #: of the sign test over episodes, for these runs
    episodes: int
    a_runs: tuple[float, ...]  #: the rate of each training seed
    b_runs: tuple[float, ...]
    a_interval: tuple[float, float]  #: over episodes, and over seeds if there are several
    b_interval: tuple[float, float]
    interval: tuple[float, float]  #: of the difference
    smallest_difference: float  #: detected with 80 % power


class Comparison(Record):
    """What `compare --out` writes: the difference at any step, and that after the last step."""

    manifest_hash: str
    protocol: Protocol
    success: Difference
    success_at_end: Difference


def _files(given: Path) -> list[Path]:
    """The result files that a path or a pattern names."""
    found = [given] if given.exists() else [Path(path) for path in sorted(glob(str(given)))]  # noqa: PTH207 - of any folder
    return [path / "result.json" if path.is_dir() else path for path in found or [given]]


def run(settings: CompareSettings) -> int:
    """Compare results, print the comparison, and write it if --out is given."""
    inputs = [_files(path) for path in (settings.a, settings.b)]
    if out := settings.out:
        check_new_file(out, [*inputs[0], *inputs[1]])
        check_new_file(out.with_suffix(".html"), [*inputs[0], *inputs[1]])
    a, b = ([read_result(path) for path in side] for side in inputs)
    found, names = compare(a, b), (str(settings.a), str(settings.b))
    say(render("compare.txt", found=found, names=names))
    if out:
        settled = settings.model_dump(mode="json")
        write_json({**found.model_dump(), "settings": settled}, out)
        page = render("compare.html", found=found, names=names)
        write_atomically(out.with_suffix(".html"), page.encode())
    return 0


def compare(a: Result | Sequence[Result], b: Result | Sequence[Result]) -> Comparison:
    """The paired difference of two results, or of two sets of results, one per training seed.

    A pair's score is the share of its attempts that reached the goal, over repeats and runs. The
    test is the sign test over episodes: McNemar's exact test if each has one pair and one attempt.
    It covers these runs only; the intervals also cover other seeds.

    Raises: ValueError if manifests, protocols or pairs differ.
    """
    sides = [[side] if isinstance(side, Result) else list(side) for side in (a, b)]
    first = sides[0][0]
    for what, name in (("manifest", "manifest_hash"), ("protocol", "protocol")):
        one, *others = (getattr(result, name) for result in sides[0] + sides[1])
        for two in others:
            if one != two:
                raise ValueError(f"the results must be of one {what}, got {one:.12} and {two:.12}")
    kinds = {name: _difference(sides[0], sides[1], name) for name in ("success", "success_at_end")}
    return Comparison(manifest_hash=first.manifest_hash, protocol=first.protocol, **kinds)


def _difference(a: Sequence[Result], b: Sequence[Result], kind: str) -> Difference:
    from scipy.stats import t

    tried = [[shares_of(result.outcomes, kind) for result in side] for side in (a, b)]
    first, *others = tried[0] + tried[1]
    for other in others:
        if first.keys() != other.keys():
            sizes = f"{len(first)} and {len(other)}"
            raise ValueError(f"the results must hold the same pairs, got {sizes} of them")
    runs = [np.asarray([list(one.values()) for one in side]) for side in tried]  # [R, N]
    pairs = len(first)
    # Results of earlier versions do not hold the episodes of their pairs.
    known = (r.pair_episodes for r in (*a, *b) if len(r.pair_episodes) == pairs)
    episodes = np.asarray(next(known, range(pairs)))
    gaps = (runs[1].mean(0) - runs[0].mean(0)).round(9)
    _, which = np.unique(episodes, return_inverse=True)
    sums = np.stack([np.bincount(which, gaps), np.bincount(which)], axis=1)
    # If nothing varies: the upper bound of Wilson's interval for 0 successes.
    gap, num, open_ = float(gaps.mean()), len(sums), proportion(0, len(sums)).high
    over = bootstrap(torch.from_numpy(sums), lambda total: total[..., 0] / total[..., 1])
    if not over.high > over.low:
        over = Estimate(gap, gap - open_, gap + open_, num)
    # By the method of variance estimates recovery (Zou & Donner, 2008): squares of half widths add.
    seeds = [
        float(t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / len(rates) ** 0.5)
        if len(rates) > 1 else 0.0
        for rates in (side.mean(1) for side in runs)
    ]  # fmt: skip

    def wider(found: Estimate, least: float, *half: float) -> tuple[float, float]:
        value, low, high, _ = found
        ends = (value - np.hypot.reduce([value - low, *half]),
                value + np.hypot.reduce([high - value, *half]))  # fmt: skip
        return round(max(float(ends[0]), least), 4), round(min(float(ends[1]), 1.0), 4)

    interval = wider(over, -1.0, *seeds)
    rates = [rate_by_episode(side.mean(0), episodes) for side in runs]
    return Difference(
        a=round(rates[0].value, 4), b=round(rates[1].value, 4), difference=round(gap, 4),
        pairs=pairs, p_value=sign_test(sums[:, 0].round(9).tolist()), episodes=num,
        only_a_better=int((gaps < 0).sum()), only_b_better=int((gaps > 0).sum()),
        a_runs=tuple(runs[0].mean(1).round(4).tolist()),
        b_runs=tuple(runs[1].mean(1).round(4).tolist()),
        a_interval=wider(rates[0], 0.0, seeds[0]), b_interval=wider(rates[1], 0.0, seeds[1]),
        interval=interval, smallest_difference=round(_POWER * (interval[1] - interval[0]) / 2, 4),
    )  # fmt: skip
