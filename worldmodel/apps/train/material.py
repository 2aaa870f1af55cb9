"""Data and model of a run: open, split and cut the data; build or load the model."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sigreg import SIGReg
from worldmodel import presets
from worldmodel.apps.data.collecting import open_pictures
from worldmodel.apps.machine import free_memory, precision_of
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import Ranks, SharedPLDM, everyone, synchronise
from worldmodel.apps.runs import metric_of, open_run
from worldmodel.apps.settings import Recipe, TrainSettings
from worldmodel.apps.train.loop import Objective, Training
from worldmodel.data import ActionScale, Episodes, Windows, episode_digests, split
from worldmodel.data.frames import EpisodeFrames
from worldmodel.data.reading import choices_in_words
from worldmodel.gcbc import GCBC, gcbc_loss
from worldmodel.heads import Head
from worldmodel.loss import ComposedTerms, composed_loss, jepa_loss, pldm_loss, predictor_loss
from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses
from worldmodel.study.paths import embed

_PASSES = 10  # over the data if no steps are given, as published
_MEMORY = 8 * 2**30  # most bytes of frames to read into memory if a file cannot be mapped


class TrainMaterial(NamedTuple):
    """Training data and held-out data of a run."""

    train: Windows
    held_out: Windows
    scale: ActionScale  #: of the training actions
    trained_on: list[str]  #: digests of the training episodes
    kept_apart: list[str]  #: digests of the held-out episodes
    notes: Sequence[str] = ()  #: remarks about the data


def open_material(settings: TrainSettings) -> TrainMaterial:
    """Open a data set and split it by episode.

    Raises: FileNotFoundError, ImportError or ValueError if it cannot be read, has fewer than two
        long episodes, or frames that are not square with three channels.
    """
    episodes = open_pictures(
        settings.data, render=settings.render, env=settings.world, alone=False,
        pixels=settings.pixels, action=settings.action,
    )  # fmt: skip
    _, channels, height, width = episodes.frames.shape
    if channels != 3 or height != width:
        came = f"{width} × {height} and {channels} in {settings.data}"
        remedy = f"worldmodel data convert IN OUT.h5 --size {min(height, width)} --channels rgb"
        raise ValueError(f"frames must be square and of three channels, got {came}; use {remedy}")
    if isinstance(episodes.frames, EpisodeFrames):
        if (size := math.prod(episodes.frames.shape)) > _MEMORY:
            came = f"{settings.data} gives whole episodes only and has {size / 2**30:.0f} GiB"
            remedy = "write it as HDF5 first: worldmodel data convert IN OUT.h5"
            raise ValueError(f"{came} of frames; {remedy}")
        episodes = episodes.in_memory()
    span = settings.num_frames * settings.frameskip
    usable = (episodes.lengths >= span).nonzero().flatten()
    short = f"{len(episodes) - len(usable)} of {len(episodes)} episodes are shorter than a window, "
    short += f"num_frames {settings.num_frames} × frameskip {settings.frameskip} = {span} rows"
    if len(usable) < 2:
        longest = int(episodes.lengths.max())
        raise ValueError(f"{short}, the longest has {longest}: two must be as long, for the split")
    train, held_out = split(len(usable), settings.held_out, settings.seed)
    material = cut(settings, (episodes, usable[train]), (episodes, usable[held_out]))
    notes = [f"{short}; they are left out"] if len(usable) < len(episodes) else []
    notes += [choices_in_words(episodes)] if episodes.choices else []
    notes += [material.scale.held_in_words] if material.scale.held else []
    return material._replace(notes=notes)


def cut(
    settings: TrainSettings, train: tuple[Episodes, Tensor], held_out: tuple[Episodes, Tensor]
) -> TrainMaterial:
    """Cut training and held-out windows, each from episodes and the indices [E] to use."""
    frames, skip, scale = settings.num_frames, settings.frameskip, ActionScale.fit(*train)
    windows, names = [], []
    for episodes, some in (train, held_out):
        own = Windows(episodes, num_frames=frames, frameskip=skip, scale=scale, subset=some)
        if settings.moving:
            own.thin(settings.moving, settings.moving_states, settings.seed)
        windows.append(own)
        digests = episode_digests(episodes)
        names.append([digests[e] for e in some.tolist()])
    return TrainMaterial(windows[0], windows[1], scale, names[0], names[1])


class NoTerms(nn.Module):
    """The regularizer 0: a loss of predicted actions cannot collapse."""

    def forward(self, z: Tensor) -> Tensor:
        """Embeddings of any shape -> 0."""
        return z.new_zeros(())


def objective_of(name: str, recipe: Recipe) -> tuple[Objective, nn.Module]:
    """The objective of a name, and its regularizer, from the settings of the loop."""
    if name == "gcbc":
        if recipe.weight:
            raise ValueError(f"weight must be 0 with objective gcbc, got {recipe.weight:g}")
        return gcbc_loss, NoTerms()
    if name == "pldm":
        # The terms have the published weights; the recipe's weight multiplies all of them.
        return pldm_loss, SharedPLDM()
    return jepa_loss, SIGReg(num_proj=recipe.num_proj, seed=recipe.seed, group=everyone())


def begin_training(
    settings: TrainSettings, material: TrainMaterial, ranks: Ranks, *, fresh: bool = True
) -> tuple[TrainSettings, Training]:
    """Make a training at step 0, and fill in the steps and precision of its settings.

    With `fresh` it loads the weights of `init_from`, if given; a resumed run has its own weights.

    Raises: ValueError if model, data, ranks and settings do not fit each other.
    """
    size, ours = settings.batch_size, len(material.held_out)
    least, now = 2 * ranks.size, settings.held_out
    if size < least or size % ranks.size:
        rule = f"at least 2 per process, and divisible by them, got {size} for {ranks.size}"
        raise ValueError(f"batch_size must be {rule}")
    if ours < least:
        rule = f"at least {least} windows, got {ours}: raise held_out (now {now})"
        raise ValueError(f"the held-out episodes must have {rule}")
    side = material.train.episodes.frames.shape[-1]
    if (most := settings.augment.get("shift", 0)) >= side:
        raise ValueError(f"augment.shift must be below the {side} pixels of a frame, got {most:g}")
    steps = settings.steps or max(_PASSES * (len(material.train) // size), 1)
    precision = precision_of(settings.precision, ranks.device)
    settings = settings.model_copy(update={"steps": steps, "precision": precision})
    torch.manual_seed(settings.seed)
    model = build_model(settings, material.train)
    if settings.init_from is not None and fresh:
        model.load_state_dict(_weights_of(settings.init_from, model, material))
    model.to(ranks.device)
    if ranks.size > 1:
        synchronise(model)
    objective, regularizer = objective_of(settings.objective, settings)
    if isinstance(model, WorldModel) and settings.objective == "predictor":
        objective, regularizer = _of_predictor(model, settings, fresh)
    elif settings.terms or settings.pooled:
        width = material.train.episodes.actions.shape[1] * settings.frameskip
        objective, regularizer = composed_loss, ComposedTerms(
            regularizer, settings.terms, dim=model.encoder.dim, action_dim=width,
            pooled=settings.pooled,
        )  # fmt: skip
    frozen = settings.objective == "predictor"  # `embedded` replaces its windows
    preload = settings.preload and not frozen
    windows = _preloaded(material.train, ranks) if preload else material.train
    training = Training(
        model, windows, settings, objective=objective, regularizer=regularizer,
        workers=0 if preload or frozen else settings.workers, ranks=ranks, sharded=settings.sharded,
        augment=settings.augment, accumulate=settings.accumulate, compile=settings.compile,
    )  # fmt: skip
    return settings, training


def _of_predictor(
    model: WorldModel, settings: TrainSettings, fresh: bool
) -> tuple[Objective, nn.Module]:
    """Freeze the encoder; the loss, and as its third argument the metric of `init_from`."""
    model.encoder.requires_grad_(False)
    metric = Head(model.encoder.dim, model.encoder.dim).requires_grad_(False)
    if fresh:  # a resumed run has it in its checkpoint
        if settings.init_from is None:
            raise ValueError("objective predictor needs --init-from, the run of a trained model")
        metric.load_state_dict(metric_of(open_run(settings.init_from)).state_dict())
    weight = settings.terms.get("rollout", 0.0)  # of the other terms nothing reaches the predictor

    def loss(model: WorldModel, batch: Batch, metric: nn.Module, _: float) -> Losses:
        return predictor_loss(model, batch, metric, weight)

    return loss, metric


def embedded(material: TrainMaterial, training: Training, *, quiet: bool) -> TrainMaterial:
    """Windows of the frozen encoder's embeddings, each computed once; the training gets them."""
    model, both = training.model.eval(), (material.train, material.held_out)
    plain = torch.compiler.set_stance("force_eager") if training.compiled else nullcontext()
    total = sum(len(windows.rows()) + 1 for windows in both)  # one more tells the shape
    with plain, Progress("embed", total, unit="frame", quiet=quiet) as bar:

        def read(frames: Tensor) -> Tensor:
            z = embed(model, frames)
            bar.update(len(z))
            return z

        train, held_out = (windows.on(training.device, read) for windows in both)
    training.windows = train
    return material._replace(train=train, held_out=held_out)


