"""What a demo run is made of: settings, collected episodes, and the pairs to be tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from worldmodel import presets
from worldmodel.apps.evaluate import Pairs, make_pairs
from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.loop import Training
from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.model import WorldModel
from worldmodel.worlds import TwoRoom, Walks, collect

__all__ = ["DemoConfig", "Material", "draw", "gather", "new_training"]

_PURPOSES = ("train", "held out", "pairs", "random policy", "planner", "probe")


@dataclass(frozen=True)
class DemoConfig:
    """What a demo run is made of; the command line sets some of it.

    Attributes:
        seed: from which every other seed follows.
        steps: optimizer steps.
        episodes: collected for training.
        length: actions per episode.
        bump: how often a training walker ignores the wall; held-out walkers never do.
        held_out: episodes collected for probes, starts and goals.
        pairs: start and goal pairs to evaluate.
        offset: raw steps between a start and its goal in the held-out episode.
        budget: raw steps the agent may take.
        frameskip: raw actions per block.
        image_size: frame side in pixels.
        dim: embedding width.
        batch_size: windows per step.
        learning_rate: peak.
        weight: λ.
        warmup: fraction of steps.
        num_proj: directions of SIGReg.
        device: where model and planner live.
    """

    seed: int = 0
    steps: int = 600
    episodes: int = 800
    length: int = 80
    bump: float = 0.4
    held_out: int = 200
    pairs: int = 200
    offset: int = 25
    budget: int = 50
    frameskip: int = 5
    image_size: int = 64
    dim: int = 64
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight: float = 0.05
    warmup: float = 0.1
    num_proj: int = 256
    device: str = "cpu"

    def seed_for(self, purpose: str) -> int:
        """One seed per purpose: no stream is used twice, and no run shares one with the next."""
        return self.seed * len(_PURPOSES) + _PURPOSES.index(purpose)

    def training(self) -> TrainConfig:
        """The part that decides the training run."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight=self.weight,
            warmup=self.warmup,
            num_proj=self.num_proj,
            seed=self.seed,
        )


class Material(NamedTuple):
    """What a run learns from and is tried on.

    Attributes:
        world: at the size the model sees.
        walks: training episodes; they bump into the wall now and then.
        unseen: held-out episodes, for probes, starts and goals.
        windows: of the training episodes.
        scale: of the training actions.
        pairs: from the held-out episodes.
    """

    world: TwoRoom
    walks: Walks
    unseen: Walks
    windows: Windows
    scale: ActionScale
    pairs: Pairs


def gather(config: DemoConfig) -> Material:
    """Collect episodes, draw them, and choose the pairs."""
    world = TwoRoom(config.image_size)
    walks = collect(
        world, config.episodes, config.length, config.seed_for("train"), bump=config.bump
    )
    unseen = collect(world, config.held_out, config.length, config.seed_for("held out"))
    episodes = draw(world, walks)
    scale = ActionScale.fit(episodes)
    return Material(
        world=world,
        walks=walks,
        unseen=unseen,
        windows=Windows(episodes, frameskip=config.frameskip, scale=scale),
        scale=scale,
        pairs=make_pairs(
            world,
            list(unseen.states),
            config.pairs,
            offset=config.offset,
            seed=config.seed_for("pairs"),
        ),
    )


def draw(world: TwoRoom, walks: Walks) -> Episodes:
    """Walks to episodes of frames."""
    num, length = walks.states.shape[:2]
    states = walks.states.reshape(-1, 2)
    nowhere = np.full((num, 1, 2), np.nan, np.float32)
    actions = np.concatenate([walks.actions, nowhere], axis=1).reshape(-1, 2)
    return Episodes(
        frames=torch.from_numpy(world.render(states)),
        actions=torch.from_numpy(actions),
        lengths=torch.full((num,), length),
        states=torch.from_numpy(states),
    )


def new_training(config: DemoConfig, windows: Windows) -> Training[WorldModel]:
    """A fresh model of the small preset, ready for its first step."""
    torch.manual_seed(config.seed)
    model = presets.small(2 * config.frameskip, image_size=config.image_size, dim=config.dim)
    return Training(model.to(config.device), windows, config.training(), config.device)
