"""What do the data of each policy cover, and how many goals are reached without a model?

    python benchmarks/bench_worlds.py                 every world whose package is installed
    python benchmarks/bench_worlds.py --world cube    one of them; the others' rows stay

No frames are drawn. Start and goal are 25 steps apart in an episode of the row's policy; pairs
solved at the start are left out. The budget is 50 steps, and success counts at any step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from typing import Any

import harness
import numpy as np

from worldmodel.apps.data.collecting import drawn
from worldmodel.apps.evaluate import make_pairs
from worldmodel.study import proportion
from worldmodel.worlds import WORLDS, open_world
from worldmodel.worlds.behaviours import policies
from worldmodel.worlds.coverage import coverage

NEEDS = {"push-t": "gym_pusht", "reacher": "dm_control", "cube": "ogbench"}
LENGTH = {"two-room": 92, "push-t": 125, "reacher": 200, "cube": 200}  # as published, on average
EPISODES = {"two-room": 256, "push-t": 64, "reacher": 64, "cube": 32}
PAIRS = {"cube": 64}  # instead of 200, because its physics is slow
OFFSET, BUDGET = 25, 50
ANYWHERE = {"push-t": 240}  # budget from a random start to a random goal
COLUMNS = (
    "world, policy", "cells visited of 256", "solved already", "no-op", "random", "replay",
    "scripted",
)  # fmt: skip


def main() -> int:
    """Measure each world that can be opened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS)
    parser.add_argument("--policy", help="one of its policies")
    arguments = parser.parse_args()
    wanted = arguments.world
    path = harness.RESULTS / "worlds.json"
    known = json.loads(path.read_text())["results"] if path.exists() else []
    records = {(r["world"], r["policy"]): r for r in known}
    for world in WORLDS if wanted is None else (wanted,):
        if world in NEEDS and importlib.util.find_spec(NEEDS[world]) is None:
            print(f"{world}: not run, needs pip install 'sigreg[{world}]'")
            continue
        for policy in policies(world):
            if arguments.policy in (None, policy):
                records[world, policy] = measure(world, policy)
                write(records)
    return 0


def write(records: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Write the result file with the rows so far."""
    order = [(world, policy) for world in WORLDS for policy in policies(world)]
    kept = [records[key] for key in order if key in records]
    harness.save(
        "worlds",
        "What data of each policy cover, and what can be reached on them without a model",
        kept,
        columns=COLUMNS,
        rows=[row(record) for record in kept],
        note=(
            "Pairs 25 steps apart, 50 steps allowed, any of them counts, those solved already left "
            "out. Replay: the recorded actions once more. Scripted: the world's expert, told the "
            "goal's state. "
            + " ".join(
                f"From random starts to random goals the scripted expert of {r['world']} reaches "
                f"{share(r['anywhere'])} within {ANYWHERE[r['world']]} steps."
                for r in kept
                if "anywhere" in r
            )
        ),
    )


def measure(name: str, policy: str) -> dict[str, Any]:
    """One policy of one world."""
    world: Any = open_world(name)
    num, length = EPISODES[name], LENGTH[name]
    told = drawn(world, policy, num, length=length, seed=1, pictures=False)
    data = [(states, actions) for _, actions, states in told]
    states = [part for part, _ in data]
    found = coverage(world, states, OFFSET)
    pairs = make_pairs(world, states, PAIRS.get(name, 200), offset=OFFSET, seed=0)
    rng = np.random.default_rng(0)
    low, high = world.action_low, world.action_high
    starts, goals = pairs.starts, pairs.goals
    shape = (len(starts), len(low))
    recorded = recorded_actions(data, starts)
    tries = {
        "idle": lambda _, now: world.idle(now),
        "random": lambda _, __: rng.uniform(low, high, shape).astype(np.float32),
        "replay": lambda step, now: recorded[step] if step < OFFSET else world.idle(now),
    }
    expert = world.expert(goals)
    if expert is not None:
        tries["scripted"] = lambda _, now: expert(now)
    record: dict[str, Any] = {
        "world": name,
        "policy": policy,
        "episodes": num,
        "length": length,
        "cells": {grid.name: grid.cells for grid in found.grids},
        "moved": {grid.name: grid.moved for grid in found.grids},
        "solved_already": found.solved,
        **{key: tally(world, starts, goals, act, BUDGET) for key, act in tries.items()},
        "versions": world.versions(),
    }
    if name in ANYWHERE and policy == policies(name)[0]:
        starts, goals = world.sample_states(rng, 200), world.sample_states(rng, 200)
        going = world.expert(goals)
        act = lambda _, now: going(now)  # noqa: E731
        record["anywhere"] = tally(world, starts, goals, act, ANYWHERE[name])
    return record


def recorded_actions(data: list[Any], starts: Any) -> Any:
    """The actions taken after each start, found again by its state: [OFFSET, N, A]."""
    place = {
        states[t].tobytes(): (e, t)
        for e, (states, _) in enumerate(data)
        for t in range(len(states) - OFFSET)
    }
    found = [place[start.tobytes()] for start in starts]
    return np.stack([data[e][1][t : t + OFFSET] for e, t in found], axis=1)


def tally(world: Any, starts: Any, goals: Any, act: Any, budget: int) -> list[int]:
    """Pairs reached at any step, and how many there were."""
    session, now = world.start(starts), starts
    reached = np.zeros(len(starts), bool)
    for step in range(budget):
        now = session.step(act(step, now))
        reached |= world.success(now, goals)
    session.close()
    return [int(reached.sum()), len(starts)]


def share(counts: list[int] | None) -> str:
    """A rate with its 95 % interval."""
    if counts is None:
        return ""
    rate, low, high, _ = proportion(*counts)
    return f"{rate:.0%} ({low:.0%}–{high:.0%})"


def row(record: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    cells = ", ".join(f"{name} {cells}" for name, cells in record["cells"].items())
    solved = f"{record['solved_already']:.1%}"
    rates = [share(record.get(key)) for key in ("idle", "random", "replay", "scripted")]
    return (f"{record['world']}, {record['policy']}", cells, solved, *rates)


if __name__ == "__main__":
    sys.exit(main())
