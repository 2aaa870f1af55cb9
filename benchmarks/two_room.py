"""Small models of Two-Room for the benchmarks of goals and planners, and pairs to try them on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sigreg import SIGReg
from worldmodel import WorldModel, jepa_loss, load, presets, save
from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.worlds import TwoRoom, Walks, collect

FRAMESKIP, SIZE, DIM = 5, 64, 64
BATCH, RATE, WEIGHT = 256, 1e-3, 0.05  # frames per step; peak; λ of SIGReg
_WORLD = TwoRoom(SIZE)

Build = Callable[[], WorldModel]


class Subject(NamedTuple):
    """A trained model and what heads are fitted on.

    Attributes:
        model: in eval mode.
        scale: of its actions.
        z: [E, T, D], embeddings of training episodes, `FRAMESKIP` steps apart.
        actions: [E, T − 1, A], blocks between them, in the model's units.
        states: [E, T, 2], where the agent was.
        seconds: of processor time that training took.
    """

    model: WorldModel
    scale: ActionScale
    z: Tensor
    actions: Tensor
    states: Tensor
    seconds: float


class Pairs(NamedTuple):
    """Starts and goals from episodes nobody trained on, not solved already: [N, 2] each."""

    starts: NDArray[np.float32]
    goals: NDArray[np.float32]


def lewm() -> WorldModel:
    """The demo's model."""
    return presets.small(2 * FRAMESKIP, image_size=SIZE, dim=DIM)


def subject(
    folder: Path, build: Build = lewm, *, num_frames: int = 4, steps: int = 600, seed: int = 0
) -> Subject:
    """Train a model, if the folder does not hold it yet; as many frames a step for every window."""
    walks = collect(_WORLD, 800, 80, 6 * seed, bump=0.4)
    episodes = _drawn(walks)
    scale = ActionScale.fit(episodes)
    if not (folder / "config.json").exists():
        windows = Windows(episodes, num_frames=num_frames, frameskip=FRAMESKIP, scale=scale)
        began = time.process_time()
        model = _train(build, windows, BATCH // num_frames, steps, seed)
        seconds = round(time.process_time() - began, 1)
        save(model, folder, action_scale=scale, extra={"cpu_seconds": seconds, "steps": steps})
    model = load(folder)
    from worldmodel import read_config

    seconds = float(read_config(folder).extra["cpu_seconds"])
    return Subject(model, scale, *_known(model, walks, episodes, scale), seconds)


def pairs(num: int, offset: int, *, seed: int = 0) -> Pairs:
    """Pairs `offset` steps apart in walks that keep off the wall."""
    states = collect(_WORLD, 400, 120, 6 * seed + 1).states
    rng = np.random.default_rng(6 * seed + 2)
    episode = rng.integers(len(states), size=20 * num)
    row = rng.integers(states.shape[1] - offset, size=20 * num)
    starts, goals = states[episode, row], states[episode, row + offset]
    open_ = np.flatnonzero(~_WORLD.success(starts, goals))[:num]
    assert len(open_) == num
    return Pairs(starts[open_], goals[open_])


def picture(states: NDArray[np.float32]) -> Tensor:
    """Frames [N, 3, H, W] of states."""
    return torch.from_numpy(_WORLD.render(states))


def attempt(
    starts: NDArray[np.float32],
    act: Callable[[Tensor], Tensor],
    done: Callable[[NDArray[np.float32]], NDArray[np.bool_]],
    budget: int,
) -> tuple[NDArray[np.bool_], list[NDArray[np.float32]]]:
    """Act for `budget` steps: which problems were done at any of them, and all states on the way.

    Args:
        starts: [N, 2].
        act: frames [N, 3, H, W] -> actions of the next steps [N, steps, 2].
        done: states [N, 2] -> [N].
        budget: steps.
    """
    states, path = starts, []
    solved = np.zeros(len(starts), bool)
    while len(path) < budget:
        for action in act(picture(states)).unbind(1)[: budget - len(path)]:
            states = _WORLD.step(states, action.numpy())
            path.append(states)
            solved |= done(states)
    return solved, path


def _train(build: Build, windows: Windows, batch: int, steps: int, seed: int) -> WorldModel:
    torch.manual_seed(seed)
    model, regularizer = build(), SIGReg(num_proj=256, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1
    )
    batches = windows.shuffled(batch, torch.Generator().manual_seed(seed))
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


def _drawn(walks: Walks) -> Episodes:
    num, length = walks.states.shape[:2]
    states = walks.states.reshape(-1, 2)
    nowhere = np.full((num, 1, 2), np.nan, np.float32)
    actions = np.concatenate([walks.actions, nowhere], axis=1).reshape(-1, 2)
    return Episodes(
        picture(states),
        torch.from_numpy(actions),
        torch.full((num,), length),
        torch.from_numpy(states),
    )


@torch.no_grad()
def _known(model: WorldModel, walks: Walks, episodes: Episodes, scale: ActionScale) -> Any:
    E, rows = walks.states.shape[:2]
    at = torch.arange(E)[:, None] * rows + torch.arange(0, rows, FRAMESKIP)
    z = torch.cat([model.encode(episodes.frames[part]) for part in at.split(50)])
    blocks = torch.from_numpy(walks.actions).unflatten(1, (-1, FRAMESKIP)).flatten(2)
    return z, scale.normalise(blocks), torch.from_numpy(walks.states[:, ::FRAMESKIP])
