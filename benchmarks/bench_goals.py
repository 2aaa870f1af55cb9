"""Which cost finds its way, and which kinds of goals are reached? Frozen models of small worlds.

    python benchmarks/bench_goals.py                          both tables
    python benchmarks/bench_goals.py distances --pairs 100    image, probe and temporal distance
    python benchmarks/bench_goals.py kinds                    regions, rewards, constraints, sums

All costs of a table see the same pairs, the same noise and the same weights. Models are trained
once, two minutes each, and kept in --runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
import torch
import two_room
from numpy.typing import NDArray
from torch import Tensor
from two_room import FRAMESKIP, Pairs, Subject

from planners import AugmentedLagrangian
from worldmodel import goals, heads
from worldmodel.worlds import TwoRoom

WORLD = TwoRoom(two_room.SIZE)
BUDGETS = {25: 50, 50: 100, 100: 150}
# A box that walks through the upper half of the left room cross, for the constraint.
BOX = torch.tensor([[40.0, 60.0], [80.0, 100.0]])

Flags = NDArray[np.bool_]


class Heads(NamedTuple):
    """What was fitted on the frozen embeddings of training episodes."""

    linear: Any
    network: Any
    distance: Any
    door: Any


def main() -> int:
    """Train or read the model, then try what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("distances", "kinds"))
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/goals"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what != "kinds":
        distances(arguments.runs, arguments.pairs, arguments.seed)
    if arguments.what != "distances":
        subject = two_room.subject(arguments.runs / f"lewm-{arguments.seed}", seed=arguments.seed)
        kinds(subject, fit(subject), arguments.pairs, arguments.seed)
    return 0


def fit(subject: Subject) -> Heads:
    """Probes of the position, a temporal distance, and a reward: closeness to the door."""
    z, states = subject.z.flatten(0, 1)[::3], subject.states.flatten(0, 1)[::3]
    door = torch.tensor([WORLD.size / 2, WORLD.door[0]])
    reward = torch.exp(-(states[:, :2] - door).norm(dim=-1, keepdim=True) / 50)
    return Heads(
        heads.fit_head(z, states),
        heads.fit_head(z, states, (128, 128)),
        heads.fit_distance(subject.model, subject.z, subject.actions, unit=FRAMESKIP),
        heads.fit_head(z, reward, (128, 128)),
    )


def distances(runs: Path, num: int, seed: int) -> None:
    """Latent distance against probes and a temporal distance, by world, horizon and offset."""
    results, rows = [], []
    base = "latent, nearest"
    for world, horizon in (("two-room", 5), ("two-room", 2), ("maze-7", 5)):
        found = {offset: searched(runs, world, horizon, offset, num, seed) for offset in BUDGETS}
        for name in found[25]:
            cells: list[harness.Cell] = [world, f"{horizon} blocks", name]
            for offset, tried in found.items():
                own, other = tried[name], tried[base]
                more, fewer = int((own & ~other).sum()), int((other & ~own).sum())
                p = two_room.sign_test(more, fewer)
                cells.append(f"{own.mean():.0%}" + ("" if name == base else f" (p = {p:.2g})"))
                results.append({
                    "world": world, "horizon": horizon, "cost": name, "offset": offset,
                    "success": float(own.mean()), "more": more, "fewer": fewer, "p": p,
                })  # fmt: skip
            rows.append(cells)
    harness.save(
        "goals_distances",
        "Which cost finds its way? One frozen model a world, success by offset",
        results,
        columns=("world", "horizon", "cost", *(f"{o} steps away" for o in BUDGETS)),
        rows=rows,
        note=f"{num} pairs an offset, one model a world (seed {seed}), CEM 64 × 6, 8 elites, held "
        f"actions; budgets {', '.join(map(str, BUDGETS.values()))} steps. In brackets: exact sign "
        f'test against "{base}" on the same pairs. Two-Room is crossed in 25 steps, so a later '
        "goal is no farther there; in the maze it is. Not run on Reacher.",
    )


def searched(
    runs: Path, world: str, horizon: int, offset: int, num: int, seed: int
) -> dict[str, Flags]:
    """Which pairs each cost solves; kept in a file, so that a run may be interrupted."""
    kept = runs / f"tried-{world}-{horizon}-{offset}-{num}-{seed}.json"
    if kept.exists():
        return {k: np.asarray(v) for k, v in json.loads(kept.read_text("utf-8")).items()}
    name = "lewm" if world == "two-room" else world
    subject = two_room.subject(runs / f"{name}-{seed}", seed=seed, world=world)
    fitted = fit(subject)
    pairs = two_room.pairs(num, offset, seed=seed, world=world)
    z, at = (
        subject.model.imagine().embed(two_room.picture(pairs.goals, subject.world)),
        torch.from_numpy(pairs.goals),
    )
    # The second entry: how many blocks of a plan are executed.
    costs = {
        "latent, last step, replanned": (goals.near(z), 1),
        "latent, last step, whole plan": (goals.near(z), horizon),
        "latent, nearest": (goals.near(z, "nearest"), 1),
        "linear probe, nearest": (goals.state(fitted.linear, at, "nearest"), 1),
        "MLP probe, nearest": (goals.state(fitted.network, at, "nearest"), 1),
        "temporal distance, nearest": (goals.temporal(fitted.distance, z, "nearest"), 1),
    }
    found = {}
    for name, (goal, execute) in costs.items():
        tried = two_room.control(
            subject, pairs, goal, BUDGETS[offset], horizon=horizon, execute=execute
        )
        found[name] = tried.solved
        print(f"{world}, {horizon} blocks, {offset}, {name}: {tried.solved.mean():.0%}", flush=True)
    kept.write_text(json.dumps({k: v.tolist() for k, v in found.items()}), "utf-8")
    return found


