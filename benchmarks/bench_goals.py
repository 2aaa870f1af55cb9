"""Which cost reaches far goals, and which kinds of goals are reached, with frozen small models?

    python benchmarks/bench_goals.py                          both tables
    python benchmarks/bench_goals.py distances --pairs 100    image, probe and temporal distance
    python benchmarks/bench_goals.py kinds                    regions, rewards, constraints, sums
    python benchmarks/bench_goals.py reacher                  the same kinds, of another world

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
# A box that Reacher's fingertip sweeps through, in units of the arm's length.
CORNER = torch.tensor([[0.3, 0.3], [0.7, 0.7]])
SEARCH = (
    "CEM 64 × 6, 8 elites, horizon 5, replanned every block, budget 50 steps. Success is what the "
    "goal asks for, at any step."
)

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
    parser.add_argument("what", nargs="?", choices=("distances", "kinds", "reacher"))
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/goals"))
    parser.add_argument("--reacher", type=Path, default=Path("runs/pretrained/reacher"),
                        help="what benchmarks/pretrained.py reacher has made")  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what in (None, "distances"):
        distances(arguments.runs, arguments.pairs, arguments.seed)
    if arguments.what in (None, "kinds"):
        kinds(arguments.runs, arguments.pairs, arguments.seed)
    if arguments.what == "reacher":
        kinds_of_reacher(arguments.reacher, arguments.pairs)
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
    """Goals of Two-Room that are not pictures; each counts as reached by its own rule."""
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
    # A margin of one step: between two futures the agent moves five times.
    out = goals.avoid(fitted.network, torch.from_numpy(low), torch.from_numpy(high))

    def there(s: Any) -> Flags:
        return WORLD.success(s, pairs.goals)

    cases: dict[str, Case] = {
        "image": Case(image, there),
        "state, linear probe": Case(goals.state(fitted.linear, at, "nearest"), there),
        "part of a state: x alone": Case(
            goals.state(fitted.network, across, "nearest"),
            lambda s: np.abs(s[:, 0] - pairs.goals[:, 0]) < 8,
        ),
        "region: a box of 24 around the goal": Case(
            goals.region(fitted.network, at + around[0], at + around[1], "nearest"),
            lambda s: (np.abs(s - pairs.goals) < 12).all(-1),
        ),
        "temporal distance": Case(goals.temporal(fitted.distance, z, "nearest"), there),
        "reward: closeness to the door": Case(
            goals.reward(fitted.door), lambda s: np.linalg.norm(s - door, axis=-1) < 16,
        ),
        "sum: image + 0.01 × state": Case(
            image + 0.01 * goals.state(fitted.network, at, "nearest"), there
        ),
        "image, charged for atypical futures": Case(image + 10 * goals.charge(known), there),
        "image, a box charged for": Case(image + 0.5 * goals.charge(out), there),
        "image, a box kept out of": Case(image, there, lambda z: out(z) / 10),
    }  # fmt: skip
    try_kinds(
        "goals_kinds",
        "Which kinds of goals are reached? One frozen model of Two-Room, goals 25 steps away",
        subject, pairs, cases, runs / f"kinds-{seed}.json",
        lambda s: ((s > BOX[0].numpy()) & (s < BOX[1].numpy())).all(-1),
        f"one model (seed {seed}), {SEARCH} The box is 40–80 by 60–100 of 224, no start or goal "
        "lies near it.",
    )  # fmt: skip


def kinds_of_reacher(made: Path, num: int) -> None:
    """The same kinds of goals for Reacher's arm, with the model of benchmarks/pretrained.py."""
    subject = two_room.subject_of_run(made / "seed-0", made / "data.h5")
    pairs = two_room.pairs_of_manifest(made / "202-25.json", 2 * num)
    low, high = CORNER[0].numpy() - 0.05, CORNER[1].numpy() + 0.05
    clear = np.all([((x < low) | (x > high)).any(-1) for x in map(fingertip, pairs)], axis=0)
    pairs = Pairs(*(x[clear][:num] for x in pairs))
    z, known = subject.z.flatten(0, 1)[::2], subject.states.flatten(0, 1)[::2].numpy()
    pose = heads.fit_head(z, torch.from_numpy(posed(known)))
    finger = heads.fit_head(z, torch.from_numpy(fingertip(known)), (128, 128))
    wrist = heads.fit_head(z, torch.from_numpy(known[:, 1:2]), (128, 128))
    up = np.asarray([0.0, 0.8], np.float32)
    gap = np.linalg.norm(fingertip(known) - up, axis=-1, keepdims=True)
    reward = heads.fit_head(z, torch.from_numpy(np.exp(-gap / 0.3)), (128, 128))
    distance = heads.fit_distance(subject.model, subject.z, subject.actions, unit=FRAMESKIP)
    z_goal = subject.model.imagine().embed(two_room.picture(pairs.goals, subject.world))
    tip, at = fingertip(pairs.goals), torch.from_numpy(posed(pairs.goals))
    image, bent = goals.near(z_goal, "nearest"), torch.from_numpy(pairs.goals[:, 1:2].copy())
    near_tip = torch.from_numpy(tip)
    out = goals.avoid(finger, torch.from_numpy(low), torch.from_numpy(high))

    def there(s: Any) -> Flags:
        found: Flags = subject.world.success(s, pairs.goals)
        return found

    cases: dict[str, Case] = {
        "image": Case(image, there),
        "state, linear probe": Case(goals.state(pose, at, "nearest"), there),
        "part of a state: wrist alone": Case(
            goals.state(wrist, bent, "nearest"),
            lambda s: np.abs(s[:, 1] - pairs.goals[:, 1]) < subject.world.tolerance,
        ),
        "region: the fingertip in a box around the goal's": Case(
            goals.region(finger, near_tip - 0.1, near_tip + 0.1, "nearest"),
            lambda s: (np.abs(fingertip(s) - tip) < 0.1).all(-1),
        ),
        "temporal distance": Case(goals.temporal(distance, z_goal, "nearest"), there),
        "reward: the fingertip straight up": Case(
            goals.reward(reward), lambda s: np.linalg.norm(fingertip(s) - up, axis=-1) < 0.1,
        ),
        "sum: image + state": Case(image + goals.state(pose, at, "nearest"), there),
        "image, charged for atypical futures": Case(
            image + 10 * goals.charge(goals.typical(subject.z.flatten(0, 1))), there
        ),
        "image, a box charged for": Case(image + 50 * goals.charge(out), there),
        "image, a box kept out of": Case(image, there, out),
    }  # fmt: skip
    try_kinds(
        "goals_kinds_reacher",
        "The same for Reacher: one frozen model, goals 25 steps away",
        subject, pairs, cases, made / "kinds.json",
        lambda s: ((fingertip(s) > CORNER[0].numpy()) & (fingertip(s) < CORNER[1].numpy())).all(-1),
        f"the model of pretrained/reacher, plans start from three frames, {SEARCH} Lengths are "
        "in units of the stretched arm; the box is 0.3–0.7 by 0.3–0.7, no start or goal has its "
        "fingertip near it; straight up is (0, 0.8), a region is ± 0.1, and a pose is "
        "reached at 0.05 rad.",
        history=3,
    )  # fmt: skip


