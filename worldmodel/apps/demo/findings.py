"""What a trained model turns out to know and to do: probes, planning, and the report of both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners.noise import problem_seeds
from sigreg import noise_floor, trapezoid
from worldmodel.apps.demo.material import DemoConfig, Material
from worldmodel.apps.evaluate import Outcome, Planner, PlannerPolicy, attempt
from worldmodel.apps.progress import Progress
from worldmodel.apps.provenance import commit, machine, versions
from worldmodel.model import WorldModel
from worldmodel.study import Probe, embed, probe, proportion
from worldmodel.worlds import TwoRoom, Walks

__all__ = ["Knowledge", "crossing", "floor", "learned", "plan", "provenance", "rate", "rates"]


class Knowledge(NamedTuple):
    """What the embeddings of held-out frames say about the true position.

    Attributes:
        probe: R² for x and y.
        z: [N, D], held-out embeddings.
        states: [N, 2], where they were.
    """

    probe: Probe
    z: Tensor
    states: NDArray[np.float32]

    def r2(self) -> dict[str, dict[str, float]]:
        """Rounded, by probe and axis."""
        return {
            name: {axis: round(v, 4) for axis, v in zip(("x", "y"), values.tolist(), strict=True)}
            for name, values in (("linear", self.probe.linear), ("mlp", self.probe.mlp))
        }


def learned(config: DemoConfig, material: Material, model: WorldModel) -> Knowledge:
    """Fit probes on training episodes, score them on the held-out ones."""
    few = Walks(*(part[: config.held_out] for part in material.walks))
    train_z, train_states = _embed(config, model, material.world, few, every=4)
    z, states = _embed(config, model, material.world, material.unseen, every=8)
    found = probe(
        train_z,
        torch.from_numpy(train_states),
        z,
        torch.from_numpy(states),
        seed=config.seed_for("probe"),
    )
    return Knowledge(found, z, states)


def _embed(
    config: DemoConfig, model: WorldModel, world: TwoRoom, walks: Walks, every: int
) -> tuple[Tensor, NDArray[np.float32]]:
    """Embeddings and states of every `every`-th observation."""
    states = walks.states[:, ::every].reshape(-1, 2)
    return embed(model, torch.from_numpy(world.render(states))).cpu(), states


def plan(config: DemoConfig, material: Material, model: WorldModel) -> Outcome:
    """Try every pair by planning in latent space."""
    with Progress("plan", config.budget) as bar:
        policy = PlannerPolicy(
            model,
            material.scale,
            frameskip=config.frameskip,
            planner=Planner(together=None),
            device=config.device,
        )
        seeds = problem_seeds(config.seed_for("planner"), config.pairs, torch.device("cpu"))
        return attempt(
            material.world,
            material.pairs,
            policy,
            budget=config.budget,
            seeds=seeds.numpy(),
            on_steps=bar.update,
        )


def rates(material: Material, outcome: Outcome) -> dict[str, Any]:
    """Success over all pairs with its interval, and on either side of the wall."""
    success = outcome.success
    crosses = crossing(material)
    return {
        "success_rate": rate(success),
        "success_interval": [
            round(b, 4) for b in proportion(int(success.sum()), len(success))[1:3]
        ],
        "same_room_success_rate": rate(success[~crosses]),
        "cross_room_success_rate": rate(success[crosses]),
    }


def crossing(material: Material) -> NDArray[np.bool_]:
    """Which pairs lie across the wall."""
    world, pairs = material.world, material.pairs
    out: NDArray[np.bool_] = world.room(pairs.starts) != world.room(pairs.goals)
    return out


def rate(flags: NDArray[np.bool_]) -> float | None:
    """Share of true ones, or None of nothing."""
    return round(float(flags.mean()), 4) if len(flags) else None


def floor() -> float:
    """What a Gaussian batch scores under the default rule."""
    return float(noise_floor(trapezoid()))


def provenance(config: DemoConfig) -> dict[str, Any]:
    """Seed, settings, versions, commit and machine."""
    return {
        "seed": config.seed,
        "config": asdict(config),
        "versions": versions(),
        "git_commit": commit(),
        "machine": machine(config.device),
    }