def kinds(subject: Subject, fitted: Heads, num: int, seed: int) -> None:
    """Goals that are no pictures, each by what it asks for."""
    pairs = two_room.pairs(2 * num, 25, seed=seed)
    low, high = BOX[0].numpy() - WORLD.speed, BOX[1].numpy() + WORLD.speed
    clear = np.all([((x < low) | (x > high)).any(-1) for x in pairs], axis=0)
    pairs = Pairs(*(x[clear][:num] for x in pairs))
    z = subject.model.imagine().embed(two_room.picture(pairs.goals))
    at = torch.from_numpy(pairs.goals)
    across = torch.stack([at[:, 0], torch.full((num,), torch.nan)], dim=1)
    around = torch.tensor([[-12.0, -12.0], [12.0, 12.0]])
    door = np.asarray([WORLD.size / 2, WORLD.door[0]], np.float32)
    known = goals.typical(subject.z.flatten(0, 1))
    image = goals.near(z, "nearest")
    cases: dict[str, tuple[goals.Goal, Callable[[Any], Flags]]] = {
        "image": (image, lambda s: WORLD.success(s, pairs.goals)),
        "state, linear probe": (
            goals.state(fitted.linear, at, "nearest"), lambda s: WORLD.success(s, pairs.goals),
        ),
        "part of a state: x alone": (
            goals.state(fitted.network, across, "nearest"),
            lambda s: np.abs(s[:, 0] - pairs.goals[:, 0]) < 8,
        ),
        "region: a box of 24 around the goal": (
            goals.region(fitted.network, at + around[0], at + around[1], "nearest"),
            lambda s: (np.abs(s - pairs.goals) < 12).all(-1),
        ),
        "temporal distance": (
            goals.temporal(fitted.distance, z, "nearest"),
            lambda s: WORLD.success(s, pairs.goals),
        ),
        "reward: closeness to the door": (
            goals.reward(fitted.door), lambda s: np.linalg.norm(s - door, axis=-1) < 16,
        ),
        "sum: image + 0.01 × state": (
            image + 0.01 * goals.state(fitted.network, at, "nearest"),
            lambda s: WORLD.success(s, pairs.goals),
        ),
        "image, charged for atypical futures": (
            image + 10 * goals.charge(known), lambda s: WORLD.success(s, pairs.goals),
        ),
    }  # fmt: skip
    results, rows = [], []

    def add(name: str, tried: two_room.Tried) -> None:
        low, high = two_room.wilson(int(tried.solved.sum()), num)
        corners = BOX.numpy()
        within = [((s > corners[0]) & (s < corners[1])).all(-1) for s in tried.path]
        inside = float(np.any(within, axis=0).mean())
        rows.append(
            (name, f"{tried.solved.mean():.0%}", f"{low:.0%}–{high:.0%}",
             f"{inside:.0%}")
        )  # fmt: skip
        results.append({"goal": name, "success": float(tried.solved.mean()),
                        "inside": inside})  # fmt: skip
        print(*rows[-1])

    for name, (goal, done) in cases.items():
        add(name, two_room.control(subject, pairs, goal, 50, done=done))
    # A margin of one step: between two futures the agent moves five times.
    out = goals.avoid(fitted.network, torch.from_numpy(low), torch.from_numpy(high))
    charged = image + 0.5 * goals.charge(out)
    add("image, a box charged for", two_room.control(subject, pairs, charged, 50))

    def keep_out(method: Any, futures: Callable[[Tensor], Tensor]) -> Any:
        return AugmentedLagrangian(method, lambda actions: out(futures(actions)) / 10, every=3)

    kept = two_room.control(subject, pairs, image, 50, constrain=keep_out, iterations=12)
    add("image, a box kept out of", kept)
    harness.save(
        "goals_kinds",
        "Which kinds of goals are reached? One frozen model of Two-Room, goals 25 steps away",
        results,
        columns=("goal", "success", "95 % interval", "paths through the box"),
        rows=rows,
        note=f"{num} pairs, one model (seed {seed}), CEM 64 × 6, 8 elites, horizon 5, replanned "
        "every block, budget 50 steps. Success is what the goal asks for, at any step; the box is "
        "40–80 by 60–100 of 224, no start or goal lies near it. Not run on Reacher.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