def fingertip(states: Any) -> NDArray[np.float32]:
    """Of Reacher's arm, in units of its length: [..., 4] -> [..., 2]."""
    first, second = states[..., 0], states[..., 0] + states[..., 1]
    x, y = (np.cos(first) + np.cos(second)) / 2, (np.sin(first) + np.sin(second)) / 2
    return np.stack([x, y], -1).astype(np.float32)


def posed(states: Any) -> NDArray[np.float32]:
    """The angles of Reacher without jumps: [..., 4] -> [..., 3]."""
    turn = states[..., 0]
    return np.stack([np.cos(turn), np.sin(turn), states[..., 1]], -1).astype(np.float32)


class Case(NamedTuple):
    """A kind of goal.

    Attributes:
        goal: what the planner minimises.
        done: states [N, S] -> [N], which are there.
        limit: a constraint on futures, met where it is ≤ 0.
    """

    goal: goals.Goal
    done: Callable[[Any], Flags]
    limit: Callable[[Tensor], Tensor] | None = None


def try_kinds(
    name: str, question: str, subject: Subject, pairs: Pairs, cases: dict[str, Case], path: Path,
    inside: Callable[[Any], Flags], note: str, history: int = 1,
) -> None:  # fmt: skip
    """Success of each case, and how many paths pass through the box."""
    results, rows, num = list[dict[str, object]](), list[list[harness.Cell]](), len(pairs.starts)
    for title, case in cases.items():

        def tried(case: Case = case) -> list[float]:
            def keep_out(method: Any, futures: Callable[[Tensor], Tensor]) -> Any:
                limit = case.limit
                assert limit is not None
                return AugmentedLagrangian(method, lambda actions: limit(futures(actions)), every=3)

            more: dict[str, Any] = {"constrain": keep_out, "iterations": 12} if case.limit else {}
            found = two_room.control(
                subject, pairs, case.goal, 50, done=case.done, history=history, **more
            )
            within = np.any([inside(s) for s in found.path], axis=0)
            return [float(found.solved.mean()), float(within.mean())]

        success, within = two_room.kept(path, f"{title}, {num} pairs", tried)
        least, most = two_room.wilson(round(success * num), num)
        rows.append([title, f"{success:.0%}", f"{least:.0%}–{most:.0%}", f"{within:.0%}"])
        results.append({"goal": title, "success": success, "inside": within})
        print(*rows[-1], flush=True)
    harness.save(
        name, question, results, rows=rows,
        columns=("goal", "success", "95 % interval", "paths through the box"),
        note=f"{num} pairs, {note}",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
