"""What the page is told of a run: numbers, episodes it has not seen, and what Python measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worldmodel.apps.evaluate.attempt import attempt
from worldmodel.apps.evaluate.pairs import Pairs, make_pairs
from worldmodel.apps.evaluate.planning import PlannerPolicy
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import PlannerSettings
from worldmodel.apps.study.material import gather_material
from worldmodel.data import action_digest
from worldmodel.heads import Head, fit_head
from worldmodel.study import embed
from worldmodel.worlds import Maze, TwoRoom, TwoRoomExpert, open_world
from worldmodel.worlds.maze import layout_of

__all__ = ["Material", "describe_model", "describe_world", "gather", "write_episodes"]

_LENGTH, _SEED, _POINTS, _BUDGET, _LAYOUTS = 80, 7_368_801, 700, 50, 24


class Material(NamedTuple):
    """Episodes that the run was not trained on, cut at its pace; E of T frames."""

    world: TwoRoom | Maze | None  # None where the page has no simulator
    frames: Tensor  # [E, T, 3, H, W], uint8
    raw: Tensor  # [E, (T − 1) k, A]
    states: Tensor | None  # [E, T, S]
    pairs: Pairs | None
    source: str


def gather(run: Run, data: str | None, episodes: int, pairs: int, seed: int) -> Material:
    """Fresh walks of a world that the page has, or unseen episodes of a data set.

    Raises: ValueError if there is no source, or nothing in it that the run was not trained on.
    """
    if data is not None or run.world is None or not run.world.startswith(("two-room", "maze")):
        found = gather_material(run, data, episodes, seed)
        test, source = found.test, found.source
        return Material(None, test.frames, test.raw, test.states, None, source)
    world = open_world(run.world, image_size=int(run.world_model.encoder.image_size))
    if not isinstance(world, TwoRoom | Maze):
        raise TypeError(f"the page has no {run.world}")
    rng, k = np.random.default_rng([_SEED, seed]), run.frameskip
    expert = TwoRoomExpert(world, episodes, rng)
    states, actions = [world.sample_states(rng, episodes)], list[NDArray[np.float32]]()
    for _ in range(max(_LENGTH, 4 * k)):
        actions.append(expert.act(states[-1]))
        states.append(world.step(states[-1], actions[-1]))
    walks, raw = np.stack(states, 1), np.stack(actions, 1)
    new = np.array([action_digest(a) not in run.trained_on for a in raw])
    walks, raw = walks[new], raw[new]
    seen = walks[:, ::k]
    frames = world.draw(seen.reshape(-1, world.state_dim))
    T = seen.shape[1]
    return Material(
        world,
        torch.from_numpy(frames).unflatten(0, (-1, T)),
        torch.from_numpy(raw[:, : (T - 1) * k]),
        torch.from_numpy(seen),
        make_pairs(world, list(walks), pairs, seed=seed) if pairs else None,
        f"{len(walks)} fresh episodes, which the model was not trained on",
    )


def describe_world(run: Run, material: Material, planner: PlannerSettings) -> dict[str, Any]:
    """The world, its pairs and the planner's usual settings, as JSON holds them."""
    world, states, raw = material.world, material.states, material.raw
    samples, iterations = planner.budget
    low, high = raw.flatten(0, 1).amin(0).tolist(), raw.flatten(0, 1).amax(0).tolist()
    told: dict[str, Any] = {
        "kind": "recorded" if world is None else "maze" if isinstance(world, Maze) else "two-room",
        "name": run.world or "a data set",
        "size": material.frames.shape[-1],
        "source": material.source,
        "action": {"low": low, "high": high} | _scale(run),
        "states": 0 if states is None else states.shape[-1],
        "planner": planner.described() | {"samples": samples, "iterations": iterations},
    }
    if world is not None:
        told["action"] |= {"low": world.action_low.tolist(), "high": world.action_high.tolist()}
        told["criterion"] = world.criterion
    if isinstance(world, Maze):
        first = 0 if world.layout is None else world.layout
        numbers = range(first, first + (_LAYOUTS if world.layout is None else 1))
        used = [] if material.pairs is None else material.pairs.starts[:, 2].astype(int).tolist()
        told["layouts"] = {
            n: {"right": layout_of(n).right.tolist(), "down": layout_of(n).down.tolist()}
            for n in [*numbers, *used]
        }
    if material.pairs is not None:
        told["pairs"] = {
            "starts": material.pairs.starts.tolist(),
            "goals": material.pairs.goals.tolist(),
            "budget": _BUDGET,
        }
    return told


