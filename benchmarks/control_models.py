"""The models that bench_control.py tries: how each is trained, kept and made into a policy.

All learn from the demo's walks. Where a recipe does not say otherwise they are as large as the
demo's model and see as many batches of the same size, drawn in the same order.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sigreg import SIGReg, SubspaceRegularizer
from worldmodel import GCBC, gcbc_loss, presets
from worldmodel.apps.demo.material import DemoConfig, Material, gather, new_training
from worldmodel.apps.evaluate import Planner, Policy
from worldmodel.apps.evaluate.running import Evaluation, Subject, policy_of
from worldmodel.apps.progress import Progress
from worldmodel.apps.provenance import commit
from worldmodel.apps.runs import open_run, save_run
from worldmodel.apps.train.config import TrainConfig
from worldmodel.apps.train.loop import Training
from worldmodel.apps.train.objectives import OBJECTIVES, NoTerms
from worldmodel.data import ActionScale, Windows, action_digest, episode_digests
from worldmodel.worlds import TwoRoom
from worldmodel.worlds.rendered import RenderedFrames

__all__ = ["FROZEN", "SIDE", "Recipe", "load", "train"]

FROZEN = "frozen random encoder"
GOAL = 25  # raw steps to the goals that GCBC is trained for, as far as the manifest's
SIDE = 224  # of the published frames
PASSES = 10  # over the data at the published size, as published
RATE = 5e-4  # of the published width in a short run; ten times the published rate, not searched for


@dataclass(frozen=True)
class Recipe:
    """One model.

    Attributes:
        folder: where it is kept.
        objective: "lewm", "pldm" or "gcbc"; "frozen" is LeWM behind an encoder left as it was.
        weight: λ of SIGReg.
        dim: embedding width; None is the demo's.
        subspaces: in which SIGReg looks, one by one; 0 is the whole space.
        image_size: side of the frames; None is the demo's.
        published: LeWM's published width and depth on this data; at 224 pixels trained as published
            too, at another size as long as the others.
        seed: of walks, weights and batches.
        longer: times as many steps.
    """

    folder: str
    objective: str = "lewm"
    weight: float = 0.05
    dim: int | None = None
    subspaces: int = 0
    image_size: int | None = None
    published: bool = False
    seed: int = 0
    longer: int = 1


def train(recipe: Recipe, runs: Path, config: DemoConfig, device: str = "cpu") -> None:
    """Train a recipe's model if it is not there; an interrupted training goes on."""
    folder = runs / recipe.folder
    if (folder / "config.json").exists():
        return
    config = _sized(recipe, config)
    training, scale, material = _training(recipe, config, device)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "training.safetensors"
    if state.exists():
        training.restore(state)
    began, steps = time.process_time(), training.config.steps
    with Progress(f"train {recipe.folder}", steps, start=training.step) as bar:

        def on_step(step: int, losses: Any) -> None:
            if step % 100 == 0:
                training.save(state)
            bar.update(prediction=float(losses.prediction), extra=float(losses.regularization))

        training.run(on_step)
    settings = asdict(recipe) | {
        "weight": training.config.weight,
        "dim": training.model.encoder.dim,
        "image_size": config.image_size,
        "batch_size": training.config.batch_size,
        "steps": steps,
        "seed": training.config.seed,
        "cpu_seconds": round(time.process_time() - began),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }
    save_run(
        training.model.eval(),
        folder,
        scale=scale,
        frameskip=config.frameskip,
        world="two-room",
        objective=FROZEN if recipe.objective == "frozen" else recipe.objective,
        trained_on=episode_digests(material.windows.episodes),
        held_out=[action_digest(actions) for actions in material.unseen.actions],
        settings=settings,
    )
    state.unlink(missing_ok=True)


def load(
    recipe: Recipe, runs: Path, planner: Planner, device: str = "cpu"
) -> tuple[Subject, Policy, dict[str, Any]]:
    """A trained model as a policy, behind the planner if it needs one, and its settings."""
    run = open_run(runs / recipe.folder, device)
    evaluation = Evaluation(planner, device=device)
    return Subject.of(run)._replace(name=recipe.folder), policy_of(run, evaluation), run.settings


def _sized(recipe: Recipe, config: DemoConfig) -> DemoConfig:
    """The demo's settings with the recipe's in their place."""
    weight = recipe.weight if recipe.objective == "lewm" else 0.0
    return replace(
        config,
        seed=recipe.seed,
        steps=recipe.longer * config.steps,
        weight=weight,
        dim=recipe.dim or config.dim,
        image_size=recipe.image_size or config.image_size,
    )


def _training(
    recipe: Recipe, config: DemoConfig, device: str
) -> tuple[Training, ActionScale, Material]:
    """A training at its first step."""
    if recipe.published and config.image_size == SIDE:
        # Frames of the published size would take ten gigabytes: they are drawn batch by batch.
        material = gather(replace(config, image_size=64))
        return _published(config, material, device), material.scale, material
    material = gather(config)
    windows = material.windows
    if recipe.published:
        torch.manual_seed(config.seed)
        model: nn.Module = presets.lewm(2 * config.frameskip, image_size=config.image_size)
        own = replace(config.training(), learning_rate=RATE)
        return Training(model.to(device), windows, own, device), material.scale, material
    training = new_training(replace(config, device=device), windows)
    model = training.model
    if recipe.objective == "frozen":
        training.model.encoder.requires_grad_(False)
        return training, material.scale, material
    own = config.training()
    objective, regularizer = training.objective, training.regularizer
    if recipe.objective == "gcbc":
        model, objective, regularizer = _gcbc(config).to(device), gcbc_loss, NoTerms()
        windows = Windows(
            material.windows.episodes,
            num_frames=GOAL // config.frameskip + 1,
            frameskip=config.frameskip,
            scale=material.scale,
        )
    elif recipe.objective == "pldm":
        known = OBJECTIVES["pldm"]
        own = replace(own, weight=1.0)  # of its terms together, which have weights of their own
        objective, regularizer = known.objective, known.regularizer(own)
    elif recipe.subspaces:
        sigreg = SIGReg(num_proj=own.num_proj, seed=own.seed)
        regularizer = SubspaceRegularizer(sigreg, config.dim, recipe.subspaces, seed=own.seed)
    training = Training(model, windows, own, device, objective=objective, regularizer=regularizer)
    return training, material.scale, material


def _published(config: DemoConfig, material: Material, device: str) -> Training:
    """LeWM as published, on the demo's walks."""
    stored = material.windows.episodes
    assert stored.states is not None
    frames = RenderedFrames(TwoRoom(config.image_size), stored.states.numpy())
    windows = Windows(
        replace(stored, frames=frames), frameskip=config.frameskip, scale=material.scale
    )
    batch = 128
    own = TrainConfig(
        steps=min(PASSES * (len(windows) // batch), config.steps),
        batch_size=batch,
        precision="bfloat16" if device.startswith("cuda") else "float32",
    )
    torch.manual_seed(own.seed)
    model = presets.lewm(2 * config.frameskip, image_size=config.image_size)
    return Training(model.to(device), windows, own, device)


def _gcbc(config: DemoConfig) -> GCBC:
    """Encoder and trunk of the small preset's sizes, steered by the goal."""
    torch.manual_seed(config.seed)
    action_dim = 2 * config.frameskip
    parts = presets.small(action_dim, image_size=config.image_size, dim=config.dim)
    return GCBC(parts.encoder, parts.predictor, action_dim)