def _preloaded(windows: Windows, ranks: Ranks) -> Windows:
    device = torch.device(ranks.device)
    # Batches are drawn from all windows, so every rank needs all of them.
    copies = 1 if device.type == "cuda" else ranks.size
    need, free = copies * windows.num_bytes / 2**30, free_memory(device) / 2**30
    if need > free:
        came = f"{need:.3g} GiB of frames{f' in {copies} copies' if copies > 1 else ''}"
        rule = f"fit the {free:.3g} GiB that are free on {device}"
        raise ValueError(f"preload must {rule}, got {came}")
    if ranks.first:
        say(f"preload: {need:.3g} GiB of frames are copied to {device}")
    return windows.on(device)


def build_model(settings: TrainSettings, windows: Windows) -> WorldModel | GCBC:
    """Build the preset's model for these frames and blocks, with the arguments of `model`.

    The global random stream gives the weights. For "gcbc" it is a GCBC policy; its windows may be
    longer than the history, because later frames serve as goals.

    Raises: ValueError if a part lacks or refuses an argument, or its history is too short.
    """
    episodes, num_frames, preset = windows.episodes, settings.num_frames, settings.preset
    action_dim = episodes.actions.shape[1] * windows.frameskip
    changes: Mapping[Any, Mapping[str, Any]] = settings.model
    clones = settings.objective == "gcbc"
    if clones and changes.get("action_encoder"):
        raise ValueError("action_encoder must be left out with objective gcbc, which has none")
    with torch.device("meta"):
        plan = getattr(presets, preset)(action_dim)
    parts: dict[str, Any] = {}
    for name in ("encoder", "predictor") if clones else ("encoder", "action_encoder", "predictor"):
        part, wanted = getattr(plan, name), dict(changes.get(name, {}))
        own = {"image_size": episodes.frames.shape[-1]} if name == "encoder" else {}
        if unknown := sorted(set(wanted) - set(part.config)):
            whose, known = f"{name} ({type(part).__name__})", ", ".join(sorted(part.config))
            raise ValueError(f"{whose} has no {unknown[0]!r}; it has {known}")
        try:
            parts[name] = type(part)(**(part.config | own | wanted))
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            hint = "; set encoder.patch_size, or write frames of another side with `worldmodel "
            hint += f"data convert --size` (they have {episodes.frames.shape[-1]} px)"
            why = f"{error}{hint if own and not wanted else ''}"
            raise ValueError(f"the {preset} {name} cannot be built: {why}") from error
    if clones:
        return GCBC(parts["encoder"], parts["predictor"], action_dim)
    model = WorldModel(**parts)
    if (most := model.predictor.history + 1) < num_frames:
        remedy = f"set predictor.history={num_frames - 1} too"
        rule = f"at most predictor.history + 1 = {most}"
        raise ValueError(f"num_frames must be {rule}, got {num_frames}; {remedy}")
    return model


def _weights_of(
    folder: Path, model: WorldModel | GCBC, material: TrainMaterial
) -> dict[str, Tensor]:
    found, kind = open_run(folder), type(model).__name__
    if (other := type(found.model).__name__) != kind:
        raise ValueError(f"--init-from must be a {kind}, {folder} holds a {other}")
    mine = f"{material.train.episodes.actions.shape[1]} dims × frameskip {material.train.frameskip}"
    theirs = f"{len(found.scale.mean)} dims × frameskip {found.frameskip}"
    if mine != theirs:
        rule = f"trained on actions of {mine}, as in these settings"
        raise ValueError(f"--init-from must be {rule}, {folder} has {theirs}")
    state: dict[str, Tensor] = found.model.state_dict()
    ours, others = ({k: list(v.shape) for k, v in s.items()} for s in (model.state_dict(), state))
    if differ := sorted(n for n in ours | others if ours.get(n) != others.get(n)):
        first = f"{differ[0]}: {others.get(differ[0])} instead of {ours.get(differ[0])}"
        raise ValueError(
            f"--init-from must hold the model of these settings, {folder} differs in {len(differ)} "
            f"tensors, first {first}; --config {folder / 'train.json'} uses its settings"
        )
    return state