def _scale(run: Run) -> dict[str, list[float]]:
    return {"mean": run.scale.mean.tolist(), "std": run.scale.std.tolist()}


def describe_model(
    run: Run, material: Material, planner: PlannerSettings
) -> tuple[dict[str, Any], Head]:
    """What was measured of a model in Python, its map, and the probe that reads its places."""
    model = run.world_model
    z = embed(model, material.frames)
    flat, half = z.flatten(0, 1), (len(z) + 1) // 2
    # A maze's number is no place.
    dims = 2 if material.world is not None else None
    states = None if material.states is None else material.states[..., :dims].to(z)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    components = vectors.flip(1)[:, :2]
    middle = flat.mean(0)
    known = states is not None and bool(states.isfinite().all())
    y = states if known and states is not None else (z - middle) @ components
    probe = fit_head(z[:half].flatten(0, 1), y[:half].flatten(0, 1))
    rest, guess = (t[half:].flatten(0, 1) for t in (y, probe(z)))
    spread = (rest - rest.mean(0)).square().sum(0).clamp_min(1e-12)
    blocks = run.scale.normalise(material.raw.unflatten(1, (-1, run.frameskip)).flatten(2)).to(z)
    with torch.no_grad():
        step = model.rollout(z[:, :-1].reshape(-1, 1, z.shape[-1]), blocks.reshape(-1, 1, blocks.shape[-1]))
    error = (step[:, 0] - z[:, 1:].flatten(0, 1)).square().sum(-1)
    every = torch.linspace(0, len(flat) - 1, min(_POINTS, len(flat))).long()
    told = {
        "objective": run.objective,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dim": z.shape[-1],
        "block": run.frameskip,
        "sigreg": run.settings.get("weight"),
        "probe": {
            "of": "states" if known else "principal components",
            "r2": (1 - (rest - guess).square().sum(0) / spread).tolist(),
            "reads": y.shape[-1],
        },
        "surprise": error.quantile(torch.tensor([0.5, 0.99]).to(error)).tolist(),
        "map": {
            "middle": middle.tolist(),
            "components": components.T.tolist(),
            "share": float(values[-2:].sum() / values.sum().clamp_min(1e-30)),
            "points": ((flat - middle) @ components)[every].tolist(),
            "places": y.flatten(0, 1)[every].tolist(),
        },
    }
    if material.world is not None and material.pairs is not None:
        policy = PlannerPolicy(model, run.scale, frameskip=run.frameskip, planner=planner)
        found = attempt(material.world, material.pairs, policy, budget=_BUDGET)
        told["python"] = {"reached": int(found.success.sum()), "of": len(found.success)}
    return told, probe


def write_episodes(material: Material, num: int, folder: Path) -> dict[str, Any]:
    """Some episodes for a world without a simulator: a strip of frames each, and what was done."""
    E, T = min(num, len(material.frames)), material.frames.shape[1]
    for e in range(E):
        strip = material.frames[e].permute(2, 0, 3, 1).flatten(1, 2)  # [H, T W, 3]
        Image.fromarray(strip.numpy()).save(folder / f"episode-{e}.png")
    states = None if material.states is None else material.states[:E].tolist()
    return {"num": E, "frames": T, "raw": material.raw[:E].tolist(), "states": states}
