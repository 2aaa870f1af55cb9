"""`worldmodel train --objective proposals`: train a learner on a frozen model's embeddings."""

import shlex
import time
from contextlib import suppress
from dataclasses import asdict

import torch
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps.data.collecting import open_pictures
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import device_of, provenance
from worldmodel.apps.parsing import Values, complete
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import write_index
from worldmodel.apps.runs import LEARNER, METRIC, RECORDED, open_run, save_run
from worldmodel.apps.settings import TrainSettings
from worldmodel.apps.study.command import sequences
from worldmodel.checkpoint import as_bytes
from worldmodel.data import episode_digests
from worldmodel.heads import fit_metric, save_head
from worldmodel.learning import Learner, learn, save_learner
from worldmodel.policies import Policy
from worldmodel.transitions import Recipe
from worldmodel.values import GCIQL, GCIVL, HIQL

_LEARNERS: dict[str, tuple[type[Learner], int]] = {
    "policy": (Policy, 1), "mixture": (Policy, 8), "gcivl": (GCIVL, 1), "gciql": (GCIQL, 1),
    "hiql": (HIQL, 1),
}  # fmt: skip
"""By name: kind, and modes of its policy."""
_READ = {
    "out", "data", "pixels", "action", "world", "render", "init_from", "objective", "learner",
    "model", "device", "steps", "batch_size", "learning_rate", "seed", "config", "debug",
}  # fmt: skip
_SETTINGS, _REPORT = "train.json", "report.json"
_HIDDEN = [256, 256]  # half of OGBench's widths; a CPU trains them in minutes
_MOST = 2**24  # most numbers of recorded embeddings to keep


def run(settings: TrainSettings) -> int:
    """Learn from the embeddings of --data; write a run of the same model with its learner."""
    out, device, began = settings.out, device_of(settings.device), time.perf_counter()
    if settings.init_from is None:
        raise ValueError("objective proposals needs --init-from, the run of a trained model")
    run = open_run(settings.init_from, device, data=settings.data)
    options = _options(settings, run.frameskip)
    model = run.world_model
    with begin_folder(out, _SETTINGS, resume=False):
        episodes = open_pictures(
            settings.data, render=settings.render, env=settings.world, pixels=settings.pixels,
            action=settings.action,
        )  # fmt: skip
        if (width := episodes.actions.shape[1]) != len(run.scale.mean):
            rule = f"actions of {len(run.scale.mean)} dims, as {settings.init_from} was trained on"
            raise ValueError(f"--data must have {rule}, got {width}")
        names = episode_digests(episodes)
        # The run's held-out episodes stay held out.
        free = torch.tensor([e for e, name in enumerate(names) if name not in run.held_out])
        which, T = _longest(episodes.lengths, free, run.frameskip)
        groups = which.split(32)
        with Progress("embed", len(groups), unit="part") as bar:
            parts = [sequences(run, episodes, some, T) for some in bar.over(groups)]
        z, actions = torch.cat([p.z for p in parts]), torch.cat([p.actions for p in parts])
        steps = settings.steps or 1
        with Progress("learn", steps) as bar:
            learner = learn(
                **options, z=z, actions=actions, steps=steps, batch=settings.batch_size,
                rate=settings.learning_rate, seed=settings.seed, over=bar.over,
            )  # fmt: skip
        seconds = round(time.perf_counter() - began, 2)
        told = settings.model_dump(mode="json")
        write_json(told, out / _SETTINGS)
        save_run(
            model, out, scale=run.scale, frameskip=run.frameskip, world=run.world,
            objective=settings.objective, data=settings.data, settings=told,
            trained_on=sorted(run.trained_on | {names[e] for e in which.tolist()}),
            held_out=sorted(run.held_out),
        )  # fmt: skip
        save_learner(learner, out / LEARNER, model=model, notes={"steps": steps})
        with suppress(ValueError):  # embeddings that never change
            save_head(fit_metric(z), out / METRIC)
        every = -(-z.numel() // _MOST)
        recorded = {"z": z[::every], "actions": actions[::every]}
        write_atomically(out / RECORDED, as_bytes(recorded)[0])
        report = {
            "learner": settings.learner, "steps": steps, "episodes": len(z), "embeddings": T,
            "wall_seconds": seconds, **provenance(device),
        }  # fmt: skip
        write_json(report, out / _REPORT)
        write_index(out)
    say(f"{out}: {settings.learner} of {len(z)} episodes of {T} embeddings, in {seconds:.0f} s")
    say(f"try it: worldmodel evaluate {shlex.quote(str(out))} --planner proposals --manifest FILE")
    return 0


def _options(settings: TrainSettings, frameskip: int) -> Values:
    """Kind and recipe of the learner; ValueError for a setting that has no effect."""
    own: Values = {"objective": "proposals", "data": settings.data, "out": settings.out}
    usual = complete(TrainSettings, "train", own)
    for name in sorted(settings.model_fields_set - _READ):
        if getattr(settings, name) != getattr(usual, name):
            raise ValueError(f"{name} has no effect with objective proposals: leave it out")
    kind, modes = _LEARNERS[settings.learner]
    # OGBench discounts per raw step, and a block has `frameskip` of them.
    given: Values = {"hidden": _HIDDEN, "discount": 0.99**frameskip, "modes": modes}
    given |= settings.model.get("recipe", {})
    known = asdict(Recipe())
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"recipe has no {name!r}; it has {', '.join(known)}")
        kinds = list if name == "hidden" else (int, type(known[name]))
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"recipe.{name} must be like {known[name]}, got {value!r}")
    return {"kind": kind, **given, "hidden": tuple(given["hidden"])}


def _longest(lengths: Tensor, free: Tensor, frameskip: int) -> tuple[Tensor, int]:
    """Choose among `free` episodes and a length T, so that there are most embeddings in all."""
    if not len(free):
        raise ValueError("--data must have episodes that the run did not hold out, got none")
    frames = (lengths[free] - 1) // frameskip + 1
    kept = torch.stack([(frames >= T).sum() * T for T in frames.unique()])
    T = int(frames.unique()[kept.argmax()])
    return free[frames >= T], T
