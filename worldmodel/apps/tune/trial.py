"""One short training run at one λ, and what both terms of the loss fall short of in it.

Two dimensionless shortfalls on held-out episodes, each about 1 at worst and 0 at best:

    u(λ) = |ẑ_{t+1} − z_{t+1}|² / |z_t − z_{t+1}|²     prediction, against predicting no change
    c(λ) = (SIGReg − floor) / (collapse − floor)        distribution, against a collapse
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sigreg import SIGReg, collapse_value, effective_rank, noise_floor
from worldmodel import presets
from worldmodel.apps.demo.material import DemoConfig, draw
from worldmodel.apps.progress import Progress
from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.loop import Training
from worldmodel.data import ActionScale, Episodes, Windows, split
from worldmodel.data.opening import open_episodes
from worldmodel.model import WorldModel
from worldmodel.records import Losses
from worldmodel.worlds import TwoRoom, collect

__all__ = ["BUILT_IN", "Trial", "TuneConfig", "TuneMaterial", "judge", "run_trial", "tune_material"]

BUILT_IN = "two-room"
_BLOCK = 64  # held-out windows encoded at a time


@dataclass(frozen=True)
class TuneConfig:
    """What decides a trial, besides λ: data, model and the short run.

    The λ that is found belongs to this recipe. The deterministic part of SIGReg grows with the
    batch, so keep the batch size that the long run will have.

    Attributes:
        data: `two-room`, or a data set that `open_episodes` reads.
        preset: "small" or "lewm".
        steps: of each short run.
        batch_size: windows per step.
        learning_rate: peak.
        warmup: fraction of the steps.
        num_proj: directions of SIGReg.
        frameskip: raw actions per block.
        held_out: fraction of the episodes that judge.
        windows: how many held-out windows judge, at most.
        seed: of split, weights, batches and directions; the same in every trial.
        device: where the model lives.
    """

    data: str = BUILT_IN
    preset: str = "small"
    steps: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    num_proj: int = 256
    frameskip: int = 5
    held_out: float = 0.2
    windows: int = 1024
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.preset not in ("small", "lewm"):
            raise ValueError(f'preset must be "small" or "lewm", got {self.preset!r}')
        if self.windows < 2:
            raise ValueError(f"windows must be at least 2, got {self.windows}")
        self.training(0.0)

    def training(self, weight: float) -> TrainConfig:
        """The short run at one λ."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight=weight,
            warmup=self.warmup,
            num_proj=self.num_proj,
            seed=self.seed,
        )


class Trial(NamedTuple):
    """One short run, judged on held-out windows.

    Attributes:
        weight: λ.
        prediction: u, the error as a fraction of that of predicting no change.
        distribution: c, SIGReg's excess over its floor as a fraction of a collapse's.
        error: mean square prediction error.
        sigreg: the statistic.
        effective_rank: of the embeddings.
        seconds: the run took.
    """

    weight: float
    prediction: float
    distribution: float
    error: float
    sigreg: float
    effective_rank: float
    seconds: float

    @property
    def gap(self) -> float:
        """u − c: negative while λ is too small."""
        return self.prediction - self.distribution


class TuneMaterial(NamedTuple):
    """What every trial shares.

    Attributes:
        train: windows to learn from.
        held_out: windows of other episodes.
        judges: [N], which of them judge.
        fresh: the model before its first step, the same every time.
    """

    train: Windows
    held_out: Windows
    judges: Tensor
    fresh: Callable[[], WorldModel]


def tune_material(config: TuneConfig) -> TuneMaterial:
    """Open or collect the episodes, split them, and say which model learns from them."""
    episodes = _built_in(config) if config.data == BUILT_IN else open_episodes(config.data)
    train, rest = split(len(episodes), config.held_out, config.seed)
    scale = ActionScale.fit(episodes, train)
    side = int(episodes.frames.shape[-1])
    action_dim = episodes.actions.shape[1] * config.frameskip

    def fresh() -> WorldModel:
        torch.manual_seed(config.seed)
        make = presets.small if config.preset == "small" else presets.lewm
        return make(action_dim, image_size=side).to(config.device)

    held_out = Windows(episodes, frameskip=config.frameskip, scale=scale, subset=rest)
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(config.seed))
    return TuneMaterial(
        train=Windows(episodes, frameskip=config.frameskip, scale=scale, subset=train),
        held_out=held_out,
        judges=order[: config.windows],
        fresh=fresh,
    )


def _built_in(config: TuneConfig) -> Episodes:
    """As many as `worldmodel demo` trains on, and those that judge beside them."""
    demo = DemoConfig(seed=config.seed)
    world = TwoRoom(demo.image_size)
    num = round(demo.episodes / (1 - config.held_out))
    return draw(world, collect(world, num, demo.length, demo.seed_for("train"), bump=demo.bump))


@torch.no_grad()
def judge(model: WorldModel, windows: Windows, index: Tensor, seed: int = 0) -> dict[str, float]:
    """Both shortfalls of a model on held-out windows, and what they are made of.

    Args:
        model: WorldModel in evaluation mode.
        windows: Windows of episodes the model has not seen.
        index: [N] of them, N at least 2.
        seed: of SIGReg's directions.
    Returns: prediction, distribution, error, sigreg and effective_rank, as in Trial.
    """
    device = next(model.parameters()).device
    known, foretold = [], []
    for part in index.split(_BLOCK):
        frames, actions = windows.batch(part).to(device)
        known.append(model.encode(frames))
        foretold.append(model.predict(known[-1][:, :-1], actions[:, :-1]))
    z, predicted = torch.cat(known).float(), torch.cat(foretold).float()
    error = float(F.mse_loss(predicted, z[:, 1:]))
    standing = float(F.mse_loss(z[:, :-1], z[:, 1:]))
    statistic = float(SIGReg(seed=seed).to(device)(z.transpose(0, 1)))
    floor = noise_floor()
    flat = z.flatten(0, 1)
    return {
        # A collapse to the last bit leaves nothing to predict: standing still is right.
        "prediction": error / standing if standing > 0 else 1.0,
        "distribution": (statistic - floor) / (collapse_value(len(z)) - floor),
        "error": error,
        "sigreg": statistic,
        "effective_rank": float(effective_rank(flat.T.cov())),
    }


def run_trial(config: TuneConfig, material: TuneMaterial, weight: float) -> Trial:
    """Train from the start at one λ and judge the result; the same numbers every time."""
    began = time.perf_counter()
    training = Training(material.fresh(), material.train, config.training(weight), config.device)
    with Progress(f"λ {weight:.3g}", config.steps) as bar:

        def on_step(_: int, losses: Losses) -> None:
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        training.run(on_step)
    found = judge(training.model.eval(), material.held_out, material.judges, config.seed)
    return Trial(weight, **found, seconds=round(time.perf_counter() - began, 1))
