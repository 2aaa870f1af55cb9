"""Policies that propose, a model that checks, values and sub-goals: how far do they see?

    python benchmarks/bench_far.py                                     all worlds, arms and offsets
    python benchmarks/bench_far.py --worlds maze-7 --offsets 100 --pairs 40 --arms graph
    python benchmarks/bench_far.py --worlds maze                       layouts nobody trained on

Small frozen models; policies and values learn from the cached embeddings of their training
episodes. All arms of a world and an offset see the same pairs. Each row is kept in --runs, so
that a run may stop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
import torch
import two_room
from numpy.typing import NDArray
from torch import Tensor
from two_room import FRAMESKIP, Pairs, Subject, Tried

from planners import CEM, ICEM, MPC, Bounds, Proposals
from worldmodel import goals, heads
from worldmodel.learning import learn, load_learner, save_learner
from worldmodel.policies import Policy, retrieve, unroll
from worldmodel.subgoals import Graph
from worldmodel.values import GCIQL, GCIVL, HIQL
from worldmodel.worlds.maze import Maze

HORIZON, EDGE = 5, 3.0
two_room.WORLDS["maze"] = Maze(two_room.SIZE)

# A policy's name: its class, and arguments beside D and A.
LEARNERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "policy": (Policy, {"modes": 1}),
    "mixture": (Policy, {"modes": 8}),
    "gcivl": (GCIVL, {"discount": 0.95}),
    "gciql": (GCIQL, {"discount": 0.95}),
    "hiql": (HIQL, {"discount": 0.95, "ahead": 3}),
}

Decide = Callable[[Any, Tensor], Tensor]
"""Futures and what is seen now [N, D] -> blocks [N, 1, A], in the model's units."""


Way = Callable[[Pairs, int], Tried]
Propose = Callable[[Tensor, Tensor], Tensor]
Toward = Callable[[Tensor], Tensor]


