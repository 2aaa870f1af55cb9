"""What the page is told of a run: numbers, episodes it has not seen, and what Python measured."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from planners import Bounds
from worldmodel.apps.evaluate.manifest import Pairs, make_pairs
from worldmodel.apps.evaluate.policies import PlannerPolicy, attempt
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import PlannerSettings
from worldmodel.apps.study.command import gather_material
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
        found = gather_material(run, data, (episodes + 1) // 2, seed)
        sides = [side for side in (found.test, found.fit) if side is not None]
        frames, raw = torch.cat([s.frames for s in sides]), torch.cat([s.raw for s in sides])
        known = [side.states for side in sides if side.states is not None]
        # The page may travel: the file's name is enough.
        path = str(data or run.data)
        source = found.source.replace(path, Path(path).name)
        return Material(None, frames, raw, torch.cat(known) if known else None, None, source)
    world: Any = open_world(run.world, image_size=int(run.world_model.encoder.image_size))
    rng, k = np.random.default_rng([_SEED, seed]), run.frameskip
    expert = TwoRoomExpert(world, episodes, rng)
    places, actions = [world.sample_states(rng, episodes)], list[NDArray[np.float32]]()
    for _ in range(max(_LENGTH, 4 * k)):
        actions.append(expert.act(places[-1]))
        places.append(world.step(places[-1], actions[-1]))
    done = np.stack(actions, 1)
    new = [action_digest(a) not in run.trained_on for a in done]
    walks, done = np.stack(places, 1)[new], done[new]
    seen = walks[:, ::k]
    frames = torch.from_numpy(world.draw(seen.reshape(-1, world.state_dim)))
    tried = make_pairs(world, list(walks), pairs, seed=seed) if pairs else None
    about = f"{len(walks)} fresh episodes, which the model was not trained on"
    cut, T = torch.from_numpy(done[:, : (seen.shape[1] - 1) * k]), seen.shape[1]
    return Material(world, frames.unflatten(0, (-1, T)), cut, torch.from_numpy(seen), tried, about)


def describe_world(run: Run, material: Material, planner: PlannerSettings) -> dict[str, Any]:
    """The world, its pairs and the planner's usual settings, as JSON holds them."""
    world, pairs, raw = material.world, material.pairs, material.raw.flatten(0, 1)
    edges = raw.amin(0), raw.amax(0)
    if world is not None:
        edges = torch.from_numpy(world.action_low), torch.from_numpy(world.action_high)
    box = Bounds(*edges, mean=run.scale.mean, std=run.scale.std)
    kind = "recorded" if world is None else "maze" if isinstance(world, Maze) else "two-room"
    told: dict[str, Any] = {
        "kind": kind, "name": run.world or "a data set", "size": material.frames.shape[-1],
        "source": material.source, "planner": planner.described(),
        "action": {name: getattr(box, name).tolist() for name in ("low", "high", "mean", "std")},
    }  # fmt: skip
    if isinstance(world, Maze):
        numbers = range(_LAYOUTS) if world.layout is None else [world.layout]
        used = [] if pairs is None else pairs.starts[:, 2].astype(int).tolist()
        every = {int(n): layout_of(int(n)) for n in [*numbers, *used]}
        told["layouts"] = {
            n: {"right": one.right.tolist(), "down": one.down.tolist()} for n, one in every.items()
        }
    if pairs is not None:
        starts, goals = pairs.starts.tolist(), pairs.goals.tolist()
        told["pairs"] = {"starts": starts, "goals": goals, "budget": _BUDGET}
    return told


def describe_model(
    run: Run, material: Material, planner: PlannerSettings
) -> tuple[dict[str, Any], Head]:
    """What was measured of a model in Python, its map, and the probe that reads its places."""
    model, world = run.world_model, material.world
    z = embed(model, material.frames)
    flat, middle = z.flatten(0, 1), z.flatten(0, 1).mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    components = vectors.flip(1)[:, :2]
    # A maze's number is no place; where states are unknown, the map's two directions are read.
    states = None if material.states is None else material.states[..., : 2 if world else None]
    known = states is not None and bool(states.isfinite().all())
    y = states.to(z) if known and states is not None else (z - middle) @ components
    half = (len(z) + 1) // 2
    fit = z[:half].flatten(0, 1)
    if len(fit) <= fit.shape[1]:
        raise ValueError(
            f"the page's probe needs more than {2 * fit.shape[1]} unseen frames, got about "
            f"{2 * len(fit)}: give more episodes with --data"
        )
    probe = fit_head(fit, y[:half].flatten(0, 1))
    rest, guess = (t[half:].flatten(0, 1) for t in (y, probe(z)))
    spread = (rest - rest.mean(0)).square().sum(0).clamp_min(1e-30)
    blocks = run.scale.normalise(material.raw.unflatten(1, (-1, run.frameskip)).flatten(2)).to(z)
    with torch.no_grad():
        step = model.rollout(z[:, :-1].flatten(0, 1)[:, None], blocks.flatten(0, 1)[:, None])
    error = (step[:, 0] - z[:, 1:].flatten(0, 1)).square().sum(-1)
    every = torch.linspace(0, len(flat) - 1, min(_POINTS, len(flat))).long()
    told: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dim": z.shape[-1],
        "block": run.frameskip,
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
    if world is not None and material.pairs is not None:
        policy = PlannerPolicy(model, run.scale, frameskip=run.frameskip, planner=planner)
        found = attempt(world, material.pairs, policy, budget=_BUDGET)
        told["python"] = {"reached": int(found.success.sum()), "of": len(found.success)}
    return told, probe


def write_episodes(material: Material, num: int, folder: Path) -> dict[str, Any]:
    """Some episodes for a world without a simulator: a strip of frames each, and what was done."""
    for e, frames in enumerate(material.frames[:num]):
        strip = frames.permute(2, 0, 3, 1).flatten(1, 2)  # [H, T W, 3]
        Image.fromarray(strip.numpy()).save(folder / f"episode-{e}.png")
    E, T = len(material.frames[:num]), material.frames.shape[1]
    return {"num": E, "frames": T, "raw": material.raw[:num].tolist()}
