"""The data of the page: facts of the run, held-out episodes, and measurements in Python."""

from pathlib import Path

import torch
from PIL import Image

from planners import Bounds
from worldmodel.apps.evaluate.manifest import Pairs, make_pairs
from worldmodel.apps.evaluate.policies import PlannerPolicy, attempt
from worldmodel.apps.runs import Run
from worldmodel.apps.settings import PlannerSettings, ViewSettings
from worldmodel.apps.study.command import gather_material
from worldmodel.apps.study.measures import Sequences, StudyMaterial
from worldmodel.heads import Head, fit_head
from worldmodel.study import embed
from worldmodel.worlds import Maze
from worldmodel.worlds.maze import layout_of

_OFFSET, _BUDGET, _POINTS, _LAYOUTS = 25, 50, 700, 24


def gather(run: Run, settings: ViewSettings) -> tuple[StudyMaterial, Pairs | None]:
    """Episodes that the run was not trained on, and pairs if the page simulates their world.

    Raises: as `gather_material`.
    """
    data, num, seed = settings.data, settings.pairs, settings.seed
    found, pairs = gather_material(run, data, settings.episodes, seed, mazes=True), None
    if found.world is not None and found.test.states is not None and num:
        states, offset = list(found.test.states.numpy()), max(_OFFSET // run.frameskip, 1)
        pairs = make_pairs(found.world, states, num, offset=offset, seed=seed)
    # The page may be published, so it holds only the file's name.
    path = str(data or run.data)
    return found._replace(source=found.source.replace(path, Path(path).name)), pairs


def describe_world(
    run: Run, found: StudyMaterial, pairs: Pairs | None, planner: PlannerSettings
) -> dict[str, object]:
    """The world, its pairs and the planner's default settings, for JSON."""
    world, raw = found.world, found.test.raw.flatten(0, 1)
    edges = raw.amin(0), raw.amax(0)
    if world is not None:
        edges = torch.from_numpy(world.action_low), torch.from_numpy(world.action_high)
    box = Bounds(*edges, mean=run.scale.mean, std=run.scale.std)
    kind = "recorded" if world is None else "maze" if isinstance(world, Maze) else "two-room"
    told: dict[str, object] = {
        "kind": kind, "name": run.world or "a data set", "size": found.test.frames.shape[-1],
        "source": found.source, "planner": planner.described(),
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
    run: Run, found: StudyMaterial, pairs: Pairs | None, planner: PlannerSettings
) -> tuple[dict[str, object], Head]:
    """Measurements of a model in Python, its map, and the linear probe of its places."""
    model, world, test, fit = run.world_model, found.world, found.test, found.fit
    frames = 0 if fit is None else fit.z[..., 0].numel()
    if fit is None or frames <= fit.z.shape[-1]:
        raise ValueError(
            f"the page's probe needs over {2 * test.z.shape[-1]} unseen frames, got about "
            f"{2 * frames}: give more episodes with --data"
        )
    known, learned = (embed(model, side.frames) for side in (fit, test))
    z, fitted = learned.flatten(0, 1), known.flatten(0, 1)
    middle, (values, vectors) = z.mean(0), torch.linalg.eigh(torch.cov(z.T))
    components = vectors.flip(1)[:, :2]
    # The number of a maze is not a place. Without states, the probe reads the map's directions.
    if fit.states is None or test.states is None:
        told, y = (fitted - middle) @ components, (z - middle) @ components
    else:
        places = 2 if world else None
        told, y = (s[..., :places].flatten(0, 1).to(z) for s in (fit.states, test.states))
    probe = fit_head(fitted, told)
    left = (y - probe(z)).square().sum(0) / (y - y.mean(0)).square().sum(0).clamp_min(1e-30)
    with torch.no_grad():
        blocks = test.actions.to(z).flatten(0, 1)[:, None]
        step = model.rollout(learned[:, :-1].flatten(0, 1)[:, None], blocks)
    error = (step[:, 0] - learned[:, 1:].flatten(0, 1)).square().sum(-1)
    every = torch.linspace(0, len(z) - 1, min(_POINTS, len(z))).long()
    measured: dict[str, object] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dim": z.shape[-1],
        "block": run.frameskip,
        "probe": {
            "of": "principal components" if test.states is None else "states",
            "r2": (1 - left).tolist(),
            "reads": y.shape[-1],
        },
        "surprise": error.quantile(torch.tensor([0.5, 0.99]).to(error)).tolist(),
        "map": {
            "middle": middle.tolist(),
            "components": components.T.tolist(),
            "share": float(values[-2:].sum() / values.sum().clamp_min(1e-30)),
            "points": ((z - middle) @ components)[every].tolist(),
            "places": y[every].tolist(),
        },
    }
    if world is not None and pairs is not None:
        policy = PlannerPolicy(model, run.scale, frameskip=run.frameskip, planner=planner)
        success = attempt(world, pairs, policy, budget=_BUDGET).success
        measured["python"] = {"reached": int(success.sum()), "of": len(success)}
    return measured, probe


def write_episodes(test: Sequences, num: int, folder: Path) -> dict[str, object]:
    """Write episodes for a world without simulator: a strip of frames each; return actions."""
    for e, frames in enumerate(test.frames[:num]):
        strip = frames.permute(2, 0, 3, 1).flatten(1, 2)  # [H, T W, 3]
        Image.fromarray(strip.numpy()).save(folder / f"episode-{e}.png")
    raw = test.raw[:num].tolist()
    return {"num": len(raw), "frames": test.frames.shape[1], "raw": raw}
