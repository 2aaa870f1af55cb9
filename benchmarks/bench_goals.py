"""Which cost reaches far goals, and which kinds of goals are reached, with frozen small models?

    python benchmarks/bench_goals.py                          both tables
    python benchmarks/bench_goals.py distances --pairs 100    image, probe and temporal distance
    python benchmarks/bench_goals.py kinds                    regions, rewards, constraints, sums

All costs of a table have the same pairs, noise and weights. Models are trained
once, two minutes each, and kept in --runs.
"""

from __future__ import annotations

import argparse
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
    """Heads fitted on the frozen embeddings of training episodes."""

    linear: Any
    network: Any
    distance: Any
    door: Any


def main() -> int:
    """Train or read the model, then make the tables that were asked for."""
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
        kinds(arguments.runs, arguments.pairs, arguments.seed)
    return 0


def fit(subject: Subject, folder: Path) -> Heads:
    """Probes of the position, a temporal distance, and a reward: closeness to the door."""
    z, states = subject.z.flatten(0, 1)[::3], subject.states.flatten(0, 1)[::3]
    door = torch.tensor([WORLD.size / 2, WORLD.door[0]])
    reward = torch.exp(-(states[:, :2] - door).norm(dim=-1, keepdim=True) / 50)
    make: dict[str, Callable[[], Any]] = {
        "linear": lambda: heads.fit_head(z, states),
        "network": lambda: heads.fit_head(z, states, (128, 128)),
        "distance": lambda: heads.fit_distance(
            subject.model, subject.z, subject.actions, unit=FRAMESKIP
        ),
        "door": lambda: heads.fit_head(z, reward, (128, 128)),
    }
    for name, one in make.items():
        if not (folder / f"{name}.safetensors").exists():
            heads.save_head(one(), folder / f"{name}.safetensors")
    return Heads(*(heads.load_head(folder / f"{name}.safetensors") for name in make))


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
    """The pairs that each cost solves."""
    name = "lewm" if world == "two-room" else world
    subject = two_room.subject(runs / f"{name}-{seed}", seed=seed, world=world)
    fitted = fit(subject, runs / f"{name}-{seed}")
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

        def solved(goal: goals.Goal = goal, execute: int = execute) -> list[bool]:
            tried = two_room.control(
                subject, pairs, goal, BUDGETS[offset], horizon=horizon, execute=execute
            )
            return [bool(x) for x in tried.solved]

        key = f"{world}, {horizon} blocks, {offset}, {name}, {num} pairs"
        found[name] = np.asarray(two_room.kept(runs / f"distances-{seed}.json", key, solved))
        print(f"{key}: {found[name].mean():.0%}", flush=True)
    return found


def kinds(runs: Path, num: int, seed: int) -> None:
    """Goals that are not pictures; each counts as reached by its own rule."""
    subject = two_room.subject(runs / f"lewm-{seed}", seed=seed)
    fitted = fit(subject, runs / f"lewm-{seed}")
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

    # A margin of one step: between two futures the agent moves five times.
    out = goals.avoid(fitted.network, torch.from_numpy(low), torch.from_numpy(high))
    cases["image, a box charged for"] = (image + 0.5 * goals.charge(out), cases["image"][1])
    cases["image, a box kept out of"] = cases["image"]

    def keep_out(method: Any, futures: Callable[[Tensor], Tensor]) -> Any:
        return AugmentedLagrangian(method, lambda actions: out(futures(actions)) / 10, every=3)

    for name, (goal, done) in cases.items():

        def tried(
            goal: goals.Goal = goal, done: Any = done, kept_out: bool = name.endswith("kept out of")
        ) -> list[float]:
            more: dict[str, Any] = {"constrain": keep_out, "iterations": 12} if kept_out else {}
            found = two_room.control(subject, pairs, goal, 50, done=done, **more)
            within = [((s > BOX[0].numpy()) & (s < BOX[1].numpy())).all(-1) for s in found.path]
            return [float(found.solved.mean()), float(np.any(within, axis=0).mean())]

        key = f"{name}, {num} pairs"
        success, inside = two_room.kept(runs / f"kinds-{seed}.json", key, tried)
        least, most = two_room.wilson(round(success * num), num)
        rows.append((name, f"{success:.0%}", f"{least:.0%}–{most:.0%}", f"{inside:.0%}"))
        results.append({"goal": name, "success": success, "inside": inside})
        print(*rows[-1], flush=True)
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
