"""The models of bench_control.py: training, storage, and policies.

All use the demo's walks. Unless a recipe says otherwise, they have the size of the demo's model,
and as many batches of the same size in the same order.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sigreg import SIGReg, SubspaceRegularizer
from worldmodel import GCBC, jepa_loss, presets
from worldmodel.apps import settings
from worldmodel.apps.demo import DemoMaterial, gather
from worldmodel.apps.machine import commit
from worldmodel.apps.progress import Progress
from worldmodel.apps.runs import Run, open_run, save_run
from worldmodel.apps.settings import DemoSettings
from worldmodel.apps.train.loop import Training
from worldmodel.apps.train.material import objective_of
from worldmodel.data import ActionScale, Windows, episode_digests
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
        folder: that holds it.
        objective: "lewm", "pldm" or "gcbc"; "frozen" is LeWM with an untrained encoder.
        weight: λ of SIGReg.
        dim: embedding width; None is the demo's.
        subspaces: number of subspaces that SIGReg tests; 0 is the whole space.
        image_size: side of the frames; None is the demo's.
        published: LeWM's published width and depth on this data; at 224 pixels trained as published
            too, at another size as long as the others.
        seed: of walks, weights and batches.
        longer: factor for the number of steps.
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


def train(recipe: Recipe, runs: Path, config: DemoSettings, device: str = "cpu") -> None:
    """Train a recipe's model unless it exists; an interrupted training continues."""
    folder = runs / recipe.folder
    if (folder / "config.json").exists():
        return
    config = _sized(recipe, config)
    training, scale, material = _training(recipe, config, device)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "training.safetensors"
    if state.exists():
        training.restore(state)
    began = time.process_time()
    with Progress(f"train {recipe.folder}", training.steps, start=training.step) as bar:
        for losses in training.run():
            if training.step % 100 == 0:
                training.save(state)
            bar.update(prediction=float(losses.prediction), extra=float(losses.regularization))
    known = asdict(recipe) | {
        "weight": training.recipe.weight,
        "dim": training.model.encoder.dim,
        "image_size": config.image_size,
        "batch_size": training.recipe.batch_size,
        "steps": training.steps,
        "seed": training.recipe.seed,
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
        trained_on=episode_digests(material.seen),
        held_out=episode_digests(material.unseen),
        settings=known,
    )
    state.unlink(missing_ok=True)


def load(recipe: Recipe, runs: Path, device: str = "cpu") -> Run:
    """A trained model under its recipe's name."""
    return open_run(runs / recipe.folder, device)._replace(folder=Path(recipe.folder))


def _sized(recipe: Recipe, config: DemoSettings) -> DemoSettings:
    """The demo's settings with the recipe's in their place."""
    changes = {
        "seed": recipe.seed,
        "steps": recipe.longer * config.steps,
        "weight": recipe.weight if recipe.objective == "lewm" else 0.0,
        "dim": recipe.dim or config.dim,
        "image_size": recipe.image_size or config.image_size,
    }
    return config.model_copy(update=changes)


def _training(
    recipe: Recipe, config: DemoSettings, device: str
) -> tuple[Training, ActionScale, DemoMaterial]:
    """A training at step 0."""
    full = recipe.published and config.image_size == SIDE
    # Frames of the published size would take ten gigabytes: they are drawn batch by batch.
    material = gather(config.model_copy(update={"image_size": 64}) if full else config)
    scale = ActionScale.fit(material.seen)
    if full:
        return _published(config, material, scale, device), scale, material
    own = settings.Recipe(**config.common(settings.Recipe), precision="float32")
    frames = GOAL // config.frameskip + 1 if recipe.objective == "gcbc" else 4
    windows = Windows(
        material.seen, num_frames=frames, frameskip=config.frameskip, scale=scale
    )  # fmt: skip
    objective, regularizer = jepa_loss, None
    torch.manual_seed(config.seed)
    model: nn.Module
    if recipe.published:
        model = presets.lewm(2 * config.frameskip, image_size=config.image_size)
        own = own.model_copy(update={"learning_rate": RATE})
    else:
        model = presets.small(
            2 * config.frameskip, image_size=config.image_size, dim=config.dim
        )  # fmt: skip
    if recipe.objective == "frozen":
        model.encoder.requires_grad_(False)
    elif recipe.objective == "gcbc":
        # Encoder and trunk of the small preset's sizes, steered by the goal.
        model = GCBC(model.encoder, model.predictor, 2 * config.frameskip)
        objective, regularizer = objective_of("gcbc", own)
    elif recipe.objective == "pldm":
        # Of its terms together, which have weights of their own.
        own = own.model_copy(update={"weight": 1.0})
        objective, regularizer = objective_of("pldm", own)
    elif recipe.subspaces:
        sigreg = SIGReg(num_proj=own.num_proj, seed=own.seed)
        regularizer = SubspaceRegularizer(sigreg, config.dim, recipe.subspaces, seed=own.seed)
    training: Training = Training(
        model.to(device), windows, own, objective=objective, regularizer=regularizer
    )
    return training, scale, material


def _published(
    config: DemoSettings, material: DemoMaterial, scale: ActionScale, device: str
) -> Training:
    """LeWM as published, on the demo's walks."""
    stored = material.seen
    assert stored.states is not None
    frames = RenderedFrames(TwoRoom(config.image_size), stored.states.numpy())
    windows = Windows(replace(stored, frames=frames), frameskip=config.frameskip, scale=scale)
    batch = 128
    own = settings.Recipe(
        steps=min(PASSES * (len(windows) // batch), config.steps),
        batch_size=batch,
        precision="bfloat16" if device.startswith("cuda") else "float32",
    )
    torch.manual_seed(own.seed)
    model = presets.lewm(2 * config.frameskip, image_size=config.image_size)
    return Training(model.to(device), windows, own)
