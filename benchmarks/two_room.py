"""Small models of Two-Room, a maze and Reacher for benchmarks of goals and planners, and pairs."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from planners import CEM, MPC, Bounds
from sigreg import SIGReg
from worldmodel import WorldModel, jepa_loss, load, presets, read_config, save
from worldmodel.apps.evaluate.manifest import read_manifest
from worldmodel.apps.runs import open_run
from worldmodel.data import ActionScale, BatchOrder, Episodes, Windows
from worldmodel.data.opening import open_episodes
from worldmodel.worlds import TwoRoom, Walks, collect, open_world
from worldmodel.worlds.maze import Maze

FRAMESKIP, SIZE, DIM = 5, 64, 64
BATCH, RATE, WEIGHT = 256, 1e-3, 0.05  # frames per step; peak; λ of SIGReg
WORLDS: dict[str, Any] = {"two-room": TwoRoom(SIZE), "maze-7": Maze(SIZE, layout=7)}

Build = Callable[[], WorldModel]


class Subject(NamedTuple):
    """A trained model, and the data that heads are fitted on.

    Attributes:
        world: of its episodes.
        model: in eval mode.
        scale: of its actions.
        z: [E, T, D], embeddings of training episodes, `FRAMESKIP` steps apart.
        actions: [E, T − 1, A], blocks between them, in the model's units.
        states: [E, T, S], where the agent was.
        seconds: of processor time that training took.
    """

    world: Any
    model: WorldModel
    scale: ActionScale
    z: Tensor
    actions: Tensor
    states: Tensor
    seconds: float


class Pairs(NamedTuple):
    """Starts and goals, [N, S] each, of held-out episodes; none is solved at the start."""

    starts: NDArray[np.float32]
    goals: NDArray[np.float32]


def lewm() -> WorldModel:
    """The demo's model."""
    return presets.small(2 * FRAMESKIP, image_size=SIZE, dim=DIM)