class Means(NamedTuple):
    """What was learned for one model, and its goals."""

    subject: Subject
    learner: Callable[[str], Any]
    distance: Any
    z_goal: Tensor

    def value(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """GCIVL's distance, learned when it is first asked."""
        out: Tensor = self.learner("gcivl").distance(z, z_goal)
        return out

    def plans(self, name: str) -> Propose:
        """A learner's proposals, unrolled to the planner's horizon."""
        model = self.subject.model

        def step(z: Tensor, actions: Tensor) -> Tensor:
            return model.rollout(z[:, None], actions)[:, -1]

        return lambda z, g: unroll(self.learner(name), step, z, g, HORIZON)


def main() -> int:
    """Train or read what is needed, then try every arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", default=["two-room", "maze-7"])
    parser.add_argument("--offsets", nargs="+", type=int, default=[25, 50, 100])
    parser.add_argument("--arms", nargs="+", default=[], help="parts of their names")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=3000, help="of training each policy or value")
    parser.add_argument("--runs", type=Path, default=Path("runs/goals"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[harness.Cell]] = []
    results: list[dict[str, Any]] = []
    for world in arguments.worlds:
        found = {
            (seed, offset): tried(arguments, world, seed, offset)
            for seed in arguments.seeds
            for offset in arguments.offsets
        }
        for arm in next(iter(found.values())):
            cells: list[harness.Cell] = [world, arm]
            for offset in arguments.offsets:
                runs = [found[seed, offset] for seed in arguments.seeds]
                own, base = (np.concatenate([r[a]["end"] for r in runs]) for a in (arm, BASE))
                more, fewer = int((own > base).sum()), int((base > own).sum())
                p = two_room.sign_test(more, fewer)
                cells.append(f"{own.mean():.0%}" + ("" if arm == BASE else f" (p = {p:.2g})"))
                results.append({
                    "world": world, "arm": arm, "offset": offset, "end": float(own.mean()),
                    "any": float(np.mean([r[arm]["any"] for r in runs])),
                    "rollouts": runs[0][arm]["rollouts"], "more": more, "fewer": fewer, "p": p,
                    "ms": float(np.median([r[arm]["ms"] for r in runs])),
                })  # fmt: skip
            same = [r for r in results if (r["world"], r["arm"]) == (world, arm)]
            cells += [f"{np.median([r[x] for r in same]):.3g}" for x in ("rollouts", "ms")]
            rows.append(cells)
    harness.save(
        "far",
        "Far goals: success at the end of a budget of twice the distance",
        results,
        columns=(
            "world", "way", *(f"{o} steps away" for o in arguments.offsets), "rollouts", "ms",
        ),
        rows=rows,
        note=f"{arguments.pairs} held-out pairs an offset and model, seeds {arguments.seeds}; in "
        f'brackets the exact sign test against "{BASE}" on the same pairs. Rollouts are plans of '
        f"{HORIZON} blocks imagined per decision, a decision is made every {FRAMESKIP} steps; "
        "milliseconds of processor time per decision and pair, pictures encoded not counted. "
        f"Policies and values: {arguments.steps} steps of training on cached embeddings.",
    )  # fmt: skip
    return 0


BASE = "CEM, image"


def prepared(subject: Subject, folder: Path, pairs: Pairs, steps: int, seed: int) -> Means:
    """Read what was learned, or learn it when it is first needed."""

    @lru_cache
    def learner(name: str) -> Any:
        kind, options = LEARNERS[name]
        path = folder / f"{name}-{steps}.safetensors"
        if not path.exists():
            began = time.process_time()
            made = learn(
                kind, subject.z, subject.actions, steps=steps, batch=256, seed=seed,
                hidden=(256, 256), **options,
            )  # fmt: skip
            seconds = round(time.process_time() - began, 1)
            save_learner(made, path, model=subject.model, notes={"seconds": seconds})
            print(f"{path}: {seconds} s", flush=True)
        return load_learner(path, model=subject.model)

    path = folder / "distance.safetensors"
    if not path.exists():
        heads.save_head(heads.fit_distance(subject.model, subject.z, subject.actions), path)
    distance = heads.load_head(path)
    z_goal = subject.model.imagine().embed(two_room.picture(pairs.goals, subject.world))
    return Means(subject, learner, distance, z_goal)


def tried(arguments: Any, world: str, seed: int, offset: int) -> dict[str, dict[str, Any]]:
    """Every arm on the pairs of one model."""
    name = "lewm" if world == "two-room" else world
    folder = arguments.runs / f"{name}-{seed}"
    subject = two_room.subject(folder, seed=seed, world=world)
    pairs = two_room.pairs(arguments.pairs, offset, seed=seed, world=world)
    means = prepared(subject, folder, pairs, arguments.steps, seed)
    found = {}
    for arm, way in ways(means).items():
        if arm != BASE and arguments.arms and not any(part in arm for part in arguments.arms):
            continue

        def row(way: Way = way) -> dict[str, Any]:
            done = way(pairs, 2 * offset)
            end = subject.world.success(done.path[-1], pairs.goals)
            return {
                "end": [bool(x) for x in end], "any": float(done.solved.mean()),
                "rollouts": done.rollouts, "ms": 1e3 * done.seconds / len(end),
            }  # fmt: skip

        key = f"{world}, {arm}, {offset}, {len(pairs.starts)} pairs, {arguments.steps} steps"
        kept = two_room.kept(arguments.runs / f"far-{world}-{seed}.json", key, row)
        found[arm] = {**kept, "end": np.asarray(kept["end"])}
        print(
            f"{key}: {np.mean(kept['end']):.0%} (any {kept['any']:.0%}), "
            f"{kept['rollouts']:.0f} rollouts, {kept['ms']:.2g} ms", flush=True,
        )  # fmt: skip
    return found


def ways(m: Means) -> dict[str, Way]:
    """The arms: what decides, by its name."""
    soon = goals.temporal(m.distance, m.z_goal, "nearest")
    worth = goals.temporal(m.value, m.z_goal, "nearest")
    image = goals.near(m.z_goal, "nearest")
    small = CEM(16, 4, init_std=0.3, min_std=0.05)

    @lru_cache
    def graph() -> Toward:
        return Graph.of(m.subject.z, m.value, edge=EDGE).toward(m.z_goal)

    def by_graph(z: Tensor) -> Tensor:
        return graph()(z)

    flat = m.subject.z.flatten(0, 1)
    known = flat[:: len(flat) // 256]
    modes = m.plans("mixture")

    def recorded(z: Tensor, g: Tensor) -> Tensor:
        return retrieve(m.subject.z, m.subject.actions, z, g, 8, HORIZON)

    return {
        BASE: search(m, image),
        "iCEM, image": search(m, image, ICEM(64, 8)),
        "CEM, temporal distance": search(m, soon),
        "CEM, value": search(m, worth),
        "policy alone": alone(m, "policy"),
        "mixture alone": alone(m, "mixture"),
        "mixture, checked by image": checked(m, modes),
        "mixture, checked by temporal distance": checked(m, modes, m.distance),
        "GCIVL alone": alone(m, "gcivl"),
        "GCIQL alone": alone(m, "gciql"),
        "HIQL alone": alone(m, "hiql"),
        "mixture, checked by value": checked(m, modes, m.value),
        "mixture, checked by value, refined": checked(m, modes, m.value, small),
        "recorded, checked by value": checked(m, recorded, m.value),
        "GCIVL, checked by value": checked(m, m.plans("gcivl"), m.value),
        "graph, policy alone": alone(m, "policy", by_graph),
        "graph, GCIVL alone": alone(m, "gcivl", by_graph),
        "graph, GCIVL, checked by value": checked(m, m.plans("gcivl"), m.value, None, by_graph),
        "graph, mixture, checked by value": checked(m, modes, m.value, toward=by_graph),
        "HIQL's sub-goals, mixture, checked by value": checked(
            m, modes, m.value, toward=lambda z: m.learner("hiql").subgoal(z, m.z_goal, known)
        ),
    }  # fmt: skip


def search(m: Means, goal: goals.Goal, method: Any = None) -> Way:
    """Held actions, searched from the shifted plan."""
    return lambda pairs, budget: two_room.control(m.subject, pairs, goal, budget, method=method)


def alone(m: Means, name: str, toward: Toward | None = None) -> Way:
    """A policy's likeliest block, nothing imagined."""

    def decide(_: Any, z: Tensor) -> Tensor:
        out: Tensor = m.learner(name)(z, toward(z) if toward else m.z_goal)
        return out[:, 0, :1]

    def way(pairs: Pairs, budget: int) -> Tried:
        decide(None, m.z_goal)  # nothing is learned while the clock runs
        return drive(m.subject, pairs, budget, decide)

    return way


def checked(
    m: Means, propose: Propose, by: Any = None, method: Any = None, toward: Toward | None = None
) -> Way:
    """Imagine proposals and rest, take the best, towards the goal or a sub-goal of each moment."""

    def way(pairs: Pairs, budget: int) -> Tried:
        box = Bounds(-1.0, 1.0, mean=m.subject.scale.mean, std=m.subject.scale.std)
        mpc: MPC[Any] = MPC(
            Proposals(method), horizon=HORIZON, action_dim=2 * FRAMESKIP, bounds=box,
            iterations=1 if method is None else 3, batch=len(pairs.starts), seed=1,
        )  # fmt: skip
        rest = box.from_environment(torch.zeros(len(pairs.starts), 1, HORIZON, 2 * FRAMESKIP))
        imagined: list[int] = []

        def decide(futures: Any, z: Tensor) -> Tensor:
            g = toward(z) if toward else m.z_goal
            # Near the goal, where a count of blocks is blind, likeness decides.
            goal = goals.near(g, "nearest") * (1 / g.shape[-1])
            if by:
                goal = goals.temporal(by, g, "nearest") + goal

            def cost(actions: Tensor) -> Tensor:
                imagined.append(actions.shape[1])
                return goal(futures(actions))

            plans = torch.cat([propose(z, g), rest], 1)
            mpc.act(cost, method=Proposals(method, plans, box))
            assert mpc.last is not None
            return mpc.last.actions[:, :1]

        # Nothing is learned while the clock runs.
        for warm in (propose, by, lambda z, _: toward(z) if toward else z):
            if warm:
                warm(m.z_goal, m.z_goal)
        done = drive(m.subject, pairs, budget, decide)
        return done._replace(rollouts=sum(imagined) / (budget / FRAMESKIP))

    return way


def drive(subject: Subject, pairs: Pairs, budget: int, decide: Decide) -> Tried:
    """Look, decide, do one block, until the budget of steps is spent."""
    imagination, world = subject.model.imagine(), subject.world
    states, path = pairs.starts, list[NDArray[np.float32]]()
    solved, spent = np.zeros(len(states), bool), 0.0
    while len(path) < budget:
        futures = imagination.look(two_room.picture(states, world)[:, None])
        began = time.process_time()
        block = decide(futures, futures.z[:, -1])[:, 0].unflatten(-1, (FRAMESKIP, 2))
        spent += time.process_time() - began
        raw = block * subject.scale.std + subject.scale.mean
        for action in raw.clamp(-1, 1).unbind(1)[: budget - len(path)]:
            states = world.step(states, action.numpy())
            path.append(states)
            solved |= world.success(states, pairs.goals)
    return Tried(solved, path, 0.0, spent / (budget / FRAMESKIP))


if __name__ == "__main__":
    raise SystemExit(main())