def subject(
    folder: Path,
    build: Build = lewm,
    *,
    num_frames: int = 4,
    steps: int = 600,
    seed: int = 0,
    world: str = "two-room",
    data: Path | None = None,
) -> Subject:
    """Train a model unless the folder holds it; a step has as many frames for any window.

    Episodes are walks in `world`, or those of a file of `worldmodel data collect`.
    """
    kept = folder / "known.safetensors"
    if not kept.exists():
        if data is None:
            walks = collect(WORLDS[world], 800, 80, 6 * seed, bump=0.4)
            episodes = _drawn(walks, WORLDS[world])
        else:
            episodes = open_episodes(data).in_memory()
            walks = _walks(episodes)
        scale = ActionScale.fit(episodes)
        windows = Windows(episodes, num_frames=num_frames, frameskip=FRAMESKIP, scale=scale)
        began = time.process_time()
        model = _train(build, windows, BATCH // num_frames, steps, seed)
        seconds = round(time.process_time() - began, 1)
        save(model, folder, action_scale=scale, extra={"cpu_seconds": seconds, "steps": steps})
        save_file(_known(model, walks, episodes, scale), kept)
    config, known = read_config(folder), load_file(kept)
    assert config.action_scale is not None
    return Subject(
        world=WORLDS[world] if data is None else open_world(world, workers=1, image_size=SIZE),
        model=load(folder),
        scale=config.action_scale,
        seconds=float(config.extra["cpu_seconds"]),
        **known,
    )


def subject_of_run(run: Path, data: Path) -> Subject:
    """The model of a run of `worldmodel train`, and its data, of episodes of one length."""
    made, episodes = open_run(run), open_episodes(data)
    seconds = json.loads((run / "report.json").read_text("utf-8"))["wall_seconds"]
    assert made.world is not None
    known = _known(made.world_model, _walks(episodes), episodes, made.scale)
    world = open_world(made.world, workers=1)
    return Subject(world, made.world_model, made.scale, seconds=seconds, **known)


def pairs_of_manifest(path: Path, num: int) -> Pairs:
    """The first pairs of a manifest."""
    manifest = read_manifest(path)
    return Pairs(manifest.starts[:num], manifest.goals[:num])


def pairs(num: int, offset: int, *, seed: int = 0, world: str = "two-room") -> Pairs:
    """Pairs `offset` steps apart in walks that do not touch the wall."""
    states = collect(WORLDS[world], 400, 120, 6 * seed + 1).states
    rng = np.random.default_rng(6 * seed + 2)
    episode = rng.integers(len(states), size=20 * num)
    row = rng.integers(states.shape[1] - offset, size=20 * num)
    starts, goals = states[episode, row], states[episode, row + offset]
    open_ = np.flatnonzero(~WORLDS[world].success(starts, goals))[:num]
    assert len(open_) == num
    return Pairs(starts[open_], goals[open_])


def picture(states: NDArray[np.float32], world: Any = WORLDS["two-room"]) -> Tensor:
    """Frames [N, 3, H, W] of states."""
    return torch.from_numpy(world.render(states))


def kept(path: Path, key: str, compute: Callable[[], Any]) -> Any:
    """A JSON value by its key in a file; a missing value is computed and stored."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if key not in known:
        known[key] = compute()
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(known), "utf-8")
        draft.replace(path)
    return known[key]


class Tried(NamedTuple):
    """The outcome of a controller on pairs.

    Attributes:
        solved: [N], at any step.
        path: states [N, 2] after each step.
        rollouts: plans imagined per decision and problem.
        seconds: of processor time per decision, all problems together.
    """

    solved: NDArray[np.bool_]
    path: list[NDArray[np.float32]]
    rollouts: float
    seconds: float


def control(
    subject: Subject,
    tried: Pairs,
    goal: Callable[[Tensor], Tensor],
    budget: int,
    *,
    method: Any = None,
    constrain: Callable[[Any, Callable[[Tensor], Tensor]], Any] | None = None,
    horizon: int = 5,
    iterations: int = 6,
    execute: int = 1,
    history: int = 1,
    done: Callable[[NDArray[np.float32]], NDArray[np.bool_]] | None = None,
    **options: Any,
) -> Tried:
    """Plan in latent space, act and encode a new frame, until the budget of steps is spent.

    Args:
        subject: the model that imagines.
        tried: starts, and goals for the default of `done`.
        goal: futures [N, S, H, D] -> costs [N, S].
        budget: environment steps.
        method: planner; None is a CEM of 64 candidates, 8 elites.
        constrain: (method, actions -> futures) -> the method in use.
        horizon: blocks of `FRAMESKIP` repeated actions.
        iterations: per decision.
        execute: blocks per decision.
        history: frames a plan starts from, the actions between them too; above 1, `execute` is 1.
        done: states [N, 2] -> [N]; near the goal by default.
        options: more of `MPC`.
    """
    imagination, world = subject.model.imagine(), subject.world
    here: list[Any] = []
    count = [0, 0.0, 0.0]

    def futures(actions: Tensor) -> Tensor:
        return here[-1](actions.repeat(1, 1, 1, FRAMESKIP))

    def cost(actions: Tensor) -> Tensor:
        count[1] += actions.shape[1]
        return goal(futures(actions))

    low, method = torch.from_numpy(world.action_low), method or CEM(64, 8)
    mpc: MPC[Any] = MPC(
        constrain(method, futures) if constrain else method,
        horizon=horizon, action_dim=2, iterations=iterations, execute=execute, seed=1,
        batch=len(tried.starts),
        bounds=Bounds(low, -low, mean=subject.scale.mean, std=subject.scale.std), **options,
    )  # fmt: skip
    assert history == 1 or execute == 1
    states, path, seen, past = tried.starts, [], list[Tensor](), list[Tensor]()
    solved = np.zeros(len(states), bool)
    with warnings.catch_warnings():
        # The table measures the effect that this warning describes.
        warnings.simplefilter("ignore", RuntimeWarning)
        while len(path) < budget:
            seen.append(picture(states, world))
            known = torch.stack(past[1 - history :], 1) if past and history > 1 else None
            here.append(imagination.look(torch.stack(seen[-history:], 1), known))
            began = time.process_time()
            actions = mpc.act(cost).repeat_interleave(FRAMESKIP, dim=1)
            count[0], count[2] = count[0] + 1, count[2] + time.process_time() - began
            past.append(subject.scale.normalise(actions[:, :FRAMESKIP].flatten(1)))
            for action in actions.unbind(1)[: budget - len(path)]:
                states = world.step(states, action.numpy())
                path.append(states)
                solved |= done(states) if done else world.success(states, tried.goals)
    return Tried(solved, path, count[1] / count[0], count[2] / count[0])


def sign_test(more: int, fewer: int) -> float:
    """Two-sided exact test that gains and losses are equally likely (McNemar's)."""
    n, k = more + fewer, min(more, fewer)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def wilson(hits: int, num: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.959964, hits / num
    middle = (p + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(p * (1 - p) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return middle - half, middle + half


def _train(build: Build, windows: Windows, batch: int, steps: int, seed: int) -> WorldModel:
    torch.manual_seed(seed)
    model, regularizer = build(), SIGReg(num_proj=256, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1
    )
    batches = map(windows.batch, BatchOrder(len(windows), batch, seed=seed))
    for step in range(steps):
        losses = jepa_loss(model, next(batches), regularizer, weight=WEIGHT)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: prediction {losses.prediction:.4f}", flush=True)
    return model.eval()


def _drawn(walks: Walks, world: Any) -> Episodes:
    num, length = walks.states.shape[:2]
    states = walks.states.reshape(num * length, -1)
    nowhere = np.full((num, 1, 2), np.nan, np.float32)
    actions = np.concatenate([walks.actions, nowhere], axis=1).reshape(-1, 2)
    return Episodes(
        picture(states, world),
        torch.from_numpy(actions),
        torch.full((num,), length),
        torch.from_numpy(states),
    )


def _walks(episodes: Any) -> Walks:
    """States and actions of episodes of one length."""
    states, actions = (
        x.unflatten(0, (len(episodes), -1)).numpy() for x in (episodes.states, episodes.actions)
    )
    return Walks(states, actions[:, :-1])


@torch.no_grad()
def _known(
    model: WorldModel, walks: Walks, episodes: Episodes, scale: ActionScale
) -> dict[str, Tensor]:
    E, rows = walks.states.shape[:2]
    at = torch.arange(E)[:, None] * rows + torch.arange(0, rows, FRAMESKIP)
    z = torch.cat([model.encode(episodes.frames[part]) for part in at.split(50)])
    blocks = torch.from_numpy(walks.actions).unflatten(1, (-1, FRAMESKIP)).flatten(2)
    states = torch.from_numpy(walks.states[:, ::FRAMESKIP]).contiguous()
    return {"z": z, "actions": scale.normalise(blocks), "states": states}
